"""One clock: every moment counts for one stage, and all stages add up to the wall-clock time."""

import time

import numpy as np
import pytest

from retake_edge.stages import OTHER, StageTimes


class Clock:
    """A clock that the test moves."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def pass_s(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def test_a_moment_counts_for_the_innermost_stage_alone(clock):
    times = StageTimes().start()
    clock.pass_s(1)
    with times.measure("load"):
        clock.pass_s(2)
        with times.measure("encode"):
            clock.pass_s(4)
        clock.pass_s(8)
    clock.pass_s(16)
    times.stop()
    clock.pass_s(32)  # nobody counts it
    assert times.seconds == {OTHER: 17, "load": 10, "encode": 4}
    assert times.wall_s == 31
    assert times.named() == {"load": 10, "encode": 4}


def test_items_count_where_they_are_made_and_what_they_need_for_itself(clock):
    times = StageTimes().start()

    def frames():
        for _ in range(3):
            with times.measure("encode"):
                clock.pass_s(5)
            clock.pass_s(1)
            yield None

    for _ in times.each("select", frames()):
        clock.pass_s(10)
    times.stop()
    assert times.seconds == {"select": 3, "encode": 15, OTHER: 30}


def test_an_error_in_a_stage_leaves_the_stage_around_it_at_hand(clock):
    times = StageTimes().start()
    with pytest.raises(ValueError, match="no"), times.measure("save"):
        clock.pass_s(1)
        raise ValueError("no")
    clock.pass_s(2)
    times.stop()
    assert times.seconds == {"save": 1, OTHER: 2}


def test_random_stages_add_up_to_the_time_that_passed(clock):
    rng = np.random.default_rng(20261126)
    for _ in range(50):
        times = StageTimes().start()
        began = clock.now

        def work(depth, times=times):
            for _ in range(rng.integers(4)):
                clock.pass_s(rng.random())
                with times.measure(str(rng.integers(5))):
                    clock.pass_s(rng.random())
                    if depth:
                        work(depth - 1)

        work(3)
        times.stop()
        assert sum(times.seconds.values()) == pytest.approx(times.wall_s)
        assert times.wall_s == pytest.approx(clock.now - began)


def test_a_clock_that_was_not_started_counts_its_stages_alone(clock):
    times = StageTimes()
    clock.pass_s(1)
    with times.measure("prefill"):
        clock.pass_s(2)
    times.stop()
    assert (times.seconds, times.wall_s) == ({"prefill": 2}, 0)


def test_a_profile_joins_an_opening_and_a_question_under_its_own_names(clock):
    opening, question = StageTimes().start(), StageTimes().start()
    with opening.measure("decode"):
        clock.pass_s(3)
    opening.stop()
    opening.beside["scale"] = 2.0
    with question.measure("wait"):
        clock.pass_s(1)
    with question.measure("generate"):
        clock.pass_s(2)
    question.stop()
    names = {"decode": "waiting", "wait": "waiting", "generate": "answer"}
    profile = question.after(opening).profile(names)
    assert profile.stages == {"waiting": 4, "answer": 2, OTHER: 3}  # the question's, as 3 s passed
    assert (profile.wall_s, profile.beside) == (9, {"scale": 2.0})
