"""Scenes with events that sampled frames may miss, and questions about what is not there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from retake_edge.bench.scenes.questions import TEMPLATES, Question
from retake_edge.bench.scenes.scene import COLOURS, SHAPES, Scene, make_scene

GRID = 8
"""Events begin at any of so many moments of a second; the video has so many frames in it."""


def make_brief_scene(
    seed: int, seconds: float, *, n_cards: int, card_s: float, difficulty: str = "mixed"
) -> Scene:
    """Make a scene whose cards stay for `card_s` and begin anywhere within a second.

    Raises:
        ValueError: as `make_scene`.
    """
    scene = make_scene(seed, seconds, difficulty=difficulty, n_cards=n_cards, card_s=1)
    rng = np.random.default_rng((seed, GRID))
    cards = []
    for card in scene.cards:
        start_s = card.start_s + int(rng.integers(GRID)) / GRID
        cards.append(replace(card, start_s=start_s, end_s=min(start_s + card_s, seconds)))
    return replace(scene, cards=tuple(cards))


def absent_questions(scene: Scene, n: int) -> list[Question]:
    """Return up to n questions about cards and objects that the scene does not show.

    No answer is right but one that says so: their `answer` is empty.
    """
    rng = np.random.default_rng((scene.seed, 1))
    cards = [c for c in COLOURS if c not in {card.colour for card in scene.cards}]
    shown = {(segment.colour, segment.shape) for segment in scene.segments}
    objects = [(c, s) for c in COLOURS for s in SHAPES if (c, s) not in shown]
    texts: dict[str, str] = {}
    for i in range(8 * n):
        kind = ("number", "when_card", "when_object", "motion")[i % 4]
        template = TEMPLATES[kind][int(rng.integers(len(TEMPLATES[kind])))]
        if kind in ("number", "when_card"):
            if not cards:
                continue
            text = template.format(colour=cards[int(rng.integers(len(cards)))])
        else:
            colour, shape = objects[int(rng.integers(len(objects)))]
            text = template.format(colour=colour, shape=shape)
        if len(texts) < n:
            texts.setdefault(text, kind)
    return [Question(kind, text, "") for text, kind in texts.items()]
