"""retake-edge bench look: what a second look gets back."""

from __future__ import annotations

from typing import Annotated

import typer

from retake_edge import config
from retake_edge.cli.benchmarks.shared import (
    GpuLayers,
    Json,
    KeepRatios,
    Out,
    Projector,
    SceneModel,
    Seed,
    Threads,
    finish,
    pair_facts,
    plain,
)
from retake_edge.cli.options import option


def look(
    model: SceneModel = "tiny",
    mmproj: Projector = None,
    seed: Seed = 0,
    scenes: Annotated[
        str, typer.Option(help="brief, print, repeats or ordinary, several with commas.")
    ] = "brief",
    videos: Annotated[int, typer.Option(help="Videos of each kind and length of an event.")] = 8,
    seconds: Annotated[float, typer.Option(help="Length of a video.")] = 128,
    events: Annotated[str, typer.Option(help="How long an event is shown, in s.")] = "0.25,0.5,1",
    fps: Annotated[float, typer.Option(help="Frames a second of the first reading.")] = 2,
    keep_ratio: KeepRatios = "1,0.0625",
    look_again: Annotated[int, option("look.frames", "Frames of a second look.")] = 24,
    questions: Annotated[
        int, typer.Option(help="Questions about each video (repeats: one a colour).")
    ] = 24,
    absent: Annotated[int, typer.Option(help="Questions about what it does not show.")] = 8,
    without_file: Annotated[
        bool, typer.Option("--without-file", help="Look at the features that were kept.")
    ] = False,
    threads: Threads = None,
    n_gpu_layers: GpuLayers = -1,
    as_json: Json = False,
    out: Out = None,
) -> None:
    """Ask about what a coarse reading may miss, and again after a second look.

    Against full detail: four times the frames a second, nothing dropped.
    """
    from retake_edge.bench.look.report import look_results
    from retake_edge.bench.look.run import LookSettings, run_look
    from retake_edge.bench.run_file import run_file
    from retake_edge.bench.variants import parse_numbers
    from retake_edge.cli.progress import shown_progress
    from retake_edge.models.resolve import resolve_model

    settings = LookSettings(
        tuple(name.strip() for name in scenes.split(",")),
        seed=seed,
        n_videos=videos,
        seconds=seconds,
        cards_s=tuple(parse_numbers(events, "--events", float)),
        fps=fps,
        keep_ratios=tuple(parse_numbers(keep_ratio, "--keep-ratio", float)),
        n_frames=look_again,
        n_questions=questions,
        n_absent=absent,
        without_file=without_file,
    )
    runtime = config.RuntimeConfig(n_gpu_layers=n_gpu_layers, n_threads=threads)
    source = resolve_model(model, mmproj)
    with shown_progress() as progress:
        tried = run_look(source, settings, runtime, progress)
    document = run_file("look", plain(settings, runtime), pair_facts(source), look_results(tried))
    finish(document, out, as_json)
