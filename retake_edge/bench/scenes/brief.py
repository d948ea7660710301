"""Scenes with what a first reading may miss: brief events, quick repeats."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from retake_edge.bench.scenes.questions import Question
from retake_edge.bench.scenes.scene import COLOURS, Scene, make_scene, random_card

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


def make_repeat_scene(seed: int, seconds: float, *, on_s: float, off_s: float) -> Scene:
    """Make a scene in which two to six cards flash one after the other, at some moment of it.

    Each is shown for `on_s`, the next one `off_s` later; the video begins and ends without.

    Raises:
        ValueError: as `make_scene`, or they do not fit.
    """
    rng = np.random.default_rng((seed, GRID, 2))
    n = int(rng.integers(2, 7))
    last = int((seconds - 1 - n * (on_s + off_s)) * GRID)
    if last < GRID:
        raise ValueError(f"{n} flashes do not fit into {seconds:g} s")
    scene = make_scene(seed, seconds, difficulty="mixed", n_cards=0)
    start_s = int(rng.integers(GRID, last + 1)) / GRID
    colours = rng.permutation(list(COLOURS))[:n]
    starts = [start_s + i * (on_s + off_s) for i in range(n)]
    cards = (
        random_card(rng, at_s, at_s + on_s, str(colour), "mixed")
        for at_s, colour in zip(starts, colours, strict=True)
    )
    return replace(scene, cards=tuple(cards))


def colour_questions(scene: Scene) -> list[Question]:
    """Return a question about each colour, whether there is such a card: together they count."""
    shown = {card.colour: card.start_s for card in scene.cards}
    return [
        Question(
            "card_exists",
            f"Is there a {colour} card?",
            "yes" if colour in shown else "no",
            shown.get(colour),
        )
        for colour in COLOURS
    ]
