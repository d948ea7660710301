"""A reading is planned once, straight down, and what was planned is carried out."""

import sys
from collections import Counter

import pytest
from session_support import QUESTION, VIDEO, opened, settings

from retake_edge.plan import cells, frames, memory, positions, seconds
from retake_edge.session import ingest
from retake_edge.video import read

STEPS = (
    read.probe_video,
    frames.plan_frames,
    cells.plan_cells,
    frames.plan_memory,
    positions.highest_position,
    memory.memory_use,
    seconds.work_of,
)


@pytest.fixture
def counted():
    """How often each step of planning is called, in order of the first calls."""
    found, codes = Counter(), {step.__code__: step.__name__ for step in STEPS}

    def note(frame, event, _):
        if event == "call" and frame.f_code in codes:
            found[codes[frame.f_code]] += 1

    before = sys.getprofile()
    sys.setprofile(note)
    yield found
    sys.setprofile(before)


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("changes", [{}, {"policy": "frames", "keep_ratio": None, "n_ctx": 600}])
def test_one_ask_plans_once_and_straight_down(tmp_path, counted, use_cache, changes):
    with opened(tmp_path, settings(**changes), use_cache=use_cache) as session:
        session.ask(QUESTION)
    assert counted == {step.__name__: 1 for step in STEPS}
    assert list(counted) == [step.__name__ for step in STEPS]


def test_a_reading_that_goes_on_is_planned_once(tmp_path, counted):
    def stop(stage, done, *_):
        if stage == "prefill" and done >= 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        opened(tmp_path, progress=stop).close()
    counted.clear()
    with opened(tmp_path) as session:
        assert session.video.n_frames == 24
    assert counted == {step.__name__: 1 for step in STEPS}


def test_a_saved_video_is_asked_without_a_plan(tmp_path, counted):
    opened(tmp_path).close()
    counted.clear()
    with opened(tmp_path) as session:
        session.ask(QUESTION)
    assert not counted


def test_cells_are_planned_anew_where_the_tower_makes_other_tokens(tmp_path, monkeypatch):
    plan_of, seen = ingest.plan_of, []

    def other(request):
        plan = plan_of(request)
        shape = plan.cells.memory.shape
        wrong = _with(plan, vision_per_step=shape.vision_per_step + 1)
        seen.append((wrong, plan))
        return wrong

    monkeypatch.setattr("retake_edge.session.open.plan_of", other)
    with opened(tmp_path, use_cache=False, video=VIDEO) as session:
        ((wrong, right),) = seen
        assert session.video.n_cells_kept == right.cells.memory.n_kept_cells
        assert session.video.n_cells_kept != wrong.cells.memory.n_kept_cells


def _with(plan, **changes):
    from dataclasses import replace

    shape = replace(plan.cells.memory.shape, **changes)
    budget = replace(plan.cells.memory, shape=shape, n_kept_cells=1)
    return replace(plan, cells=replace(plan.cells, memory=budget))
