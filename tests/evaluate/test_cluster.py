"""A run over a Ray cluster of three nodes on this machine, one of which is killed.

Run with -m ray.
"""

import os
import signal
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

from retake_edge.config import CompressionConfig, RetakeConfig
from retake_edge.errors import ConfigError
from retake_edge.evaluate.jobs import Job, grouped
from retake_edge.evaluate.opening import Opener
from retake_edge.evaluate.rows import RowFile
from retake_edge.evaluate.samples import make_samples, write_samples
from retake_edge.models.resolve import resolve_model

pytestmark = [pytest.mark.ray, pytest.mark.process]
N_VIDEOS, N_QUESTIONS = 6, 4


@dataclass(frozen=True)
class Deadly(Opener):
    """An opener that ends its own process over one video."""

    deadly: str = ""

    def open(self, group, *arguments):
        if group.file.stem == self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().open(group, *arguments)


@pytest.fixture
def cluster():
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 0})
    others = [made.add_node(num_cpus=1, num_gpus=0) for _ in range(2)]
    made.wait_for_nodes()
    ray.init(address=made.address, log_to_driver=False)
    yield made, others
    ray.shutdown()
    made.shutdown()


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    samples = make_samples(0, N_VIDEOS, 16)
    write_samples("longvideobench", folder, samples)
    return [
        Job(f"{s.name}-{n}", f"{n}", s.name, folder / "videos" / f"{s.name}.mp4", q.text, q.text)
        for s in samples
        for n, q, _, _ in list(s.asked())[:N_QUESTIONS]
    ]


def opener(cache_dir: Path, deadly: str = "") -> Opener:
    settings = {"": RetakeConfig(compression=CompressionConfig(policy="none"))}
    return Deadly(resolve_model("tiny"), settings, cache_dir=cache_dir, deadly=deadly)


def test_an_address_without_a_cluster_is_told_at_once(jobs, tmp_path):
    from retake_edge.evaluate.cluster import run_on_cluster

    pytest.importorskip("ray")
    with (
        RowFile(tmp_path / "rows.jsonl", "run") as rows,
        pytest.raises(ConfigError, match=r"There is no Ray cluster at 127\.0\.0\.1:1 "),
    ):
        run_on_cluster(grouped(jobs), rows, opener(tmp_path), address="127.0.0.1:1")


def test_a_node_killed_costs_no_row_and_a_deadly_video_is_named(cluster, jobs, tmp_path):
    from retake_edge.evaluate.cluster import run_on_cluster

    made, others = cluster
    is_killed = threading.Event()

    def killer(stage, done, total, more=None):
        if stage == "asking" and done >= 3 and not is_killed.is_set():
            is_killed.set()
            made.remove_node(others[0], allow_graceful=False)

    notes: list[str] = []
    with RowFile(tmp_path / "rows.jsonl", "run") as rows:
        run_on_cluster(
            grouped(jobs),
            rows,
            opener(tmp_path / "cache", "scene-0-2"),
            address=made.address,
            progress=killer,
            on_note=notes.append,
        )
        found = rows.rows
    assert is_killed.is_set()
    assert sorted(row["key"] for row in found) == sorted(job.key for job in jobs)
    failed = [row for row in found if row["error"]]
    assert {row["video"] for row in failed} == {"scene-0-2"} and len(failed) == N_QUESTIONS
    assert "died 2 times over scene-0-2" in failed[0]["error"]["message"]
    assert all(row["text"] for row in found if not row["error"])
    told = "\n".join(notes)
    assert told.count("died over scene-0-2") == 2 and told.count("is lost; scene-0-") == 1
    assert all(f"scene-0-{n}, {N_QUESTIONS} questions, on " in told for n in range(N_VIDEOS))
