"""Footage in which little happens: what its kinds promise, and the questions about it."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from retake_edge.bench.scenes.footage import FOOTAGE, STILL_KINDS, make_footage
from retake_edge.bench.scenes.overlays import Cursor, Typing
from retake_edge.bench.scenes.questions import (
    HELD_TEMPLATES,
    KINDS,
    Question,
    clock,
    grade,
    make_questions,
    parse_seconds,
)
from retake_edge.bench.scenes.render import render_frame
from retake_edge.bench.scenes.scene import Scene

SECONDS = 120


def changed(scene: Scene, start_s: float, end_s: float) -> float:
    """The share of pixels that differ by more than 20 levels between two times."""
    first, second = (render_frame(scene, t, 96).astype(int) for t in (start_s, end_s))
    return float((np.abs(first - second).max(axis=2) > 20).mean())


@pytest.mark.parametrize("kind", FOOTAGE)
def test_same_seed_gives_same_pixels_and_another_seed_others(kind: str) -> None:
    first, second = (make_footage(kind, 3, SECONDS) for _ in range(2))
    assert first == second
    assert np.array_equal(render_frame(first, 31.5, 64), render_frame(second, 31.5, 64))
    assert make_footage(kind, 4, SECONDS) != first


@pytest.mark.parametrize("kind", STILL_KINDS)
def test_segments_fill_the_video_and_cards_lie_inside(kind: str) -> None:
    for seed in range(8):
        scene = make_footage(kind, seed, SECONDS)
        edges = [0.0, *(segment.end_s for segment in scene.segments)]
        assert [segment.start_s for segment in scene.segments] == edges[:-1]
        assert edges[-1] == SECONDS
        assert scene.cards
        for card, following in zip(scene.cards, scene.cards[1:], strict=False):
            assert card.end_s < following.start_s
        assert all(0 < card.start_s < card.end_s <= SECONDS for card in scene.cards)


@pytest.mark.parametrize("kind", ["slides", "camera", "flicker"])
def test_nothing_large_moves_between_two_events(kind: str) -> None:
    scene = make_footage(kind, 11, SECONDS)
    for second in range(SECONDS - 1):
        before, after = (
            (scene.segment_at(t), scene.card_at(t)) for t in (second + 0.1, second + 0.9)
        )
        if before == after and before[0].motion == "still":
            assert changed(scene, second + 0.1, second + 0.9) < 0.01


def test_a_speaker_never_stands_still() -> None:
    scene = make_footage("speaker", 2, SECONDS)
    assert all(changed(scene, t, t + 1) > 0.001 for t in range(5, 60, 5))


def test_a_fade_passes_from_one_slide_into_the_next() -> None:
    scene = make_footage("fades", 6, SECONDS)
    first = scene.segments[0]
    no_card = Scene(scene.seed, scene.seconds, scene.segments, (), (), scene.fade_s)
    start, middle, end = (
        render_frame(no_card, first.end_s - share * scene.fade_s, 64).astype(float)
        for share in (1.0, 0.5, 0.001)
    )
    assert np.abs(middle - (start + end) / 2).max() < 3
    assert np.abs(start - end).max() > 30


def test_a_cursor_rests_and_then_is_elsewhere() -> None:
    cursor, frames = Cursor(5, rest_s=10), []
    for time_s in (1.0, 8.0, 11.0):
        image = np.full((96, 96, 3), 90, np.uint8)
        cursor.draw(image, time_s)
        frames.append(image)
    assert np.array_equal(frames[0], frames[1])
    assert not np.array_equal(frames[1], frames[2])


def test_letters_appear_while_one_types_and_stay_after_that() -> None:
    typing, frames = Typing(5, letters_a_second=3, typed_s=5, rest_s=25), []
    for time_s in (1.0, 2.0, 6.0, 29.0, 32.0):
        image = np.full((224, 224, 3), 90, np.uint8)
        typing.draw(image, time_s)
        frames.append(image)
    same = [np.array_equal(a, b) for a, b in pairwise(frames)]
    assert same == [False, False, True, False]


def test_what_is_asked_about_stays_on_the_screen_around_that_time() -> None:
    for seed in range(20):
        scene = make_footage("slides", seed, SECONDS)
        for question in make_questions(scene, 6, seed, ["number_during", "object_during"]):
            assert question.time_s is not None
            assert clock(question.time_s) in question.text
            around = [question.time_s + offset for offset in (-2.9, 0.0, 2.9)]
            cards = {scene.card_at(t) for t in around}
            segments = {scene.segment_at(t) for t in around}
            if question.kind == "number_during":
                assert {str(card.number) if card else "" for card in cards} == {question.answer}
            else:
                assert cards == {None}
                assert {f"{s.colour} {s.shape}" for s in segments} == {question.answer}


def test_how_long_is_graded_by_seconds_however_they_are_told() -> None:
    scene = make_footage("slides", 1, SECONDS)
    question = make_questions(scene, 1, 1, ["how_long"])[0]
    card = next(card for card in scene.cards if card.colour in question.text)
    length = round(card.end_s - card.start_s)
    assert question.answer == f"{length} s"
    told = [f"{length + 1} seconds", clock(length), f"about {length}.", f"{length + 3} s", "long"]
    assert [grade(question, text) for text in told] == [True, True, True, False, False]
    assert parse_seconds("from 1:05 on") == 65


def test_questions_of_ordinary_scenes_are_what_they_were() -> None:
    assert not set(HELD_TEMPLATES) & set(KINDS)
    assert Question("number", "?", "7").accepts == "words"


@pytest.mark.parametrize(("kind", "seconds"), [("film", 60), ("slides", 10)])
def test_bad_wishes_are_refused(kind: str, seconds: float) -> None:
    with pytest.raises(ValueError, match="footage"):
        make_footage(kind, 0, seconds)


@pytest.mark.process
def test_the_command_draws_footage_and_asks_about_what_stays(tmp_path: Path) -> None:
    path = tmp_path / "slides.mp4"

    def call(kind: str) -> subprocess.CompletedProcess[str]:
        size = ("--seconds", "32", "--fps", "4", "--size", "64", "--questions", "3")
        command = [
            sys.executable,
            "-m",
            "retake_edge",
            "scene",
            str(path),
            "--footage",
            kind,
            *size,
        ]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)

    wrong = call("film")
    assert wrong.returncode == 2
    assert "footage must be one of slides" in wrong.stderr
    assert not path.exists()
    done = call("slides")
    assert done.returncode == 0, done.stderr
    assert {question["kind"] for question in json.loads(done.stdout)} & set(HELD_TEMPLATES)
    assert path.stat().st_size > 0
