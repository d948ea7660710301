"""retake-edge bench still: what reading still footage once saves."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from retake_edge import config
from retake_edge.cli.benchmarks.shared import (
    GpuLayers,
    Json,
    Out,
    Projector,
    SceneModel,
    Seed,
    ShapesDir,
    Threads,
    finish,
    pair_facts,
    plain,
)
from retake_edge.cli.options import option


def still(
    model: SceneModel = "tiny",
    mmproj: Projector = None,
    shape: Annotated[
        str | None, typer.Option(help="Random weights instead, which give times only.")
    ] = None,
    layers: Annotated[int | None, typer.Option(help="Layers of the shape.  [default: all]")] = None,
    quant: Annotated[str, typer.Option(help="Weights of the shape.")] = "q8_0",
    cache_dir: ShapesDir = None,
    seed: Seed = 0,
    footage: Annotated[str, typer.Option(help="Kinds of footage.")] = (
        "slides,screen,camera,speaker,flicker,fades,moving"
    ),
    seconds: Annotated[float, typer.Option(help="Length of a video.")] = 256,
    videos: Annotated[int, typer.Option(help="Videos of each kind.")] = 4,
    questions: Annotated[int, typer.Option(help="Questions about each video.")] = 16,
    keep_ratio: Annotated[float | None, option("compression.keep_ratio")] = None,
    levels: Annotated[float, option("sampling.still", "Grey levels that make a change.")] = 12,
    long_side: Annotated[int | None, option("sampling.long_side_px")] = None,
    threads: Threads = None,
    n_gpu_layers: GpuLayers = -1,
    as_json: Json = False,
    out: Out = None,
) -> None:
    """Read the same videos whole, and what stands still once; compare time and answers."""
    from tempfile import TemporaryDirectory

    from platformdirs import user_cache_path

    from retake_edge.bench.run_file import run_file
    from retake_edge.bench.still import StillSettings, run_still, summary
    from retake_edge.cli.progress import shown_progress
    from retake_edge.models.manifest import ModelFiles
    from retake_edge.models.random_gguf import random_pair
    from retake_edge.models.resolve import resolve_model
    from retake_edge.models.shapes import shape_of

    settings = StillSettings(
        seed=seed,
        kinds=tuple(footage.split(",")),
        seconds=seconds,
        n_videos=videos,
        n_questions=questions,
        keep_ratio=keep_ratio,
        still=levels,
        long_side_px=long_side,
    )
    runtime = config.RuntimeConfig(n_gpu_layers=n_gpu_layers, n_threads=threads)
    generation = config.GenerationConfig(max_tokens=12, temperature=0)
    whole = config.RetakeConfig(runtime=runtime, generation=generation)
    if shape is None:
        source = resolve_model(model, mmproj)
        described = pair_facts(source)
    else:
        shapes = cache_dir or user_cache_path("retake-edge") / "shapes"
        source = ModelFiles(*random_pair(shape_of(shape, layers), quant, shapes))
        described = {"name": f"{shape}, random {quant} weights", "layers": layers}
    with TemporaryDirectory() as folder, shown_progress() as progress:
        found, asked = run_still(source, settings, whole, Path(folder), progress)
    results = {"rows": summary(found), "readings": [asdict(r) for r in found], "asked": asked}
    finish(run_file("still", plain(settings, runtime), described, results), out, as_json)
