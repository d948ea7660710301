"""The synthetic scenes: same seed, same pixels; the description is what the frames show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from retake_edge.bench.scenes.questions import (
    KINDS,
    Question,
    clock,
    draw_question,
    grade,
    make_questions,
    parse_clock,
)
from retake_edge.bench.scenes.render import render_frame, write_video
from retake_edge.bench.scenes.scene import COLOURS, DIFFICULTIES, make_scene
from retake_edge.errors import VideoError

SEEDS = range(12)


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_same_seed_gives_same_scene_and_pixels(difficulty: str) -> None:
    first, second = (make_scene(7, 40, difficulty=difficulty) for _ in range(2))
    assert first == second
    assert np.array_equal(render_frame(first, 3.5, 96), render_frame(second, 3.5, 96))
    assert make_scene(8, 40, difficulty=difficulty) != first


@pytest.mark.parametrize("seconds", [2, 7, 33.5, 256])
def test_segments_fill_the_video_and_cards_lie_inside(seconds: float) -> None:
    for seed in SEEDS:
        scene = make_scene(seed, seconds)
        edges = [0.0, *(s.end_s for s in scene.segments)]
        assert [s.start_s for s in scene.segments] == edges[:-1]
        assert edges[-1] == seconds
        for card, following in zip(scene.cards, scene.cards[1:], strict=False):
            assert card.end_s <= following.start_s
        assert all(0 <= c.start_s < c.end_s <= seconds for c in scene.cards)
        assert all(c.start_s == int(c.start_s) for c in scene.cards)
        assert len({c.colour for c in scene.cards}) == len(scene.cards)


def test_number_and_length_of_cards_are_as_asked() -> None:
    scene = make_scene(3, 64, n_cards=5, card_s=1)
    assert len(scene.cards) == 5
    assert all(c.end_s - c.start_s == 1 for c in scene.cards)


def test_a_card_shows_its_colour_only_while_it_is_there() -> None:
    for seed in SEEDS:
        scene = make_scene(seed, 40, difficulty="hard", n_cards=3)
        card = scene.cards[1]
        assert _share(render_frame(scene, card.start_s), card.colour) > 0.06
        before, during = (render_frame(scene, t) for t in (card.start_s - 0.01, card.start_s))
        assert np.abs(before.astype(int) - during).mean() > 2


def _share(frame: np.ndarray, colour: str) -> float:
    """Share of pixels near a colour."""
    near = np.abs(frame.astype(int) - COLOURS[colour]).max(-1) < 40
    return float(near.mean())


def test_a_moving_object_moves_and_a_still_one_stays() -> None:
    scene = make_scene(1, 30, difficulty="easy", n_cards=0)
    for segment in scene.segments:
        first, later = (render_frame(scene, segment.start_s + t) for t in (0.5, 1.0))
        assert np.array_equal(first, later) == (segment.motion == "still")


@pytest.mark.parametrize(
    "arguments", [{"difficulty": "odd"}, {"seconds": 1}, {"n_cards": 9}, {"n_cards": 4}]
)
def test_impossible_scenes_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must be|at least|at most"):
        make_scene(0, **{"seconds": 10, **arguments})


def test_every_kind_of_question_is_asked_and_right_answers_pass() -> None:
    questions = [q for seed in SEEDS for q in make_questions(make_scene(seed, 60), 40, seed)]
    assert {q.kind for q in questions} == set(KINDS)
    for question in questions:
        assert grade(question, question.answer)
        assert grade(question, f"The {question.answer}.")
        assert not grade(question, "")


def test_questions_are_different_and_repeatable() -> None:
    scene = make_scene(5, 90)
    first = make_questions(scene, 30, 1)
    assert first == make_questions(scene, 30, 1)
    assert len({q.text for q in first}) == len(first) == 30
    assert make_questions(scene, 5, 1, kinds=["number"])[0].kind == "number"
    with pytest.raises(ValueError, match="unknown question kinds"):
        make_questions(scene, 5, 1, kinds=["mood"])


def test_answers_agree_with_the_scene() -> None:
    rng = np.random.default_rng(0)
    for seed in SEEDS:
        scene = make_scene(seed, 60, n_cards=4)
        shown = {c.colour: c for c in scene.cards}
        for _ in range(10):
            number, when, order = (draw_question(rng, scene, k) for k in KINDS[:3])
            card = shown[next(c for c in shown if f" {c} card" in number.text)]
            assert number.answer == str(card.number)
            card = shown[next(c for c in shown if f" {c} card" in when.text)]
            assert when.time_s == card.start_s == parse_clock(when.answer)
            named = [c for c in scene.cards if f" {c.colour}" in order.text]
            assert order.answer == named[0].colour


def test_a_time_is_right_within_the_tolerance_only() -> None:
    question = Question("when_card", "When?", "1:10", 70.0, "clock")
    assert grade(question, "At 1:12.") and not grade(question, "1:13")
    assert grade(question, "1:13", tolerance_s=3) and not grade(question, "soon")
    assert parse_clock("it is 1:02:03") == 3723
    assert clock(3599.9) == "59:59"


def test_a_wrong_word_or_number_fails() -> None:
    assert not grade(Question("number", "?", "47"), "4")
    assert not grade(Question("number", "?", "47"), "74")
    assert not grade(Question("exists", "?", "yes"), "no, yes")
    assert grade(Question("first_object", "?", "red circle"), "A red circle.")


def test_a_video_file_holds_the_frames(tmp_path: Path) -> None:
    scene = make_scene(2, 4)
    path = write_video(scene, tmp_path / "scene.mp4", fps=4, size_px=112)
    reader, count = cv2.VideoCapture(str(path)), 0
    while (got := reader.read())[0]:
        wanted = render_frame(scene, count / 4, 112).astype(int)
        assert np.abs(got[1][..., ::-1] - wanted).mean() < 16
        count += 1
    assert count == 16
    assert [p.name for p in tmp_path.iterdir()] == ["scene.mp4"]


def test_an_unwritable_video_is_a_video_error(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="cannot write"):
        write_video(make_scene(2, 4), tmp_path / "missing" / "scene.mp4")
