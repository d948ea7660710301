"""retake-edge bench sampling: which brief events sampled frames show."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from retake_edge.cli.benchmarks.shared import Json, Out, Seed, finish


def sampling(
    seed: Seed = 0,
    videos: Annotated[int, typer.Option(help="Videos of each kind.")] = 1,
    seconds: Annotated[float, typer.Option(help="Length of a video.")] = 7200,
    events: Annotated[int, typer.Option(help="Events in each video.")] = 48,
    event_s: Annotated[float, typer.Option("--event", help="How long an event is shown.")] = 1,
    max_frames: Annotated[str, typer.Option(help="Limits on the frames looked at.")] = "512,2048",
    kinds: Annotated[str, typer.Option(help="Backgrounds.")] = "still,moving,cuts",
    encodings: Annotated[
        str, typer.Option(help="Encoders of the files.")
    ] = "h264 crf,h264 cbr,vp9,av1,mjpeg",
    as_json: Json = False,
    out: Out = None,
) -> None:
    """Count the brief events of long videos that sampled frames show, evenly and by change.

    No model is used: the events' times are known.
    """
    from retake_edge.bench.run_file import run_file
    from retake_edge.bench.sampling.report import sampling_results
    from retake_edge.bench.sampling.run import SamplingSettings, run_sampling
    from retake_edge.bench.variants import parse_numbers
    from retake_edge.cli.progress import shown_progress

    settings = SamplingSettings(
        seed=seed,
        n_videos=videos,
        seconds=seconds,
        n_events=events,
        event_s=event_s,
        limits=tuple(int(n) for n in parse_numbers(max_frames, "--max-frames", int)),
        kinds=tuple(kinds.split(",")),
        encodings=tuple(encodings.split(",")),
    )
    with shown_progress() as progress:
        counted = run_sampling(settings, progress)
    document = run_file("sampling", asdict(settings), {}, sampling_results(counted))
    finish(document, out, as_json)
