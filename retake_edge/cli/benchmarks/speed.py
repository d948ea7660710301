"""retake-edge bench speed: what compression costs, and what it saves."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from retake_edge import config
from retake_edge.cli.benchmarks.shared import (
    ChunkFrames,
    GpuLayers,
    Json,
    Out,
    Projector,
    Queries,
    ShapesDir,
    Threads,
    finish,
)
from retake_edge.cli.options import option
from retake_edge.errors import ConfigError


def speed(
    model: Annotated[
        str, typer.Option("-m", "--model", help="A model's name, or the path of its GGUF.")
    ] = "tiny",
    mmproj: Projector = None,
    shape: Annotated[
        str | None,
        typer.Option(help="Random weights instead: qwen2.5-vl-3b, qwen2.5-vl-7b or qwen3-vl-4b."),
    ] = None,
    layers: Annotated[
        str | None,
        typer.Option(
            help="Two cuts of the shape, as 2,4: their difference is a layer's cost, and the "
            "whole model is extrapolated from it."
        ),
    ] = None,
    quant: Annotated[str, typer.Option(help="Weights of the shape: q8_0, q4_0 or f16.")] = "q8_0",
    cache_dir: ShapesDir = None,
    frames: Annotated[str, typer.Option(help="Lengths of the video in frames.")] = "128",
    keep_ratio: Annotated[
        float, option("compression.keep_ratio", "Share of vision tokens kept by ours.")
    ] = 0.25,
    kv_budget: Annotated[
        int | None,
        option("compression.kv_budget", "Most cells kept, at every length, in place of a ratio."),
    ] = None,
    full: Annotated[bool, typer.Option(help="Run the full cache, too.")] = True,
    policy: Annotated[str, option("compression.policy")] = config.CompressionConfig().policy,
    prefill_chunk_frames: ChunkFrames = 32,
    n_queries: Queries = 128,
    long_side: Annotated[int | None, option("sampling.long_side_px")] = None,
    encode_frames: Annotated[
        int | None, typer.Option(help="Frames really encoded; further ones repeat their features.")
    ] = None,
    n_decode: Annotated[int, typer.Option("-n", "--predict", help="Tokens generated.")] = 32,
    repeats: Annotated[int, typer.Option(help="Runs of each setting; the fastest counts.")] = 1,
    cache_types: Annotated[str, typer.Option(help="K/V types of our runs.")] = "f16,q8_0",
    n_batch: Annotated[int, option("runtime.n_batch")] = config.RuntimeConfig().n_batch,
    n_ubatch: Annotated[int, option("runtime.n_ubatch")] = config.RuntimeConfig().n_ubatch,
    threads: Threads = None,
    n_gpu_layers: GpuLayers = -1,
    as_json: Json = False,
    out: Out = None,
    minutes: Annotated[
        float | None, typer.Option(help="Begin no further run after this; --continue goes on.")
    ] = None,
    goes_on: Annotated[
        bool, typer.Option("--continue", help="Keep the runs in --out, and add what is missing.")
    ] = False,
) -> None:
    """Time the same frames with llama.cpp's full cache and with ours.

    Every setting runs in a process of its own, so that peak memory is its own. --out is written
    after each of them.
    """
    from retake_edge.bench.run_file import earlier_run, run_file, write_run_file
    from retake_edge.bench.speed.compare import SpeedSettings, run_speed
    from retake_edge.bench.speed.models import speed_models
    from retake_edge.bench.variants import parse_numbers
    from retake_edge.cli.progress import shown_progress

    settings = SpeedSettings(
        n_frames=tuple(int(n) for n in parse_numbers(frames, "--frames", int)),
        keep_ratio=keep_ratio,
        kv_budget=kv_budget,
        with_full=full,
        policy=policy,
        chunk_frames=prefill_chunk_frames,
        n_queries=n_queries,
        long_side_px=long_side,
        n_decode=n_decode,
        encode_frames=encode_frames,
        repeats=repeats,
        runtime=config.RuntimeConfig(
            n_gpu_layers=n_gpu_layers, n_threads=threads, n_batch=n_batch, n_ubatch=n_ubatch
        ),
        kv_types=tuple(cache_types.split(",")),
    )
    if goes_on and out is None:
        raise ConfigError("--continue goes on with a run file; name it with --out.")
    cuts, described = speed_models(model, mmproj, shape, layers, quant, cache_dir)
    document = run_file("speed", asdict(settings), described, {})
    earlier = earlier_run(out, document) if goes_on and out is not None else None

    def save(results: dict[str, Any]) -> None:
        if out is not None:
            write_run_file(document | results, out)

    with shown_progress() as progress:
        results = run_speed(
            cuts,
            described["layers"],
            settings,
            earlier=earlier,
            minutes=minutes,
            save=save,
            progress=progress,
        )
    finish(document | results, out, as_json)
