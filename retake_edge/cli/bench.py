"""retake-edge bench: which policy keeps the answers, and what compression costs."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from retake_edge import config
from retake_edge.cli.options import option
from retake_edge.errors import ConfigError

app = typer.Typer(no_args_is_help=True, help="Measure quality and speed on this machine.")


class BenchCommand(TyperCommand):
    """A benchmark; also takes the option names of the version before."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Give options their new names."""
        return super().parse_args(ctx, [_new_name(word) for word in args])


def _new_name(word: str) -> str:
    flag, equals, value = word.partition("=")
    return "--keep-ratio" + equals + value if flag == "--keep" else word


QUALITY_POLICIES = (
    "none,spread,pivotkv,pivotkv-reference,pivotkv-nopivot,coverage,hybrid,random,"
    "random-stratified,uniform,recent,uniform-frames,dpselect-frames"
)
TEXT_POLICIES = "none,distinct,spread,pivotkv,coverage,hybrid,random,uniform"

_Json = Annotated[bool, typer.Option("--json", help="Print the run file instead of tables.")]
_Out = Annotated[Path | None, typer.Option(help="Write the run file here.")]
_Seed = Annotated[int, typer.Option("-s", "--seed", help="Everything follows from it.")]
_KeepRatios = Annotated[str, typer.Option(help="Shares of the tokens kept.")]
_Policies = Annotated[str, typer.Option(help="What is measured, by name.")]
_Threads = Annotated[int | None, option("runtime.n_threads")]
_Layers = Annotated[int, option("runtime.n_gpu_layers")]
_Queries = Annotated[int, option("compression.n_queries")]
_ChunkFrames = Annotated[int, option("compression.prefill_chunk_frames")]


@app.command(cls=BenchCommand)
def quality(
    model: Annotated[
        str, typer.Option("-m", "--model", help="A model that understands the scenes.")
    ] = "tiny",
    mmproj: Annotated[Path | None, typer.Option("-mm", "--mmproj", help="Its projector.")] = None,
    seed: _Seed = 0,
    frames: Annotated[
        str, typer.Option(help="Lengths of the videos in frames.")
    ] = "64,128,256,512",
    keep_ratio: _KeepRatios = "1,0.5,0.25,0.125",
    policies: _Policies = QUALITY_POLICIES,
    questions: Annotated[int, typer.Option(help="Questions for each length.")] = 168,
    footage: Annotated[
        str, typer.Option(help="Kinds of footage, as slides,camera, in place of ordinary scenes.")
    ] = "",
    absent: Annotated[
        bool, typer.Option(help="Also ask about what is not there: how sure are answers?")
    ] = False,
    prefill_chunk_frames: _ChunkFrames = 32,
    n_queries: _Queries = 128,
    threads: _Threads = None,
    n_gpu_layers: _Layers = -1,
    as_json: _Json = False,
    out: _Out = None,
) -> None:
    """Ask about long synthetic videos under every policy and keep ratio.

    All policies see the same frames and questions. Tables give right answers in % with the 95 %
    interval; --policies takes the names of `retake-edge ask --policy`, and pivotkv-reference,
    pivotkv-nopivot, uniform-frames, dpselect-frames, dpselect-spread. With -guided behind spread,
    pivotkv or hybrid the video is read for each question; with -novelty behind spread or coverage
    chunks with more that is new get more cells.
    """
    from retake_edge.bench.quality.report import quality_results
    from retake_edge.bench.quality.run import QualitySettings, run_quality
    from retake_edge.bench.run_file import run_file
    from retake_edge.bench.variants import parse_numbers, parse_variants
    from retake_edge.cli.progress import shown_progress
    from retake_edge.llama.model import Model
    from retake_edge.models.families import manifest_of
    from retake_edge.models.resolve import resolve_model
    from retake_edge.vision.encoder import VisionEncoder

    settings = QualitySettings(
        seed=seed,
        n_frames=tuple(int(n) for n in parse_numbers(frames, "--frames", int)),
        keep_ratios=tuple(parse_numbers(keep_ratio, "--keep-ratio", float)),
        n_questions=questions,
        with_absent=absent,
        chunk_frames=prefill_chunk_frames,
        n_queries=n_queries,
        footage=tuple(footage.split(",")) if footage else (),
    )
    variants = parse_variants(policies)
    runtime = config.RuntimeConfig(n_gpu_layers=n_gpu_layers, n_threads=threads)
    source = resolve_model(model, mmproj)
    manifest = manifest_of(source)
    rule = manifest.frames
    with (
        Model(source.model, n_gpu_layers=n_gpu_layers) as loaded,
        VisionEncoder(
            loaded,
            source.mmproj,
            n_threads=threads,
            overview=rule.overview,
            pooling=rule.pooling,
        ) as encoder,
        shown_progress() as progress,
    ):
        result = run_quality(loaded, encoder, manifest, variants, settings, runtime, progress)
    files = {"model": source.model, "mmproj": source.mmproj}
    document = run_file(
        "quality", _plain(settings, runtime), _hashes(files), quality_results(result)
    )
    _finish(document, out, as_json)


@app.command("text-needle", cls=BenchCommand)
def text_needle(
    model: Annotated[Path, typer.Option("-m", "--model", help="GGUF of a chat model.")],
    seed: _Seed = 0,
    documents: Annotated[int, typer.Option(help="Documents made.")] = 16,
    sentences: Annotated[int, typer.Option(help="Filler sentences in each.")] = 64,
    facts: Annotated[int, typer.Option(help="Facts hidden in each, and asked for.")] = 2,
    answers: Annotated[str, typer.Option(help="What a fact tells: a code or a word.")] = "code",
    keep_ratio: _KeepRatios = "0.5,0.35,0.25,0.125",
    policies: _Policies = TEXT_POLICIES,
    chunk_tokens: Annotated[int, typer.Option(help="Tokens between two compressions.")] = 256,
    n_queries: _Queries = 0,
    threads: _Threads = None,
    n_gpu_layers: _Layers = -1,
    as_json: _Json = False,
    out: _Out = None,
) -> None:
    """Hide facts in long text, compress it under every policy, and ask for them afterwards.

    No vision and no keyframes here: `pivotkv` is attention alone, `coverage` has no seeds.
    """
    from retake_edge.bench.run_file import run_file
    from retake_edge.bench.text.needle import TextNeedleSettings, run_text_needle
    from retake_edge.bench.text.report import text_results
    from retake_edge.bench.variants import parse_numbers, parse_variants
    from retake_edge.cli.progress import shown_progress
    from retake_edge.llama.model import Model

    settings = TextNeedleSettings(
        seed=seed,
        n_documents=documents,
        n_sentences=sentences,
        n_facts=facts,
        answers=answers,
        chunk_tokens=chunk_tokens,
        n_queries=n_queries,
        keep_ratios=tuple(parse_numbers(keep_ratio, "--keep-ratio", float)),
    )
    variants = parse_variants(policies)
    runtime = config.RuntimeConfig(n_gpu_layers=n_gpu_layers, n_threads=threads)
    with Model(model, n_gpu_layers=n_gpu_layers) as loaded, shown_progress() as progress:
        result = run_text_needle(
            loaded,
            variants,
            settings,
            runtime,
            lambda done, total: progress("documents", done, total),
        )
    document = run_file(
        "text-needle", _plain(settings, runtime), _hashes({"model": model}), text_results(result)
    )
    _finish(document, out, as_json)


@app.command(cls=BenchCommand)
def speed(
    model: Annotated[
        str, typer.Option("-m", "--model", help="A model's name, or the path of its GGUF.")
    ] = "tiny",
    mmproj: Annotated[Path | None, typer.Option("-mm", "--mmproj", help="Its projector.")] = None,
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
    cache_dir: Annotated[
        Path | None, typer.Option(help="Where shapes are kept.  [default: the user's cache]")
    ] = None,
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
    prefill_chunk_frames: _ChunkFrames = 32,
    n_queries: _Queries = 128,
    long_side: Annotated[int | None, option("sampling.long_side_px")] = None,
    encode_frames: Annotated[
        int | None, typer.Option(help="Frames really encoded; further ones repeat their features.")
    ] = None,
    n_decode: Annotated[int, typer.Option("-n", "--predict", help="Tokens generated.")] = 32,
    repeats: Annotated[int, typer.Option(help="Runs of each setting; the fastest counts.")] = 1,
    cache_types: Annotated[str, typer.Option(help="K/V types of our runs.")] = "f16,q8_0",
    n_batch: Annotated[int, option("runtime.n_batch")] = config.RuntimeConfig().n_batch,
    n_ubatch: Annotated[int, option("runtime.n_ubatch")] = config.RuntimeConfig().n_ubatch,
    threads: _Threads = None,
    n_gpu_layers: _Layers = -1,
    as_json: _Json = False,
    out: _Out = None,
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
    _finish(document | results, out, as_json)


@app.command(cls=BenchCommand)
def look(
    model: Annotated[
        str, typer.Option("-m", "--model", help="A model that understands the scenes.")
    ] = "tiny",
    mmproj: Annotated[Path | None, typer.Option("-mm", "--mmproj", help="Its projector.")] = None,
    seed: _Seed = 0,
    videos: Annotated[int, typer.Option(help="Videos for each length of an event.")] = 8,
    seconds: Annotated[float, typer.Option(help="Length of a video.")] = 128,
    events: Annotated[str, typer.Option(help="How long an event is shown, in s.")] = "0.25,0.5,1",
    fps: Annotated[float, typer.Option(help="Frames a second of the first reading.")] = 2,
    keep_ratio: _KeepRatios = "1,0.0625",
    look_again: Annotated[int, option("look.frames", "Frames of a second look.")] = 24,
    questions: Annotated[int, typer.Option(help="Questions about each video.")] = 24,
    absent: Annotated[int, typer.Option(help="Questions about what it does not show.")] = 8,
    threads: _Threads = None,
    n_gpu_layers: _Layers = -1,
    as_json: _Json = False,
    out: _Out = None,
) -> None:
    """Ask about brief events after a coarse reading, and again after a second look.

    Against full detail: four times the frames a second, nothing dropped.
    """
    from retake_edge.bench.look.report import look_results
    from retake_edge.bench.look.run import LookSettings, run_look
    from retake_edge.bench.run_file import run_file
    from retake_edge.bench.variants import parse_numbers
    from retake_edge.cli.progress import shown_progress
    from retake_edge.models.resolve import resolve_model

    settings = LookSettings(
        seed=seed,
        n_videos=videos,
        seconds=seconds,
        cards_s=tuple(parse_numbers(events, "--events", float)),
        fps=fps,
        keep_ratios=tuple(parse_numbers(keep_ratio, "--keep-ratio", float)),
        n_frames=look_again,
        n_questions=questions,
        n_absent=absent,
    )
    runtime = config.RuntimeConfig(n_gpu_layers=n_gpu_layers, n_threads=threads)
    source = resolve_model(model, mmproj)
    with shown_progress() as progress:
        tried = run_look(source, settings, runtime, progress)
    files = {"model": source.model, "mmproj": source.mmproj}
    document = run_file("look", _plain(settings, runtime), _hashes(files), look_results(tried))
    _finish(document, out, as_json)


@app.command(cls=BenchCommand)
def still(
    model: Annotated[
        str, typer.Option("-m", "--model", help="A model that understands the scenes.")
    ] = "tiny",
    mmproj: Annotated[Path | None, typer.Option("-mm", "--mmproj", help="Its projector.")] = None,
    shape: Annotated[
        str | None, typer.Option(help="Random weights instead, which give times only.")
    ] = None,
    layers: Annotated[int | None, typer.Option(help="Layers of the shape.  [default: all]")] = None,
    quant: Annotated[str, typer.Option(help="Weights of the shape.")] = "q8_0",
    cache_dir: Annotated[
        Path | None, typer.Option(help="Where shapes are kept.  [default: the user's cache]")
    ] = None,
    seed: _Seed = 0,
    footage: Annotated[str, typer.Option(help="Kinds of footage.")] = (
        "slides,screen,camera,speaker,flicker,fades,moving"
    ),
    seconds: Annotated[float, typer.Option(help="Length of a video.")] = 256,
    videos: Annotated[int, typer.Option(help="Videos of each kind.")] = 4,
    questions: Annotated[int, typer.Option(help="Questions about each video.")] = 16,
    keep_ratio: Annotated[float | None, option("compression.keep_ratio")] = None,
    levels: Annotated[float, option("sampling.still", "Grey levels that make a change.")] = 12,
    threads: _Threads = None,
    n_gpu_layers: _Layers = -1,
    as_json: _Json = False,
    out: _Out = None,
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
    )
    runtime = config.RuntimeConfig(n_gpu_layers=n_gpu_layers, n_threads=threads)
    generation = config.GenerationConfig(max_tokens=12, temperature=0)
    whole = config.RetakeConfig(runtime=runtime, generation=generation)
    if shape is None:
        source = resolve_model(model, mmproj)
        described = _hashes({"model": source.model, "mmproj": source.mmproj})
    else:
        shapes = cache_dir or user_cache_path("retake-edge") / "shapes"
        source = ModelFiles(*random_pair(shape_of(shape, layers), quant, shapes))
        described = {"name": f"{shape}, random {quant} weights", "layers": layers}
    with TemporaryDirectory() as folder, shown_progress() as progress:
        found, asked = run_still(source, settings, whole, Path(folder), progress)
    results = {"rows": summary(found), "readings": [asdict(r) for r in found], "asked": asked}
    _finish(run_file("still", _plain(settings, runtime), described, results), out, as_json)


@app.command(cls=BenchCommand)
def sampling(
    seed: _Seed = 0,
    videos: Annotated[int, typer.Option(help="Videos of each kind.")] = 1,
    seconds: Annotated[float, typer.Option(help="Length of a video.")] = 7200,
    events: Annotated[int, typer.Option(help="Events in each video.")] = 48,
    event_s: Annotated[float, typer.Option("--event", help="How long an event is shown.")] = 1,
    max_frames: Annotated[str, typer.Option(help="Limits on the frames looked at.")] = "512,2048",
    kinds: Annotated[str, typer.Option(help="Backgrounds.")] = "still,moving,cuts",
    encodings: Annotated[
        str, typer.Option(help="Encoders of the files.")
    ] = "h264 crf,h264 cbr,vp9,av1,mjpeg",
    as_json: _Json = False,
    out: _Out = None,
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
    _finish(document, out, as_json)


def _plain(settings: Any, runtime: config.RuntimeConfig) -> dict[str, Any]:
    return asdict(settings) | {"runtime": asdict(runtime)}


def _hashes(files: dict[str, Path]) -> dict[str, Any]:
    from retake_edge.files import file_sha256

    return {
        role: {"file": path.name, "bytes": path.stat().st_size, "sha256": file_sha256(path)}
        for role, path in files.items()
    }


def _finish(document: dict[str, Any], out: Path | None, as_json: bool) -> None:
    """Write the run file, and print it or its tables."""
    from retake_edge.bench.run_file import write_run_file
    from retake_edge.bench.tables import run_tables

    if out is not None:
        write_run_file(document, out)
    typer.echo(json.dumps(document, indent=1) if as_json else run_tables(document))
