"""No numpy path of ours starts threads: all of its CPU time is the caller's."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.process

SCRIPT = """
import json, pathlib, sys, time
import numpy as np
from retake_edge.compress import coverage
from retake_edge.compress import dpselect
from retake_edge.session.store import journal
from retake_edge.compress import policies
from retake_edge.engine import chunks
from retake_edge.video import resample
from retake_edge.video import picture as video_picture
from retake_edge.vision.encoder import VisionFeatures

rng = np.random.default_rng(0)
features = rng.standard_normal((8, 256, 1024)).astype(np.float32)
values = rng.standard_normal((12, 1024, 16)).astype(np.float32)
scores = rng.random((12, 1024), dtype=np.float32)
kept = np.arange(0, 1024, 4)
picture = rng.integers(0, 256, (720, 1280, 3)).astype(np.uint8)
seeds = np.zeros((12, 1), np.int32)
frames = VisionFeatures(features, np.arange(8.0), np.arange(8.0), 16, 16)
chunk = policies.ChunkSignals(
    12, scores[0] < 0.3, scores[0], np.arange(1024) // 16, scores[0] < 0, scores, values, values
)

def write():
    with journal.JournalWriter(pathlib.Path(sys.argv[1])) as file:
        file.append(journal.CELLS, features.tobytes())
        file.append_arrays({"features": features, "values": values})
        file.sync()

def selected(policy):
    chosen = policies.select_cells(policy, chunk, 256, rng)
    policies.cell_weights(policy, chunk, chosen)

paths = {
    "dpselect": lambda: dpselect.PivotStream(True).push(features),
    "farthest": lambda: coverage.farthest_points(values, 256, seeds, values[:, :64]),
    "counts": lambda: coverage.nearest_counts(coverage.layers_joined(values)[0], kept),
    "remember": lambda: coverage.remember(values[:, :256], values, kept[None].repeat(12, 0), 256),
    **{policy: lambda policy=policy: selected(policy) for policy in policies.POLICIES},
    "resample": lambda: resample.resample(picture, 644, 364, "bicubic"),
    "HDR": lambda: video_picture.tone_mapped(picture, video_picture.PQ),
    "HLG": lambda: video_picture.tone_mapped(picture, video_picture.HLG),
    "joined and split": lambda: list(
        chunks.frame_blocks(iter([frames, frames, frames]), 6, per_patch=True, n_embd=1024)
    ),
    "saved": write,
    "storm": lambda: features[0] @ features[1].T,
}

def others_s():
    "CPU seconds of all other threads, once they rest: the kernel counts a running thread late."
    last, now = -1.0, 0.0
    while now - last > 1e-4:
        time.sleep(0.03)
        last, now = now, time.process_time() - time.thread_time()
    return now

shares = {}
for name, path in paths.items():
    path()
    others, mine = others_s(), time.thread_time()
    while time.thread_time() - mine < 0.05:
        path()
    mine = time.thread_time() - mine
    shares[name] = (others_s() - others) / mine
print(json.dumps(shares))
"""


def n_cores() -> int:
    """How many cores this process may use: BLAS starts no more threads."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@pytest.mark.skipif(n_cores() < 2, reason="one core has no second thread")
def test_one_thread_does_all_the_work(tmp_path) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "journal")]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    shares = json.loads(run.stdout)
    assert shares.pop("storm") > 0.05, "BLAS has threads here, so this test can fail"
    assert max(shares.values()) < 0.05, shares
