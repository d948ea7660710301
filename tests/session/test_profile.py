"""An answer's profile: what the time went to, all of it, and what was done beside."""

import time

import pytest
from session_support import QUESTION, opened, settings

from retake_edge.session.conversation import Conversation

READING = {"plan", "load", "waiting", "encode", "prefill", "score", "select", "compact", "save"}
BESIDE = {"decode", "scale", "save"}


def add_up(profile):
    return sum(profile.stages.values()) == pytest.approx(profile.wall_s, abs=1e-6)


def test_the_stages_of_a_first_answer_add_up_to_its_wall_clock_time(tmp_path):
    began = time.perf_counter()
    with opened(tmp_path) as session:
        answer = session.ask(QUESTION)
        passed_s = time.perf_counter() - began
    profile = answer.profile
    assert add_up(profile)
    assert profile.wall_s <= passed_s
    assert READING | {"answer", "other"} <= set(profile.stages)
    assert set(profile.beside) == BESIDE
    assert all(seconds > 0 for seconds in profile.beside.values())
    assert answer.to_dict()["profile"]["stages"] == profile.stages


def test_a_later_question_has_the_opening_and_its_own_time(tmp_path):
    with opened(tmp_path) as session:
        first = session.ask(QUESTION).profile
        second = session.ask(QUESTION).profile
    assert add_up(second)
    for stage in READING:
        assert second.stages[stage] == first.stages[stage], stage
    assert second.beside == first.beside


def test_a_saved_video_has_no_stages_of_reading(tmp_path):
    opened(tmp_path).close()
    with opened(tmp_path) as session:
        profile = session.ask(QUESTION).profile
    assert add_up(profile)
    assert not set(profile.stages) & (READING - {"load"})
    assert profile.beside == {}


def test_what_an_interrupted_run_took_is_no_part_of_the_next_ones_profile(tmp_path):
    def stop(stage, done, *_):
        if stage == "prefill" and done >= 16:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        opened(tmp_path, progress=stop).close()
    with opened(tmp_path) as session:
        profile = session.ask(QUESTION).profile
        in_all = session.index_seconds
    assert add_up(profile)
    assert in_all["encode"] > profile.stages["encode"]


def test_turns_and_second_looks_add_up_too(tmp_path):
    with opened(tmp_path) as session:
        turns = [Conversation(session).ask(QUESTION).profile]
    with opened(tmp_path / "look", settings(), look_again=4) as session:
        answer = session.ask(QUESTION)
        turns.append(answer.profile)
    assert all(add_up(profile) for profile in turns)
    assert answer.looked_again is not None
    assert "first answer" in turns[1].stages
