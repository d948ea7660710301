"""Long scenes with brief events: cards that stay for a second, at any moment of hours of video."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from retake_edge.bench.scenes.footage import make_footage
from retake_edge.bench.scenes.scene import COLOURS, Card, Scene, make_scene, random_card

EVENT_KINDS = ("still", "moving", "cuts")
"""A camera's still view through which things pass; a moving view with noise and clutter that
stays for one to three minutes; the same with a cut every 4 to 16 seconds."""
GRID = 8
"""Events begin at any of so many moments of a second; the video has so many frames in it."""

_SEGMENT_S = {"moving": (60, 180), "cuts": (4, 16)}


def make_event_scene(
    kind: str, seed: int, seconds: float, n_events: int, event_s: float = 1.0
) -> Scene:
    """Make a scene with `n_events` cards of `event_s` seconds, one in each equal part of it.

    Up to eight cards are of different colours, so that questions can be asked of each.

    Raises:
        ValueError: an unknown kind, or no room for so many events.
    """
    if kind not in EVENT_KINDS:
        raise ValueError(f"the kind must be one of {', '.join(EVENT_KINDS)}, not {kind!r}")
    part_s = seconds / n_events
    if part_s < event_s + 2:
        raise ValueError(f"{n_events} events of {event_s:g} s do not fit into {seconds:g} s")
    if kind == "still":
        scene = make_footage("camera", seed, seconds)
    else:
        segment_s = _SEGMENT_S[kind]
        scene = make_scene(seed, seconds, difficulty="hard", n_cards=0, segment_s=segment_s)
    rng = np.random.default_rng((seed, EVENT_KINDS.index(kind), GRID))
    colours = np.concatenate(
        [rng.permutation(list(COLOURS)) for _ in range(-(-n_events // len(COLOURS)))]
    )
    return replace(
        scene,
        cards=tuple(
            _event(rng, i * part_s, part_s, str(colours[i]), event_s) for i in range(n_events)
        ),
    )


def _event(
    rng: np.random.Generator, from_s: float, part_s: float, colour: str, event_s: float
) -> Card:
    """A card somewhere in a part of the video, a second from its ends."""
    first = int(np.ceil((from_s + 1) * GRID))
    last = int((from_s + part_s - 1 - event_s) * GRID)
    start_s = int(rng.integers(first, max(first, last) + 1)) / GRID
    return random_card(rng, start_s, start_s + event_s, colour, "mixed")
