"""No numpy path of a chunk starts threads: all of its CPU time is the caller's."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

SCRIPT = """
import json, time
import numpy as np
from retake_edge import coverage, dpselect, pivotkv, resample

rng = np.random.default_rng(0)
features = rng.standard_normal((8, 256, 1024)).astype(np.float32)
values = rng.standard_normal((12, 1024, 16)).astype(np.float32)
kept = np.arange(0, 1024, 4)
picture = rng.integers(0, 256, (720, 1280, 3)).astype(np.uint8)
seeds = np.zeros((12, 1), np.int32)
paths = {
    "dpselect": lambda: dpselect.PivotStream(True).push(features),
    "farthest": lambda: coverage.farthest_points(values, 256, seeds, values[:, :64]),
    "counts": lambda: coverage.nearest_counts(coverage.layers_joined(values)[0], kept),
    "remember": lambda: coverage.remember(values[:, :256], values, kept[None].repeat(12, 0), 256),
    "resample": lambda: resample.resample(picture, 644, 364, "bicubic"),
    "joined": lambda: np.concatenate([features, features]),
    "storm": lambda: features[0] @ features[1].T,
}
shares = {}
for name, path in paths.items():
    path()
    mine, all_threads = time.thread_time(), time.process_time()
    for _ in range(3):
        path()
    mine, all_threads = time.thread_time() - mine, time.process_time() - all_threads
    shares[name] = mine / all_threads
print(json.dumps(shares))
"""


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core has no second thread")
def test_one_thread_does_all_the_work() -> None:
    environment = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    command = [sys.executable, "-c", SCRIPT]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    shares = json.loads(run.stdout)
    assert shares.pop("storm") < 0.95, "BLAS has threads here, so this test can fail"
    assert min(shares.values()) > 0.95, shares
