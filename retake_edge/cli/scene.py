"""retake-edge scene: a synthetic video whose content is known."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retake_edge.errors import ConfigError

if TYPE_CHECKING:
    from retake_edge.bench.scenes.scene import Scene


def scene(
    output: Annotated[
        Path, typer.Argument(help="The mp4 to write, or the folder of --as.", show_default=False)
    ],
    seed: Annotated[int, typer.Option("-s", "--seed", help="Same seed, same video.")] = 0,
    seconds: Annotated[float, typer.Option(help="Length of the video.")] = 64.0,
    fps: Annotated[float, typer.Option(help="Frames a second of the file.")] = 8.0,
    size: Annotated[int, typer.Option(help="Side of the square picture in px.")] = 224,
    n_questions: Annotated[
        int, typer.Option("--questions", help="Questions to print with their answers.")
    ] = 8,
    as_set: Annotated[
        str | None,
        typer.Option(
            "--as",
            help="Write videos as a set: videomme, mlvu, lvbench, longvideobench.",
            metavar="SET",
        ),
    ] = None,
    n_videos: Annotated[int, typer.Option("--videos", help="Videos of the set.")] = 4,
    footage: Annotated[
        str,
        typer.Option(
            help="slides, screen, camera, speaker, flicker, fades, or moving.", metavar="KIND"
        ),
    ] = "moving",
) -> None:
    """Render a synthetic video, and print questions about it with their answers as JSON."""
    from retake_edge.bench.scenes.questions import HELD_TEMPLATES, KINDS, make_questions
    from retake_edge.bench.scenes.render import write_video
    from retake_edge.bench.scenes.scene import make_scene

    if as_set is not None:
        _write_set(as_set, output, seed, seconds, n_videos, fps, size)
        return
    if output.suffix.lower() != ".mp4":
        raise ConfigError(f"The output is {output}, but its name must end in .mp4.")
    if not (seconds > 0 and fps > 0 and size >= 16 and n_questions >= 0 and seed >= 0):
        raise ConfigError(
            f"--seconds {seconds:g}, --fps {fps:g}, --size {size}, --questions {n_questions}, "
            f"--seed {seed}: the first two must be above 0, the size at least 16, the others 0 "
            "or more."
        )
    if footage == "moving":
        made, kinds = make_scene(seed, seconds), KINDS
    else:
        made, kinds = _footage(footage, seed, seconds), (*HELD_TEMPLATES, *KINDS)
    write_video(made, output, fps=fps, size_px=size)
    questions = make_questions(made, n_questions, seed, kinds)
    typer.echo(json.dumps([asdict(question) for question in questions], indent=2))


def _footage(kind: str, seed: int, seconds: float) -> Scene:
    from retake_edge.bench.scenes.footage import make_footage

    try:
        return make_footage(kind, seed, seconds)
    except ValueError as error:
        raise ConfigError(f"This cannot be drawn: {error}.") from None


def _write_set(
    name: str, folder: Path, seed: int, seconds: float, n_videos: int, fps: float, size: int
) -> None:
    from retake_edge.evaluate.samples import make_samples, write_samples

    if not (8 <= seconds <= 3600 and 1 <= n_videos <= 999 and fps > 0 and size >= 16 and seed >= 0):
        raise ConfigError(
            f"--seconds {seconds:g}, --videos {n_videos}, --fps {fps:g}, --size {size}, --seed "
            f"{seed}: they must be 8 to 3600, 1 to 999, above 0, at least 16, and 0 or more."
        )
    typer.echo(write_samples(name, folder, make_samples(seed, n_videos, seconds), fps, size))
