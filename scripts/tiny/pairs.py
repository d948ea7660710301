"""Frame pairs with labels for every token: the ViT's training data, and the LM's feature bank.

A token covers a 28x28 cell of the 112x112 input, 4x4 cells a pair. A cell that an object or
card covers carries its attributes (slots); the background is a slot of every cell. Frames are
degraded as a video file would: rendered larger, JPEG with 4:2:0 chroma, blurred, area-resized.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from retake_edge.bench.scenes import scene as sc
from retake_edge.bench.scenes.render import draw_frame

SIDE, GRID = 112, 4
SLOTS: dict[str, tuple[str, ...]] = {
    "card": tuple(sc.COLOURS),
    "tens": tuple("123456789"),
    "ones": tuple("0123456789"),
    "shape": sc.SHAPES,
    "colour": tuple(sc.COLOURS),
    "motion": sc.MOTIONS,
    "background": sc.BACKGROUNDS,
}
GAPS_S = (0.25, 0.5, 1.0)
UNKNOWN = -100  # not counted in the loss


def degrade(rng: np.random.Generator, image: np.ndarray, quality: int) -> np.ndarray:
    """Imitate a video codec (quality 0: none) and resize to the model's input."""
    if quality:
        _ok, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
        image = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))[..., ::-1]
    if image.shape[0] != SIDE:
        image = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    if rng.random() < 0.1:
        image = cv2.GaussianBlur(image, (3, 3), float(rng.uniform(0.4, 0.8)))
    return image


def draw_size(rng: np.random.Generator) -> tuple[int, int]:
    """Draw a rendering size in pixels and a JPEG quality."""
    size = int(rng.choice((112, 160, 224, 320), p=(0.6, 0.1, 0.28, 0.02)))
    return size, int(rng.integers(25, 92)) if rng.random() < 0.6 else 0


def cell_cover(x: float, y: float, half_w: float, half_h: float) -> np.ndarray:
    """Return the share of each cell that a box covers, float [4, 4] (row, column)."""
    edges = np.arange(GRID + 1) / GRID

    def axis(centre: float, half: float) -> np.ndarray:
        low, high = np.maximum(edges[:-1], centre - half), np.minimum(edges[1:], centre + half)
        return np.asarray(np.maximum(high - low, 0) * GRID)

    return np.outer(axis(y, half_h), axis(x, half_w))


def object_cover(segment: sc.Segment, age_s: float) -> np.ndarray:
    """Return the share of each cell that the object's (slightly shrunk) box covers."""
    radius, (dx, dy) = segment.size / 2, sc.STEP[segment.motion]
    travel = segment.speed * age_s
    x, y = (
        (p + radius + d * travel) % (1 + 2 * radius) - radius
        for p, d in ((segment.x, dx), (segment.y, dy))
    )
    return cell_cover(x, y, 0.85 * radius, 0.85 * radius)


def _mark(cover: np.ndarray) -> np.ndarray:
    """Return the cells that count as covered, bool [4, 4]: by a quarter or most of it."""
    return cover > min(0.25, 0.6 * max(float(cover.max()), 0.08))


def cell_labels(
    segment: sc.Segment, cards: list[sc.Card | None], ages_s: list[float], mixed: bool
) -> np.ndarray:
    """Return class numbers, int16 [16, slots]; the last class of a slot is "none"."""
    labels = np.stack([np.full(GRID * GRID, len(v)) for v in SLOTS.values()], 1).astype(np.int16)
    names = list(SLOTS)
    hidden = np.zeros((GRID, GRID))
    shown = [c for c in cards if c is not None]
    if shown:
        card = shown[0]
        hidden = cell_cover(card.x, card.y, card.size / 2, card.size / 2)
        on = _mark(hidden).ravel()
        for name, value in (
            ("card", card.colour),
            ("tens", str(card.number)[0]),
            ("ones", str(card.number)[1]),
        ):
            labels[on, names.index(name)] = SLOTS[name].index(value)
    visible = len(shown) == len(cards)
    cover = np.maximum(*(object_cover(segment, a) for a in ages_s)) * (1 - hidden * visible)
    on = _mark(cover).ravel()
    faint = (cover.ravel() > 0.03) & ~on
    for name in ("shape", "colour", "motion"):
        column = names.index(name)
        labels[on, column] = SLOTS[name].index(getattr(segment, name))
        labels[faint, column] = UNKNOWN
        if mixed or cover.max() < 0.08:
            labels[cover.ravel() > 0, column] = UNKNOWN
    if mixed:
        labels[:, names.index("shape") :] = UNKNOWN
    else:
        labels[:, names.index("background")] = SLOTS["background"].index(segment.background)
    return labels


def random_pairs(rng: np.random.Generator, n: int = 4) -> list[tuple[np.ndarray, np.ndarray]]:
    """Draw n training pairs of one segment: uint8 [2, 112, 112, 3] and labels [16, slots]."""
    level = str(rng.choice(("easy", "mixed", "hard"), p=(0.15, 0.4, 0.45)))
    segment = sc.random_segment(rng, 0.0, 20.0, level)
    size_px, quality = draw_size(rng)
    drawn = []
    for _ in range(n):
        age, gap = float(rng.uniform(0, 12)), float(rng.choice(GAPS_S, p=(0.25, 0.55, 0.2)))
        card = None
        if rng.random() < 0.7:
            size = "mixed" if rng.random() < 0.5 else "hard"
            card = sc.random_card(rng, 0.0, 20.0, str(rng.choice(list(sc.COLOURS))), size)
        cards: list[sc.Card | None] = [card, card]
        if rng.random() < 0.12:
            cards[int(rng.integers(2))] = None
        mixed = rng.random() < 0.04
        other = sc.random_segment(rng, 0.0, 20.0, level) if mixed else segment
        images = [
            degrade(rng, draw_frame(s, c, t, size_px), quality)
            for s, c, t in ((segment, cards[0], age), (other, cards[1], age + gap))
        ]
        labels = cell_labels(segment, cards, [age, age + gap], mixed)
        drawn.append((np.stack(images), labels))
    return drawn


def clip_pairs(
    rng: np.random.Generator, n_plain: int, n_cards: int
) -> tuple[np.ndarray, sc.Segment, list[sc.Card]]:
    """Render one segment: plain pairs, then full, full and half-seen pairs of each card.

    Returns:
        Frames uint8 [n_plain + 3 * n_cards, 2, 112, 112, 3], the segment, and the cards.
    """
    level = str(rng.choice(("easy", "mixed", "hard"), p=(0.15, 0.4, 0.45)))
    segment = sc.random_segment(rng, 0.0, 40.0, level)
    if rng.random() < 0.1:
        segment = replace(segment, motion="still", noise=0.0, clutter=0, drift=0.0)
    size_px, quality = draw_size(rng)
    gap = float(rng.choice(GAPS_S, p=(0.2, 0.6, 0.2)))
    cards = [
        sc.random_card(
            rng,
            0.0,
            1.0,
            str(rng.choice(list(sc.COLOURS))),
            "mixed" if rng.random() < 0.5 else "hard",
        )
        for _ in range(n_cards)
    ]
    plan: list[tuple[sc.Card | None, sc.Card | None]] = [(None, None)] * n_plain
    for card in cards:
        plan += [(card, card), (card, card), (card, None) if rng.random() < 0.5 else (None, card)]
    pairs = []
    for first, second in plan:
        age = float(rng.uniform(0, 16))
        pairs.append(
            [
                degrade(rng, draw_frame(segment, c, t, size_px), quality)
                for c, t in ((first, age), (second, age + gap))
            ]
        )
    return np.array(pairs), segment, cards


def write_shard(path: str, seed: int, n: int) -> None:
    """Write n random pairs to a .npz file."""
    rng = np.random.default_rng(seed)
    drawn = [pair for _ in range(n // 4) for pair in random_pairs(rng)]
    np.savez(path, frames=np.stack([d[0] for d in drawn]), labels=np.stack([d[1] for d in drawn]))


if __name__ == "__main__":
    cv2.setNumThreads(1)
    out, first, last = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    for shard in range(first, last):
        write_shard(str(out / f"part{shard}"), 1000 + shard, 4000)
        (out / f"part{shard}.npz").rename(out / f"pairs{shard}.npz")
