"""retake-edge bench text-needle: which policy keeps facts in long text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from retake_edge import config
from retake_edge.cli.benchmarks.shared import (
    GpuLayers,
    Json,
    KeepRatios,
    Out,
    Policies,
    Queries,
    Seed,
    Threads,
    file_facts,
    finish,
    plain,
)

TEXT_POLICIES = "none,distinct,spread,pivotkv,coverage,hybrid,random,uniform"


def text_needle(
    model: Annotated[Path, typer.Option("-m", "--model", help="GGUF of a chat model.")],
    seed: Seed = 0,
    documents: Annotated[int, typer.Option(help="Documents made.")] = 16,
    sentences: Annotated[int, typer.Option(help="Filler sentences in each.")] = 64,
    facts: Annotated[int, typer.Option(help="Facts hidden in each, and asked for.")] = 2,
    answers: Annotated[str, typer.Option(help="What a fact tells: a code or a word.")] = "code",
    keep_ratio: KeepRatios = "0.5,0.35,0.25,0.125",
    policies: Policies = TEXT_POLICIES,
    chunk_tokens: Annotated[int, typer.Option(help="Tokens between two compressions.")] = 256,
    n_queries: Queries = 0,
    threads: Threads = None,
    n_gpu_layers: GpuLayers = -1,
    as_json: Json = False,
    out: Out = None,
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
        "text-needle", plain(settings, runtime), file_facts(model=model), text_results(result)
    )
    finish(document, out, as_json)
