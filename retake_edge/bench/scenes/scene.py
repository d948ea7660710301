"""Synthetic videos with known answers: the training data of the tiny model and a benchmark.

A scene is a list of segments (one moving object before one background) and a list of
number cards that appear for a moment. Everything follows from the seed: the description
is made first, any frame can be rendered from it at any time and size, and questions with
their answers come from the description alone (`retake_edge.bench.scenes.questions`). Segments and
cards begin on whole seconds, so that frames sampled at 1, 2 or 4 a second see whole events.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from retake_edge.bench.scenes.overlays import Overlay
from retake_edge.errors import VideoError
from retake_edge.video.mark import write_marked

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
MOTIONS = ("still", "left", "right", "up", "down")
DIFFICULTIES = ("easy", "mixed", "hard")

_STEP = {"still": (0, 0), "left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
_SHIFT = 4  # cv2 draws with 1/16 pixel precision
_DARK_TEXT = ("yellow", "orange", "cyan", "white", "green")


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


# -- rendering -----------------------------------------------------------------------------


def render_frame(scene: Scene, time_s: float, size_px: int = 224) -> np.ndarray:
    """Render one square frame, uint8 [size, size, 3] in RGB; same arguments, same pixels."""
    segment, card = scene.segment_at(time_s), scene.card_at(time_s)
    image = draw_frame(segment, card, time_s, size_px)
    passed = 1 - (segment.end_s - time_s) / scene.fade_s if scene.fade_s else 0.0
    if passed > 0 and segment is not scene.segments[-1]:
        after = draw_frame(scene.segment_at(segment.end_s), card, time_s, size_px)
        image = cv2.addWeighted(image, 1 - passed, after, passed, 0)
    for overlay in scene.overlays:
        overlay.draw(image, time_s)
    return image


def draw_frame(segment: Segment, card: Card | None, time_s: float, size_px: int) -> np.ndarray:
    """Draw background, object, clutter, card and noise, in this order, uint8 [size, size, 3]."""
    rng = np.random.default_rng((segment.seed, round(time_s * 1000)))
    age_s = time_s - segment.start_s
    image = _background(segment.background, segment.tint, segment.seed, size_px)
    image = np.roll(image, round(segment.drift * age_s * size_px), axis=1)
    _draw_object(image, segment, age_s)
    for _ in range(segment.clutter):
        _draw_clutter(image, rng)
    if card is not None:
        _draw_card(image, card)
    if segment.noise > 0:
        image = _add_noise(image, segment.noise, rng)
    return image


@lru_cache(maxsize=64)
def _background(kind: str, tint: tuple[int, int, int], seed: int, size: int) -> np.ndarray:
    """Return a background, uint8 [size, size, 3], of two tones of one dull colour."""
    rng = np.random.default_rng(seed)
    period, phase = rng.uniform(0.14, 0.3), rng.uniform(0, 1)
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size
    x, y = axis[None, :], axis[:, None]
    if kind == "stripes":
        tone = ((x / period + phase + 0 * y) % 1 < 0.5).astype(float)
    elif kind == "checks":
        tone = ((np.floor(x / period + phase) + np.floor(y / period + phase)) % 2).astype(float)
    elif kind == "dots":
        dx, dy = (x / period + phase) % 1 - 0.5, (y / period + phase) % 1 - 0.5
        tone = (dx**2 + dy**2 < 0.09).astype(float)
    elif kind == "gradient":
        tone = np.repeat(np.linspace(0, 1.6, size)[:, None], size, axis=1)
    elif kind == "waves":
        tone = ((y / period + phase + 0.25 * np.sin(2 * np.pi * x / 0.4)) % 1 < 0.5).astype(float)
    else:
        tone = np.zeros((size, size))
    low = np.array(tint, float)
    image: np.ndarray = np.clip(low + tone[..., None] * 45, 0, 255).astype(np.uint8)
    return image


def _point(x: float, y: float, size: int) -> tuple[int, int]:
    return round(x * size * (1 << _SHIFT)), round(y * size * (1 << _SHIFT))


def _outline(shape: str, radius: float) -> np.ndarray:
    """Return a polygon of float [n, 2] around the origin."""
    if shape == "square":
        corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * 0.82
    elif shape == "triangle":
        corners = np.array([[0, -1], [1, 0.8], [-1, 0.8]])
    elif shape == "star":
        angle = np.arange(10) * np.pi / 5 - np.pi / 2
        corners = np.stack([np.cos(angle), np.sin(angle)], 1)
        corners[1::2] *= 0.42
    else:  # cross
        a = 0.3
        corners = np.array(
            [
                *([-a, -1], [a, -1], [a, -a], [1, -a], [1, a], [a, a]),
                *([a, 1], [-a, 1], [-a, a], [-1, a], [-1, -a], [-a, -a]),
            ]
        )
    return corners * radius


def _draw_object(image: np.ndarray, segment: Segment, age_s: float) -> None:
    """Draw the object where its motion has taken it; it leaves one side and enters at the other."""
    size, radius = image.shape[0], segment.size / 2
    step = _STEP[segment.motion]
    travel = segment.speed * age_s
    x, y = (
        (p + radius + d * travel) % (1 + 2 * radius) - radius
        for p, d in zip((segment.x, segment.y), step, strict=True)
    )
    colour = COLOURS[segment.colour]
    if segment.shape in ("circle", "ring"):
        units = round(radius * size * (1 << _SHIFT) * (0.8 if segment.shape == "ring" else 0.92))
        width = -1 if segment.shape == "circle" else max(2, round(0.28 * radius * size))
        cv2.circle(image, _point(x, y, size), units, colour, width, cv2.LINE_AA, _SHIFT)
        return
    corners = (_outline(segment.shape, radius) + np.array([x, y])) * size * (1 << _SHIFT)
    cv2.fillPoly(image, [np.round(corners).astype(np.int32)], colour, cv2.LINE_AA, _SHIFT)


def _draw_clutter(image: np.ndarray, rng: np.random.Generator) -> None:
    """Draw one small patch of a random colour at a random place."""
    size = image.shape[0]
    x, y = (int(v) for v in rng.integers(0, size, 2))
    w, h = (int(v) for v in rng.integers(size // 24 + 1, size // 9 + 2, 2))
    colour = tuple(int(v) for v in rng.integers(0, 256, 3))
    cv2.rectangle(image, (x, y), (x + w, y + h), colour, -1)


def _draw_card(image: np.ndarray, card: Card) -> None:
    """Draw a square card with a dark rim and its number in large digits."""
    size, half = image.shape[0], 0.49 * card.size
    corner, opposite = (
        (round((card.x + side * half) * size), round((card.y + side * half) * size))
        for side in (-1, 1)
    )
    cv2.rectangle(image, corner, opposite, COLOURS[card.colour], -1)
    cv2.rectangle(image, corner, opposite, (15, 15, 15), max(1, size // 75))
    text, font = str(card.number), cv2.FONT_HERSHEY_DUPLEX
    width_px = card.size * size
    (w, h), _ = cv2.getTextSize(text, font, 1.0, 1)
    scale = min(0.8 * width_px / w, 0.62 * width_px / h)
    thick = max(1, round(0.05 * width_px))
    origin = (round(card.x * size - scale * w / 2), round(card.y * size + scale * h / 2))
    ink = (12, 12, 12) if card.colour in _DARK_TEXT else (250, 250, 250)
    cv2.putText(image, text, origin, font, scale, ink, thick, cv2.LINE_AA)


@lru_cache(maxsize=2)
def _noise_pool(size: int) -> np.ndarray:
    rng = np.random.default_rng(7)
    return rng.standard_normal((size * size * 3 * 2,), dtype=np.float32)


def _add_noise(image: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Add Gaussian noise of its own to every frame, cut from a fixed pool."""
    start = int(rng.integers(0, image.size))
    noise = _noise_pool(image.shape[0])[start : start + image.size].reshape(image.shape)
    noisy: np.ndarray = cv2.add(image, noise * sigma, dtype=cv2.CV_8U)
    return noisy


# -- files ---------------------------------------------------------------------------------


def frames(scene: Scene, fps: float, size_px: int) -> Iterator[np.ndarray]:
    """Yield the frames of a video one by one, uint8 [size, size, 3] in RGB."""
    for i in range(round(scene.seconds * fps)):
        yield render_frame(scene, i / fps, size_px)


def write_video(
    scene: Scene, path: str | Path, fps: float = 8.0, size_px: int = 224, codec: str = "mp4v"
) -> Path:
    """Write a scene as a video file, frame by frame, and return its path.

    The file is written under a temporary name beside it and renamed when it is whole. It gets the
    mark by which the bundled model's videos are known (`retake_edge.video.mark`).

    Raises:
        VideoError: the folder or codec cannot be used.
    """
    path = Path(path)
    suffix = path.suffix or ".mp4"
    part, marked = (
        path.with_name(f".{path.stem}.{os.getpid()}.{what}{suffix}") for what in ("part", "marked")
    )
    writer = cv2.VideoWriter(str(part), cv2.VideoWriter.fourcc(*codec), fps, (size_px, size_px))
    if not writer.isOpened():
        part.unlink(missing_ok=True)
        raise VideoError(f"cannot write {path} with codec {codec!r}: check the folder and codec")
    try:
        for frame in frames(scene, fps, size_px):
            writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
        writer.release()
        write_marked(part, marked)
        marked.replace(path)
    except OSError as error:
        raise VideoError(f"cannot write {path}: {error}") from error
    finally:
        writer.release()
        part.unlink(missing_ok=True)
        marked.unlink(missing_ok=True)
    return path
