"""Questions about what a scene does not show, of the kinds that are asked about what it shows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import product

import numpy as np

from retake_edge.bench.scenes.questions import TEMPLATES, Question, clock
from retake_edge.bench.scenes.scene import COLOURS, SHAPES, Scene

_CLEAR_S = 2.0  # from a card: the time of its answer may be off by as much


def _no_card(scene: Scene) -> list[dict[str, str]]:
    shown = {card.colour for card in scene.cards}
    return [{"colour": colour} for colour in COLOURS if colour not in shown]


def _no_object(scene: Scene) -> list[dict[str, str]]:
    shown = {(segment.colour, segment.shape) for segment in scene.segments}
    return [
        {"colour": colour, "shape": shape}
        for colour, shape in product(COLOURS, SHAPES)
        if (colour, shape) not in shown
    ]


def _no_shape(scene: Scene) -> list[dict[str, str]]:
    shown = {segment.shape for segment in scene.segments}
    return [{"shape": shape} for shape in SHAPES if shape not in shown]


def _no_colour(scene: Scene) -> list[dict[str, str]]:
    shown = {segment.colour for segment in scene.segments}
    return [{"colour": colour} for colour in COLOURS if colour not in shown]


def _between_cards(scene: Scene) -> list[dict[str, str]]:
    def is_clear(time_s: int) -> bool:
        return all(
            time_s < card.start_s - _CLEAR_S or time_s > card.end_s + _CLEAR_S
            for card in scene.cards
        )

    return [{"clock": clock(t)} for t in range(int(scene.seconds)) if is_clear(t)]


_ABSENT: dict[str, Callable[[Scene], list[dict[str, str]]]] = {
    "number": _no_card,
    "when_card": _no_card,
    "number_at": _between_cards,
    "colour": _no_shape,
    "shape": _no_colour,
    "when_object": _no_object,
    "background": _no_object,
    "motion": _no_object,
}
"""Fields of a question of each kind that the scene has no answer to."""
ABSENT_KINDS = tuple(_ABSENT)


def absent_questions(scene: Scene, kinds: Iterable[str]) -> list[Question]:
    """Return questions about what the scene does not show, all different.

    One for each of `kinds` that is in ABSENT_KINDS, as far as there are any. Their `answer` is
    empty: no answer is right but one that says so.
    """
    rng = np.random.default_rng((scene.seed, 2))
    found: dict[str, Question] = {}
    for kind in kinds:
        if (draw := _ABSENT.get(kind)) is None:
            continue
        texts = [
            text
            for template in TEMPLATES[kind]
            for fields in draw(scene)
            if (text := template.format(**fields)) not in found
        ]
        if texts:
            text = texts[int(rng.integers(len(texts)))]
            found[text] = Question(kind, text, "")
    return list(found.values())
