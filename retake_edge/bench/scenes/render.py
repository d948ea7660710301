"""Drawing of a scene: any frame at any time and size, and the video file.

The same arguments give the same pixels.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from retake_edge.bench.scenes.scene import COLOURS, STEP, Card, Scene, Segment
from retake_edge.errors import VideoError
from retake_edge.video.mark import write_marked

_SHIFT = 4  # cv2 draws with 1/16 pixel precision
_DARK_TEXT = ("yellow", "orange", "cyan", "white", "green")


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
    step = STEP[segment.motion]
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
