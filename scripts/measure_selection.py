"""Measure one chunk's selection and weights: CPU seconds of the whole process, all threads.

    python scripts/measure_selection.py --policies spread hybrid coverage

Random clustered values, 4,096 tokens, a quarter kept, 256 remembered cells. CPU seconds above the
elapsed ones would mean threads that no one asked for; OPENBLAS_NUM_THREADS is best left unset.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time

import numpy as np

from retake_edge.compress import coverage, policies
from retake_edge.version import __version__

N, N_KEEP, N_MEMORY, DIM, N_CLUSTERS = 4096, 1024, 256, 16, 40


def chunk(n_layer: int, seed: int) -> policies.ChunkSignals:
    """A chunk of 64 frames of 64 tokens, with what earlier chunks kept."""
    rng = np.random.default_rng(seed)
    clusters = rng.standard_normal((N_CLUSTERS, DIM)).astype(np.float32)
    noise = rng.standard_normal((n_layer, N + N_MEMORY, DIM)).astype(np.float32)
    values = clusters[rng.integers(0, N_CLUSTERS, N + N_MEMORY)] + np.float32(0.3) * noise
    return policies.ChunkSignals(
        n_layer=n_layer,
        pivots=rng.random(N) < 0.3,
        changes=rng.random(N, dtype=np.float32),
        frame_index=np.repeat(np.arange(64), 64).astype(np.int32),
        forced=np.zeros(N, np.bool_),
        scores=rng.gamma(1, size=(n_layer, N)).astype(np.float32),
        values=np.ascontiguousarray(values[:, :N]),
        memory=np.ascontiguousarray(values[:, N:]),
    )


def measured(policy: str, n_layer: int, seed: int) -> dict[str, float | int | str]:
    """Select, remember and weigh once."""
    evidence = chunk(n_layer, seed)
    assert evidence.values is not None
    start, cpu = time.perf_counter(), time.process_time()
    kept = policies.select_cells(policy, evidence, N_KEEP, np.random.default_rng(0))
    selected = time.process_time()
    coverage.remember(evidence.memory, evidence.values, kept, N_MEMORY)
    policies.cell_weights(policy, evidence, kept)
    end, cpu_end = time.perf_counter(), time.process_time()
    return {
        "policy": policy,
        "n_layer": n_layer,
        "select_cpu_s": round(selected - cpu, 3),
        "remember_and_weights_cpu_s": round(cpu_end - selected, 3),
        "cpu_s": round(cpu_end - cpu, 3),
        "elapsed_s": round(end - start, 3),
    }


def main() -> None:
    """Print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, nargs="+", default=[28, 36])
    parser.add_argument("--policies", nargs="+", default=["spread"])
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    chunk_evidence = chunk(1, 0)
    policies.select_cells(
        "spread", chunk_evidence, N_KEEP, np.random.default_rng(0)
    )  # loads it all
    runs = [
        measured(policy, n_layer, seed)
        for policy in options.policies
        for n_layer in options.layers
        for seed in range(options.repeat)
    ]
    facts = {
        "command": " ".join(["python", *sys.argv]),
        "version": __version__,
        "machine": platform.machine(),
        "n_cpu": os.cpu_count(),
        "OPENBLAS_NUM_THREADS": os.environ.get("OPENBLAS_NUM_THREADS"),
        "n_tokens": N,
        "n_keep": N_KEEP,
    }
    print(json.dumps({**facts, "runs": runs}, indent=1))


if __name__ == "__main__":
    main()
