"""One model for all videos, and the longest videos first."""

from pathlib import Path

import pytest

from retake_edge.config import CompressionConfig, RetakeConfig, with_values
from retake_edge.errors import MemoryBudgetError, VideoError
from retake_edge.evaluate import opening
from retake_edge.evaluate.jobs import Group
from retake_edge.evaluate.opening import LoadedOpener, Opener
from retake_edge.evaluate.planned import longest_first
from retake_edge.llama.model import Model
from retake_edge.models.resolve import resolve_model
from retake_edge.plan.cells import text_reserve
from retake_edge.plan.run import RunPlanner
from retake_edge.plan.seconds import Calibration
from retake_edge.video.read import probe_video

DEMO = Path(__file__).parents[2] / "models" / "tiny" / "demo.mp4"
NONE = RetakeConfig(compression=CompressionConfig(policy="none"))


@pytest.fixture
def loads(monkeypatch):
    """The layers on the GPU of each model that was loaded."""
    counted = []

    class Counted(Model):
        def __init__(self, path, *, n_gpu_layers, progress):
            counted.append(n_gpu_layers)
            super().__init__(path, n_gpu_layers=n_gpu_layers, progress=progress)

    monkeypatch.setattr(opening, "Model", Counted)
    return counted


def group(file, end_s=None, variant=""):
    return Group(file, 0.0 if end_s else None, end_s, variant, ())


def test_the_model_is_loaded_once_for_all_videos(loads, tmp_path):
    texts = []
    with LoadedOpener(Opener(resolve_model("tiny"), {"": NONE}, cache_dir=tmp_path)) as opener:
        for end_s in (8.0, 16.0, 8.0):
            with opener.open(group(DEMO, end_s)) as session:
                texts.append(session.ask("What number is on the red card?").text)
    assert loads == [-1]
    assert texts[0] == texts[2] and all(texts)


def test_a_variant_with_other_layers_on_the_gpu_is_loaded_anew(loads):
    other = with_values(NONE, runtime={"n_gpu_layers": 0})
    opener = Opener(resolve_model("tiny"), {"a": NONE, "b": other}, use_cache=False)
    with LoadedOpener(opener) as loaded:
        for variant in "aab":
            loaded.open(group(DEMO, 4.0, variant)).close()
    assert loads == [-1, 0]


def test_a_video_that_cannot_be_read_or_does_not_fit_loads_nothing(loads, tmp_path, monkeypatch):
    with LoadedOpener(Opener(resolve_model("tiny"), {"": NONE}, use_cache=False)) as opener:
        with pytest.raises(VideoError):
            opener.open(group(tmp_path / "none.mp4"))
        with monkeypatch.context() as patched:
            patched.setattr("retake_edge.plan.memory.available_memory_bytes", lambda: 1000)
            with pytest.raises(MemoryBudgetError):
                opener.open(group(DEMO))
        assert loads == []
        opener.open(group(DEMO, 4.0)).close()
    assert loads == [-1]


def test_weights_that_are_in_memory_need_no_more_of_it():
    source, info = resolve_model("tiny"), probe_video(DEMO)
    needed = []
    for is_loaded in (False, True):
        with RunPlanner(source, text_reserve(NONE), is_loaded=is_loaded) as planner:
            needed.append(planner.plan(info, NONE).memory[0])
    assert needed[1].weights == needed[1].mapped == 0
    assert needed[0].needed - needed[1].needed == needed[0].weights > 0


def test_the_longest_planned_seconds_begin_first(tmp_path):
    opener = Opener(resolve_model("tiny"), {"": NONE}, cache_dir=tmp_path)
    damaged = tmp_path / "none.mp4"
    groups = [group(damaged), *(group(DEMO, end_s) for end_s in (8.0, 32.0, 16.0))]
    by_length = longest_first(groups, opener)
    assert [g.end_s for g in by_length] == [32.0, 16.0, 8.0, None]
    with RunPlanner(opener.source, text_reserve(NONE)) as planner:
        estimate = planner.plan(probe_video(DEMO), NONE).estimate
        Calibration(tmp_path).add(
            estimate.speed_key, estimate.work, {"encode": 9.0, "prefill": 9.0}
        )
    assert [g.end_s for g in longest_first(groups, opener)] == [32.0, 16.0, 8.0, None]
