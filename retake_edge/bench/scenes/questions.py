"""Questions about a synthetic scene, with answers known from its description.

A kind is one function that draws a question from a scene, or None where the scene holds no
unambiguous one (a shape seen in two colours has no single colour). An answer is graded by its
leading words, or, for a clock time or a length, by its distance in seconds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

from retake_edge.bench.scenes.scene import COLOURS, SHAPES, Card, Scene, Segment


@dataclass(frozen=True)
class Question:
    """A question and its answer; time_s is when the evidence begins, None if spread out."""

    kind: str
    text: str
    answer: str
    time_s: float | None = None
    accepts: Literal["words", "clock", "seconds"] = "words"


def clock(time_s: float) -> str:
    """Return a time as the model writes it: minutes, colon, two-digit seconds, rounded down."""
    return f"{int(time_s) // 60}:{int(time_s) % 60:02d}"


TEMPLATES: dict[str, tuple[str, ...]] = {
    "number": (
        "What number is on the {colour} card?",
        "Which number does the {colour} card show?",
        "What does the {colour} card say?",
        "Read the number on the {colour} card.",
    ),
    "when_card": (
        "When does the {colour} card appear?",
        "At what time is the {colour} card shown?",
        "When can the {colour} card be seen?",
    ),
    "order": (
        "Which card appears first, the {colour} or the {other} one?",
        "Which card comes first, {colour} or {other}?",
        "Is the {colour} card or the {other} card shown first?",
    ),
    "card_exists": ("Is there a {colour} card?", "Does a {colour} card appear?"),
    "number_at": ("What number is shown at {clock}?", "Which number is on the card at {clock}?"),
    "exists": ("Is there a {colour} {shape}?", "Does a {colour} {shape} appear?"),
    "colour": ("What colour is the {shape}?", "Which colour does the {shape} have?"),
    "shape": ("Which shape is {colour}?", "What shape is the {colour} object?"),
    "when_object": (
        "When does the {colour} {shape} appear?",
        "At what time is the {colour} {shape} shown?",
    ),
    "object_at": ("Which object is shown at {clock}?", "What object can be seen at {clock}?"),
    "first_card": ("What number is on the first card?", "Which number does the first card show?"),
    "last_card": ("What number is on the last card?", "Which number does the last card show?"),
    "first_object": ("Which object appears first?", "What is the first object?"),
    "last_object": ("Which object appears last?", "What is the last object?"),
    "background": (
        "What is the background of the {colour} {shape}?",
        "What is behind the {colour} {shape}?",
    ),
    "motion": ("How does the {colour} {shape} move?", "Where does the {colour} {shape} go?"),
    "count": ("How many cards are there?", "How many cards are shown?"),
}
KINDS = tuple(TEMPLATES)
HELD_TEMPLATES: dict[str, tuple[str, ...]] = {
    "number_during": TEMPLATES["number_at"],
    "object_during": TEMPLATES["object_at"],
    "how_long": (
        "How long is the {colour} card shown?",
        "For how long can the {colour} card be seen?",
    ),
}
"""Questions about what stays for a while (`scenes.footage`), beside those of TEMPLATES."""
_T = TypeVar("_T")
Drawn = tuple[dict[str, str], str, float | None]  # fields of the template, answer, evidence time


def _pick(rng: np.random.Generator, items: Sequence[_T]) -> _T:
    return items[int(rng.integers(len(items)))]


def _card(rng: np.random.Generator, scene: Scene) -> Card | None:
    return _pick(rng, scene.cards) if scene.cards else None


def _number(rng: np.random.Generator, scene: Scene) -> Drawn | None:
    card = _card(rng, scene)
    if card is None:
        return None
    return {"colour": card.colour}, str(card.number), card.start_s


def _when_card(rng: np.random.Generator, scene: Scene) -> Drawn | None:
    card = _card(rng, scene)
    if card is None:
        return None
    return {"colour": card.colour}, clock(card.start_s), card.start_s


def _order(rng: np.random.Generator, scene: Scene) -> Drawn | None:
    if len(scene.cards) < 2:
        return None
    a, b = (scene.cards[int(i)] for i in rng.permutation(len(scene.cards))[:2])
    first = a if a.start_s < b.start_s else b
    return {"colour": a.colour, "other": b.colour}, first.colour, first.start_s


def _card_exists(rng: np.random.Generator, scene: Scene) -> Drawn | None:
    shown = {c.colour: c.start_s for c in scene.cards}
    absent = [c for c in COLOURS if c not in shown]
    if shown and (not absent or rng.random() < 0.5):
        colour = _pick(rng, list(shown))
        return {"colour": colour}, "yes", shown[colour]
    return {"colour": _pick(rng, absent)}, "no", None


def _number_at(rng: np.random.Generator, scene: Scene) -> Drawn | None:
    card = _card(rng, scene)
    if card is None:
        return None
    return {"clock": clock(card.start_s)}, str(card.number), card.start_s


def _exists(rng: np.random.Generator, scene: Scene) -> Drawn | None:
    shown = {(s.colour, s.shape): s.start_s for s in scene.segments}
    if rng.random() < 0.5:
        colour, shape = _pick(rng, list(shown))
        return {"colour": colour, "shape": shape}, "yes", shown[colour, shape]
    near = _pick(rng, scene.segments)  # half of the absent ones share a colour or a shape
    colour = near.colour if rng.random() < 0.25 else _pick(rng, list(COLOURS))
    shape = near.shape if rng.random() < 0.25 else _pick(rng, SHAPES)
    fields = {"colour": colour, "shape": shape}
    return None if (colour, shape) in shown else (fields, "no", None)


def _colour(rng: np.random.Generator, scene: Scene) -> Drawn | None:
    segment = _pick(rng, scene.segments)
    colours = {s.colour for s in scene.segments if s.shape == segment.shape}
    return (
        ({"shape": segment.shape}, segment.colour, segment.start_s) if len(colours) == 1 else None
    )


def _shape(rng: np.random.Generator, scene: Scene) -> Drawn | None:
    segment = _pick(rng, scene.segments)
    shapes = {s.shape for s in scene.segments if s.colour == segment.colour}
    return (
        ({"colour": segment.colour}, segment.shape, segment.start_s) if len(shapes) == 1 else None
    )


def _only(rng: np.random.Generator, scene: Scene) -> Segment | None:
    """Return a segment whose object appears in no other segment."""
    segment = _pick(rng, scene.segments)
    same = [s for s in scene.segments if (s.colour, s.shape) == (segment.colour, segment.shape)]
    return segment if len(same) == 1 else None


def _object_fields(segment: Segment) -> dict[str, str]:
    return {"colour": segment.colour, "shape": segment.shape}


def _when_object(rng: np.random.Generator, scene: Scene) -> Drawn | None:
    segment = _only(rng, scene)
    if segment is None:
        return None
    return _object_fields(segment), clock(segment.start_s), segment.start_s


def _object_at(rng: np.random.Generator, scene: Scene) -> Drawn | None:
    segment = _pick(rng, scene.segments)
    moment = segment.start_s + 2 * int(
        rng.integers(max(1, int(segment.end_s - segment.start_s) // 2))
    )
    return {"clock": clock(moment)}, f"{segment.colour} {segment.shape}", moment


def _end_card(index: int) -> Callable[[np.random.Generator, Scene], Drawn | None]:
    def draw(rng: np.random.Generator, scene: Scene) -> Drawn | None:
        card = scene.cards[index] if scene.cards else None
        return None if card is None else ({}, str(card.number), card.start_s)

    return draw


def _end_object(index: int) -> Callable[[np.random.Generator, Scene], Drawn | None]:
    def draw(rng: np.random.Generator, scene: Scene) -> Drawn | None:
        segment = scene.segments[index]
        return {}, f"{segment.colour} {segment.shape}", segment.start_s

    return draw


def _background(rng: np.random.Generator, scene: Scene) -> Drawn | None:
    segment = _only(rng, scene)
    if segment is None:
        return None
    return _object_fields(segment), segment.background, segment.start_s


def _motion(rng: np.random.Generator, scene: Scene) -> Drawn | None:
    segment = _only(rng, scene)
    if segment is None:
        return None
    return _object_fields(segment), segment.motion, segment.start_s


def _number_during(rng: np.random.Generator, scene: Scene) -> Drawn | None:
    """Ask for a card well after it came and well before it goes."""
    card = _card(rng, scene)
    moment = None if card is None else _during(rng, card)
    if card is None or moment is None:
        return None
    return {"clock": clock(moment)}, str(card.number), moment


def _object_during(rng: np.random.Generator, scene: Scene) -> Drawn | None:
    """Ask for an object well after it came and well before it goes, no card being shown."""
    segment = _pick(rng, scene.segments)
    moment = _during(rng, segment)
    if moment is None or any(c.start_s - 2 <= moment <= c.end_s + 2 for c in scene.cards):
        return None
    if segment.end_s - moment < scene.fade_s:
        return None
    return {"clock": clock(moment)}, f"{segment.colour} {segment.shape}", moment


def _during(rng: np.random.Generator, shown: Card | Segment) -> float | None:
    """A whole second inside a stretch, 3 s from either end; None if it is too short."""
    first, last = int(np.ceil(shown.start_s)) + 3, int(shown.end_s) - 3
    return float(rng.integers(first, last)) if last > first else None


def _how_long(rng: np.random.Generator, scene: Scene) -> Drawn | None:
    card = _card(rng, scene)
    if card is None:
        return None
    return {"colour": card.colour}, f"{card.end_s - card.start_s:.0f} s", card.start_s


def _count(rng: np.random.Generator, scene: Scene) -> Drawn | None:
    return {}, str(len(scene.cards)), None


_DRAW: dict[str, Callable[[np.random.Generator, Scene], Drawn | None]] = {
    "number": _number,
    "when_card": _when_card,
    "order": _order,
    "card_exists": _card_exists,
    "number_at": _number_at,
    "exists": _exists,
    "colour": _colour,
    "shape": _shape,
    "when_object": _when_object,
    "object_at": _object_at,
    "first_card": _end_card(0),
    "last_card": _end_card(-1),
    "first_object": _end_object(0),
    "last_object": _end_object(-1),
    "background": _background,
    "motion": _motion,
    "count": _count,
    "number_during": _number_during,
    "object_during": _object_during,
    "how_long": _how_long,
}


_ACCEPTS: dict[str, Literal["clock", "seconds"]] = {
    "when_card": "clock",
    "when_object": "clock",
    "how_long": "seconds",
}


def draw_question(rng: np.random.Generator, scene: Scene, kind: str) -> Question | None:
    """Draw one question of a kind, or None where the scene has no unambiguous one just now."""
    drawn = _DRAW[kind](rng, scene)
    if drawn is None:
        return None
    fields, answer, time_s = drawn
    text = _pick(rng, (TEMPLATES | HELD_TEMPLATES)[kind]).format(**fields)
    return Question(kind, text, answer, time_s, _ACCEPTS.get(kind, "words"))


def make_questions(
    scene: Scene, n: int, seed: int, kinds: Sequence[str] | None = None
) -> list[Question]:
    """Return up to n different questions, the kinds taken in turn.

    Raises:
        ValueError: an unknown kind.
    """
    kinds = KINDS if kinds is None else tuple(kinds)
    if unknown := [k for k in kinds if k not in _DRAW]:
        raise ValueError(f"unknown question kinds {unknown}: choose from {', '.join(_DRAW)}")
    rng = np.random.default_rng((seed, scene.seed))
    found: dict[str, Question] = {}
    for i in range(20 * n):
        question = draw_question(rng, scene, kinds[i % len(kinds)])
        if question is not None and len(found) < n:
            found.setdefault(question.text, question)
    return list(found.values())


def parse_clock(text: str) -> float | None:
    """Return the first clock time in a text (M:SS or H:MM:SS) in seconds, or None."""
    match = re.search(r"(?:(\d+):)?(\d+):([0-5]\d)", text)
    if match is None:
        return None
    hours, minutes, seconds = (int(g or 0) for g in match.groups())
    return float(3600 * hours + 60 * minutes + seconds)


def parse_seconds(text: str) -> float | None:
    """Return the first length of time in a text, as a clock time or a number, in seconds."""
    as_clock = parse_clock(text)
    number = re.search(r"\d+(?:\.\d+)?", text)
    return as_clock if as_clock is not None else float(number.group()) if number else None


def grade(question: Question, answer_text: str, tolerance_s: float = 2.0) -> bool:
    """Return whether an answer is right: its leading words, or its time within a tolerance."""
    if question.accepts == "clock":
        answered, wanted = parse_clock(answer_text), parse_clock(question.answer)
        return answered is not None and wanted is not None and abs(answered - wanted) <= tolerance_s
    if question.accepts == "seconds":
        told, shown = parse_seconds(answer_text), parse_seconds(question.answer)
        return told is not None and shown is not None and abs(told - shown) <= tolerance_s
    words = re.findall(r"[a-z0-9]+", answer_text.lower())
    while words and words[0] in ("the", "a", "an"):
        words = words[1:]
    wanted_words = question.answer.lower().split()
    return words[: len(wanted_words)] == wanted_words
