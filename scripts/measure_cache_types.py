"""Measure prefill over f16, q8_0 and q4_0 caches in one run, and how far their logits are from f32.

    python scripts/measure_cache_types.py --threads 1 2

A published shape with random f16 weights, random features, the types in turn, several times over.
Two layers: of the last one llama.cpp leaves out the feed-forward network but for the last row. What
is left out takes the same time over any cache, so a whole model's ratio lies between 1 and the one
told here.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from retake_edge.llama.context import Context
from retake_edge.llama.model import Model
from retake_edge.models.random_gguf import random_pair
from retake_edge.models.shapes import SHAPES
from retake_edge.version import __version__

TYPES = ("f16", "q8_0", "q4_0")
N_LAYERS = 2
SIDE = 16
"""Tokens a side of a frame."""

Floats = npt.NDArray[np.float32]


def prefill(model: Model, rows: Floats, type_kv: str, n_threads: int) -> tuple[float, Floats]:
    """Seconds that the features f32 [n, n_embd_inp] take, and the last one's logits."""
    n = len(rows)
    index = np.arange(n)
    frame, row, column = index // SIDE**2, index // SIDE % SIDE, index % SIDE
    positions = np.stack([frame, row, column, np.zeros(n, np.int64)]).astype(np.int32)
    # Flash attention would round f32 K and V to f16.
    flash = "off" if type_kv == "f32" else "on"
    types: dict[str, Any] = {"type_k": type_kv, "type_v": type_kv, "flash_attention": flash}
    with Context(model, n_ctx=n + 64, n_threads=n_threads, **types) as context:
        context.decode_tokens([1], 0)  # buffers are touched, threads started
        context.clear()
        start = time.perf_counter()
        context.decode_embeddings(rows, positions)
        context.synchronize()
        return time.perf_counter() - start, context.logits()


def measured(model: Model, rows: Floats, n_threads: int, n_repeat: int) -> list[dict[str, Any]]:
    """Time all types in turn; the first round also tells the distances from an f32 cache."""
    seconds: dict[str, list[float]] = {kind: [] for kind in TYPES}
    logits: dict[str, Floats] = {}
    for _ in range(n_repeat):
        for kind in TYPES:
            took, logits[kind] = prefill(model, rows, kind, n_threads)
            seconds[kind].append(took)
    _, exact = prefill(model, rows, "f32", n_threads)
    ratios = {kind: np.divide(seconds[kind], seconds["f16"]) for kind in TYPES}
    return [
        {
            "n_threads": n_threads,
            "type_kv": kind,
            "seconds": [round(took, 2) for took in seconds[kind]],
            "median_s": round(median(seconds[kind]), 2),
            "ratio_to_f16": round(float(np.median(ratios[kind])), 3),
            "logits_from_f32": float(f"{relative(logits[kind], exact):.2e}"),
        }
        for kind in TYPES
    ]


def relative(logits: Floats, exact: Floats) -> float:
    """The root mean square of the difference, as a share of that of the exact logits."""
    gap = logits.astype(np.float64) - exact
    return float(np.sqrt(np.mean(gap**2) / np.mean(exact.astype(np.float64) ** 2)))


def main() -> None:
    """Print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="qwen2.5-vl-3b", choices=sorted(SHAPES))
    parser.add_argument("--tokens", type=int, default=6144)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path, _ = random_pair(SHAPES[options.shape].cut(N_LAYERS), "f16", Path(folder))
        with Model(path) as model:
            rng = np.random.default_rng(0)
            rows = rng.standard_normal((options.tokens, model.n_embd_inp), dtype=np.float32)
            runs = [
                run
                for n_threads in options.threads
                for run in measured(model, rows, n_threads, options.repeat)
            ]
    facts = {
        "command": " ".join(["python", *sys.argv]),
        "version": __version__,
        "machine": platform.machine(),
        "n_cpu": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "shape": options.shape,
        "n_layer": N_LAYERS,
        "n_tokens": options.tokens,
    }
    print(json.dumps({**facts, "runs": runs}, indent=1))


if __name__ == "__main__":
    main()
