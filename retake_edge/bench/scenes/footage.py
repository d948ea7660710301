"""Scenes as most long videos are: little happens, and it must not be missed.

Every kind holds the objects and cards of `scenes.scene`, so that the same questions can be asked
of it, but for longer: a slide stays for half a minute, a camera sees one thing pass in a while.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np

from retake_edge.bench.scenes.overlays import Cursor, Flicker, Noise, Overlay, Speaker, Typing
from retake_edge.bench.scenes.scene import (
    COLOURS,
    Card,
    Scene,
    Segment,
    make_scene,
    random_card,
    random_segment,
)
from retake_edge.errors import ConfigError

STILL_KINDS = ("slides", "screen", "camera", "speaker", "flicker", "fades")
FOOTAGE = (*STILL_KINDS, "moving")
"""Kinds of footage; `moving` is an ordinary scene, hard for every other seed."""

_MOST_CARDS = 6


def require_footage(kinds: Iterable[str]) -> None:
    """Check the names of kinds of footage.

    Raises:
        ConfigError: one is unknown.
    """
    unknown = [kind for kind in kinds if kind not in FOOTAGE]
    if unknown:
        raise ConfigError(f"There is no footage {unknown[0]!r}; there are {', '.join(FOOTAGE)}.")


def make_footage(kind: str, seed: int, seconds: float) -> Scene:
    """Make a scene of a kind of footage from a seed.

    `slides`: still pictures of 15 to 45 s; `screen`: the same with a cursor that moves now and then
    and typed letters; `camera`: one view with sensor noise, through which things pass rarely;
    `speaker`: slides beside somebody who moves all the time; `flicker`: slides under a flickering
    lamp, with noise; `fades`: slides that pass into one another over 4 to 10 s; `moving`.

    Raises:
        ValueError: an unknown kind, or less than 16 s.
    """
    if kind not in FOOTAGE:
        raise ValueError(f"footage must be one of {', '.join(FOOTAGE)}, not {kind!r}")
    if seconds < 16:
        raise ValueError(f"footage needs at least 16 s, not {seconds}")
    if kind == "moving":
        return make_scene(seed, seconds, difficulty="hard" if seed % 2 else "mixed")
    rng = np.random.default_rng((seed, FOOTAGE.index(kind)))
    segments = _passing(rng, seconds) if kind == "camera" else _slides(rng, seconds)
    cards = _cards(rng, seconds, (1, 3) if kind == "camera" else (4, 20))
    overlays = _OVERLAYS[kind](rng) if kind in _OVERLAYS else ()
    fade_s = float(rng.uniform(4, 10)) if kind == "fades" else 0.0
    return Scene(seed, float(seconds), segments, cards, overlays, fade_s)


def _screen(rng: np.random.Generator) -> tuple[Overlay, ...]:
    seed = int(rng.integers(2**31))
    return Typing(seed), Cursor(seed, rest_s=float(rng.uniform(8, 20)))


def _camera(rng: np.random.Generator) -> tuple[Overlay, ...]:
    return (Noise(int(rng.integers(2**31)), float(rng.uniform(1, 4))),)


def _speaker(rng: np.random.Generator) -> tuple[Overlay, ...]:
    return (Speaker(int(rng.integers(2**31))),)


def _flicker(rng: np.random.Generator) -> tuple[Overlay, ...]:
    seed = int(rng.integers(2**31))
    return Flicker(seed, float(rng.uniform(0.01, 0.03))), Noise(seed, float(rng.uniform(1, 3)))


_OVERLAYS: dict[str, Callable[[np.random.Generator], tuple[Overlay, ...]]] = {
    "screen": _screen,
    "camera": _camera,
    "speaker": _speaker,
    "flicker": _flicker,
}


def _still(rng: np.random.Generator, start_s: float, end_s: float) -> Segment:
    """A picture in which nothing moves."""
    segment = random_segment(rng, start_s, end_s, "easy")
    return replace(segment, motion="still")


def _slides(rng: np.random.Generator, seconds: float) -> tuple[Segment, ...]:
    """Still pictures of 15 to 45 s, without gaps; a rest too short for one is added to the last."""
    segments, start = list[Segment](), 0.0
    while start < seconds:
        end = start + int(rng.integers(15, 46))
        end = seconds if end + 15 > seconds else end
        segments.append(_still(rng, start, float(end)))
        start = end
    return tuple(segments)


def _passing(rng: np.random.Generator, seconds: float) -> tuple[Segment, ...]:
    """One view for all of the video; every 20 to 60 s another object crosses it for 3 to 6 s."""
    view = _still(rng, 0.0, float(seconds))
    segments, start = list[Segment](), 0.0
    while start < seconds:
        end = start + int(rng.integers(20, 61))
        if end + 8 > seconds:
            segments.append(replace(view, start_s=start, end_s=float(seconds)))
            break
        until = end + int(rng.integers(3, 7))
        other = random_segment(rng, float(end), float(until), "easy")
        other = replace(other, background=view.background, tint=view.tint, seed=view.seed)
        segments += [replace(view, start_s=start, end_s=float(end)), other]
        start = float(until)
    return tuple(segments)


def _cards(rng: np.random.Generator, seconds: float, length_s: tuple[int, int]) -> tuple[Card, ...]:
    """Cards of distinct colours, one in each equal part of the video, shown for a while."""
    n = max(1, min(_MOST_CARDS, int(seconds) // (2 * length_s[1] + 4)))
    part = int(seconds) // n
    cards = list[Card]()
    for i, colour in enumerate(rng.permutation(list(COLOURS))[:n]):
        length = min(int(rng.integers(length_s[0], length_s[1] + 1)), part - 2)
        start = i * part + int(rng.integers(1, part - length))
        cards.append(random_card(rng, float(start), float(start + length), str(colour), "mixed"))
    return tuple(cards)
