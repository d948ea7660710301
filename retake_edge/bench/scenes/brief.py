"""Scenes with events that sampled frames may miss."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from retake_edge.bench.scenes.scene import Scene, make_scene

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
