"""Questions about what a scene does not show, and what signals of an answer tell."""

import re

import numpy as np
import pytest

from retake_edge.bench.quality.sure import SIGNALS, TOGETHER, Heard, signal_table, sure_results
from retake_edge.bench.quality.videos import TURNS
from retake_edge.bench.scenes.absent import ABSENT_KINDS, absent_questions
from retake_edge.bench.scenes.questions import make_questions, parse_clock
from retake_edge.bench.scenes.scene import COLOURS, SHAPES, make_scene


@pytest.mark.parametrize("seed", range(12))
def test_an_absent_question_asks_for_what_the_scene_does_not_show(seed):
    scene = make_scene(seed, 64, n_cards=6, card_s=1)
    twins = absent_questions(scene, [q.kind for q in make_questions(scene, 24, seed, TURNS)])
    assert len(twins) > 6
    for twin in twins:
        words = set(re.findall(r"[a-z]+", twin.text.lower()))
        colours, shapes = words & set(COLOURS), words & set(SHAPES)
        time_s = parse_clock(twin.text)
        if "card" in words and colours:
            assert not colours & {card.colour for card in scene.cards}
        elif time_s is not None:
            assert all(scene.card_at(time_s + off) is None for off in (-2, -1, 0, 1, 2))
        else:
            assert colours or shapes
            assert not [
                segment
                for segment in scene.segments
                if colours <= {segment.colour} and shapes <= {segment.shape}
            ]


def test_absent_questions_are_of_the_kinds_that_were_asked_and_all_different():
    scene = make_scene(3, 64, n_cards=6, card_s=1)
    asked = [q.kind for q in make_questions(scene, 24, 3, TURNS)]
    twins = absent_questions(scene, asked)
    for kind in {twin.kind for twin in twins}:
        assert kind in ABSENT_KINDS
        assert [t.kind for t in twins].count(kind) <= asked.count(kind)
    assert len({twin.text for twin in twins}) == len(twins)
    assert all(twin.answer == "" for twin in twins)
    assert twins == absent_questions(scene, asked)


def _heard(video, is_absent, is_right, value):
    signals = np.full(len(SIGNALS), 0.5)
    signals[0] = value
    return Heard(video, "number", is_absent, is_right, signals)


def _videos(n, absent_value, present_value):
    return [
        heard
        for video in range(n)
        for i in range(8)
        for heard in (
            _heard(video, True, False, absent_value(video) + i / 100),
            _heard(video, False, i > 1, present_value(video) + i / 100),
        )
    ]


def test_a_signal_that_parts_absent_from_present_gets_a_threshold():
    results = sure_results(_videos(8, lambda _: -2.0, lambda _: -1.0))
    found = results["signals"]["probability"]
    assert found["present_absent"] == [1.0, 1.0, 1.0]
    assert -2 < found["threshold"] <= -1
    assert (found["said"], found["absent"], results["n_absent"]) == (32, 32, 32)
    assert results["signals"][TOGETHER]["said"] == 32


def test_a_signal_that_tells_nothing_gets_none():
    results = sure_results(_videos(8, lambda _: -1.0, lambda _: -1.0))
    found = results["signals"]["focus"]
    assert found["present_absent"] == [0.5, 0.5, 0.5]
    assert (found["threshold"], found["said"]) == (None, 0)


def test_what_is_said_is_counted_on_videos_that_the_threshold_never_saw():
    results = sure_results(_videos(8, lambda v: -2.0 if v < 4 else -1.0, lambda v: -1.5))
    found = results["signals"]["probability"]
    assert found["present_absent"] == [0.0, 0.0, 0.0]
    assert found["said"] == found["absent"] == 0
    assert found["threshold"] is not None


def test_the_table_has_a_row_for_each_signal():
    row = {
        "policy": "none",
        "keep_ratio": 1.0,
        **sure_results(_videos(8, lambda _: -2, lambda _: -1)),
    }
    lines = signal_table({"sure": [row]}).splitlines()
    assert len(lines) == 2 + len(SIGNALS) + 1
    assert "| 32 of 64 | 100.0 % | 100.0 % |" in lines[2]
    one_video = {"policy": "none", **sure_results(_videos(1, lambda _: -2, lambda _: -1))}
    assert signal_table({}) == signal_table({"sure": [one_video]}) == ""
