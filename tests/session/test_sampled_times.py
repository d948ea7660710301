"""Times that follow change, all the way: plan, clock and positions, session, resume, --json."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from session_support import MODEL, QUESTION, opened, question_logits, settings

from retake_edge.bench.sampling.files import write_files
from retake_edge.bench.scenes.events import make_event_scene
from retake_edge.config import RetakeConfig
from retake_edge.plan.run import RunPlan, RunPlanner
from retake_edge.session.others import differences
from retake_edge.session.store.key import session_facts
from retake_edge.video.read import probe_video

SECONDS, LIMIT = 96.0, 24
SCENE = make_event_scene("still", 8, SECONDS, 4)

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("video")
    return write_files(SCENE, folder, ("h264 crf",), 8, 64)["h264 crf"]


def config_of(sampling: str, limit: int = LIMIT, fps: float = 2.0) -> RetakeConfig:
    config = settings(fps=fps, max_frames=limit)
    return replace(config, sampling=replace(config.sampling, sampling=sampling))


def plan_of(video: Path, config: RetakeConfig) -> RunPlan:
    with RunPlanner(MODEL, 700) as planner:
        return planner.plan(probe_video(video), config)
    raise AssertionError


def test_the_plan_the_session_and_the_answer_have_the_same_times(
    video: Path, tmp_path: Path
) -> None:
    plan = plan_of(video, config_of("change"))
    planned = plan.frames.all_times_s
    assert len(planned) == plan.frames.n <= LIMIT and plan.frames.sampling == "change"
    with opened(tmp_path, config_of("change"), video) as session:
        times_s = session.video_map.frame_times_s
        answer = session.ask(QUESTION).to_dict()
        n_positions = session.video.n_positions
    assert np.abs(times_s - planned[::2]).max() <= 1 / 8
    assert answer["video"]["sampling"] == "change"
    assert answer["video"]["n_frames"] == plan.frames.n
    assert n_positions <= plan.cells.positions.highest + 1
    assert json.loads(json.dumps(plan.to_dict()))["frames"]["all_times_s"] == list(planned)
    starts_s = np.array([card.start_s for card in SCENE.cards])
    assert (np.abs(times_s - starts_s[:, None]) < 0.5).any(axis=1).sum() >= 2


def test_other_times_are_another_session_and_it_says_so(video: Path, tmp_path: Path) -> None:
    facts = {
        name: session_facts(plan_of(video, config), "v", {"model": "m"})
        for name, config in {
            "even": config_of("even"),
            "change": config_of("change"),
        }.items()
    }
    assert facts["change"] != facts["even"]
    assert any("--sampling even" in text for text in differences(facts["even"], facts["change"]))


def test_a_video_within_the_limit_is_the_same_session_either_way(video: Path) -> None:
    both = [
        session_facts(plan_of(video, config_of(name, limit=1000)), "v", {"model": "m"})
        for name in ("even", "change")
    ]
    assert both[0] == both[1]


def test_a_reading_that_was_stopped_goes_on_with_the_same_times(
    video: Path, tmp_path: Path
) -> None:
    config = config_of("change")
    with opened(tmp_path / "whole", config, video) as session:
        expected, logits = session.video_map.frame_times_s, question_logits(session)

    class StopError(Exception):
        """The reading is stopped."""

    def stop(stage: str, done: int, total: int) -> None:
        if stage == "prefill" and done > 8:
            raise StopError

    with pytest.raises(StopError):
        opened(tmp_path / "parts", config, video, progress=stop)
    with opened(tmp_path / "parts", config, video) as session:
        assert session.video_map.frame_times_s.tolist() == expected.tolist()
        assert np.array_equal(question_logits(session), logits)
