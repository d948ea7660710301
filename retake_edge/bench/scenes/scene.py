"""Synthetic videos with known answers: the training data of the tiny model and a benchmark.

A scene is a list of segments (one moving object before one background) and a list of
number cards that appear for a moment. Everything follows from the seed: the description
is made first, any frame can be rendered from it at any time and size, and questions with
their answers come from the description alone (`retake_edge.bench.scenes.questions`). Segments and
cards begin on whole seconds, so that frames sampled at 1, 2 or 4 a second see whole events.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retake_edge.bench.scenes.overlays import Overlay

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 30, 35),
    "green": (30, 165, 60),
    "blue": (40, 70, 225),
    "yellow": (245, 225, 45),
    "purple": (150, 45, 185),
    "orange": (250, 135, 20),
    "cyan": (50, 205, 225),
    "white": (248, 248, 248),
}
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
BACKGROUNDS = ("plain", "stripes", "checks", "dots", "gradient", "waves")
STEP = {"still": (0, 0), "left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
"""Direction (right, down) of each motion."""
MOTIONS = tuple(STEP)
DIFFICULTIES = ("easy", "mixed", "hard")


@dataclass(frozen=True)
class Segment:
    """A stretch of video: one object before one background; lengths in frame sides."""

    start_s: float
    end_s: float
    shape: str
    colour: str
    motion: str
    background: str
    size: float = 0.45
    x: float = 0.5
    y: float = 0.5
    speed: float = 0.2  # frame sides a second
    tint: tuple[int, int, int] = (70, 75, 80)
    drift: float = 0.0  # the background's own speed, frame sides a second
    noise: float = 0.0  # standard deviation, grey levels
    clutter: int = 0  # random patches in every frame
    seed: int = 0


@dataclass(frozen=True)
class Card:
    """A coloured square with a two-digit number, shown over the segment for a moment."""

    start_s: float
    end_s: float
    colour: str
    number: int
    size: float = 0.8
    x: float = 0.5
    y: float = 0.5


@dataclass(frozen=True)
class Scene:
    """A whole video: segments without gaps, and cards in order of time.

    `overlays` lie over every frame; for the last `fade_s` seconds a segment passes into the next.
    """

    seed: int
    seconds: float
    segments: tuple[Segment, ...]
    cards: tuple[Card, ...]
    overlays: tuple[Overlay, ...] = ()
    fade_s: float = 0.0

    def segment_at(self, time_s: float) -> Segment:
        """Return the segment shown at a time (the last one beyond the end)."""
        for segment in self.segments:
            if time_s < segment.end_s:
                return segment
        return self.segments[-1]

    def card_at(self, time_s: float) -> Card | None:
        """Return the card shown at a time, or None."""
        return next((c for c in self.cards if c.start_s <= time_s < c.end_s), None)


# -- description ---------------------------------------------------------------------------


def random_segment(
    rng: np.random.Generator, start_s: float, end_s: float, difficulty: str
) -> Segment:
    """Draw one segment; `hard` adds clutter, noise and drifting backgrounds, `easy` has none."""
    calm = difficulty == "easy" or (difficulty == "mixed" and rng.random() < 0.35)
    size = rng.uniform(0.4, 0.6) if difficulty == "easy" else rng.uniform(0.32, 0.6)
    tint = rng.integers(35, 120, 3).tolist()
    return Segment(
        start_s=start_s,
        end_s=end_s,
        shape=str(rng.choice(SHAPES)),
        colour=str(rng.choice(list(COLOURS))),
        motion=str(rng.choice(MOTIONS)),
        background=str(rng.choice(BACKGROUNDS)),
        size=float(size),
        x=float(rng.uniform(size / 2, 1 - size / 2)),
        y=float(rng.uniform(size / 2, 1 - size / 2)),
        speed=float(rng.uniform(0.12, 0.3)),
        tint=(tint[0], tint[1], tint[2]),
        drift=0.0 if calm else float(rng.uniform(-0.3, 0.3)),
        noise=0.0 if calm else float(rng.uniform(0, 10)),
        clutter=0 if calm else int(rng.integers(0, 9 if difficulty == "hard" else 6)),
        seed=int(rng.integers(2**31)),
    )


def random_card(
    rng: np.random.Generator, start_s: float, end_s: float, colour: str, difficulty: str
) -> Card:
    """Draw one card: half to full width, on the quarters of the frame; full width when easy."""
    quarters = int(rng.choice({"easy": (4,), "mixed": (2, 3, 4), "hard": (2,)}[difficulty]))
    size = quarters / 4
    x, y = (float(v) / 4 + size / 2 for v in rng.integers(0, 5 - quarters, 2))
    return Card(start_s, end_s, colour, int(rng.integers(10, 100)), size, x, y)


def make_scene(
    seed: int,
    seconds: float,
    *,
    difficulty: str = "mixed",
    n_cards: int | None = None,
    card_s: float | None = None,
    segment_s: tuple[int, int] = (4, 16),
) -> Scene:
    """Make a scene from a seed.

    Args:
        seed: everything follows from it, together with the other arguments.
        seconds: length of the video.
        difficulty: `easy`, `mixed` or `hard` (short small cards, clutter, moving backgrounds).
        n_cards: number of cards, each of its own colour; by default up to 6 as room allows.
        card_s: how long a card stays; by default 1 to 3 s (`hard`: 1 s).
        segment_s: least and most whole seconds of a segment.

    Raises:
        ValueError: an unknown difficulty, less than 2 s, or more cards than colours or room.
    """
    if difficulty not in DIFFICULTIES:
        raise ValueError(f"difficulty must be one of {', '.join(DIFFICULTIES)}, not {difficulty!r}")
    if seconds < 2:
        raise ValueError(f"a scene needs at least 2 s, not {seconds}")
    rng = np.random.default_rng(seed)
    room = min(len(COLOURS), int(seconds) // 4)
    if n_cards is None:
        n_cards = int(rng.integers(1, 7)) if room else 0
        n_cards = min(n_cards, room)
    elif n_cards > room and not (n_cards == 1 and seconds >= 2):
        raise ValueError(f"{n_cards} cards do not fit: at most {room} in {seconds:g} s")
    return Scene(
        seed,
        float(seconds),
        _draw_segments(rng, seconds, segment_s, difficulty),
        _draw_cards(rng, seconds, n_cards, card_s, difficulty),
    )


def _draw_segments(
    rng: np.random.Generator, seconds: float, segment_s: tuple[int, int], difficulty: str
) -> tuple[Segment, ...]:
    """Fill the video with segments; a rest too short for one is added to the last."""
    segments: list[Segment] = []
    start = 0.0
    while start < seconds:
        end = start + int(rng.integers(segment_s[0], segment_s[1] + 1))
        if end + segment_s[0] > seconds:
            end = seconds
        segments.append(random_segment(rng, start, float(end), difficulty))
        start = end
    return tuple(segments)


def _draw_cards(
    rng: np.random.Generator, seconds: float, n_cards: int, card_s: float | None, difficulty: str
) -> tuple[Card, ...]:
    """Place cards of distinct colours in equal slots of the video, one a slot."""
    if n_cards == 0:
        return ()
    slot = seconds / n_cards
    colours = rng.permutation(list(COLOURS))[:n_cards]
    cards = []
    for i, colour in enumerate(colours):
        length = card_s or (1 if difficulty == "hard" else int(rng.integers(1, 4)))
        first, last = int(np.ceil(i * slot)), int((i + 1) * slot - min(length, slot))
        start = int(rng.integers(first, max(first, last) + 1))
        end = min(float(start + length), (i + 1) * slot if i + 1 < n_cards else seconds)
        cards.append(random_card(rng, float(start), end, str(colour), difficulty))
    return tuple(cards)
