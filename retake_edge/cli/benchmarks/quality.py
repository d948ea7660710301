"""retake-edge bench quality: which policy keeps the answers."""

from __future__ import annotations

from typing import Annotated

import typer

from retake_edge import config
from retake_edge.cli.benchmarks.shared import (
    ChunkFrames,
    GpuLayers,
    Json,
    KeepRatios,
    Out,
    Policies,
    Projector,
    Queries,
    SceneModel,
    Seed,
    Threads,
    finish,
    pair_facts,
    plain,
)

QUALITY_POLICIES = (
    "none,spread,pivotkv,pivotkv-reference,pivotkv-nopivot,coverage,hybrid,random,"
    "random-stratified,uniform,recent,uniform-frames,dpselect-frames"
)


def quality(
    model: SceneModel = "tiny",
    mmproj: Projector = None,
    seed: Seed = 0,
    frames: Annotated[
        str, typer.Option(help="Lengths of the videos in frames.")
    ] = "64,128,256,512",
    keep_ratio: KeepRatios = "1,0.5,0.25,0.125",
    policies: Policies = QUALITY_POLICIES,
    questions: Annotated[int, typer.Option(help="Questions for each length.")] = 168,
    footage: Annotated[
        str, typer.Option(help="Kinds of footage, as slides,camera, in place of ordinary scenes.")
    ] = "",
    absent: Annotated[
        bool, typer.Option(help="Also ask about what is not there: how sure are answers?")
    ] = False,
    prefill_chunk_frames: ChunkFrames = 32,
    n_queries: Queries = 128,
    threads: Threads = None,
    n_gpu_layers: GpuLayers = -1,
    as_json: Json = False,
    out: Out = None,
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
    document = run_file(
        "quality", plain(settings, runtime), pair_facts(source), quality_results(result)
    )
    finish(document, out, as_json)
