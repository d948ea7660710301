"""Where an answer looked: attention over KV cells, to weights of frames, to spans of time.

Pure numpy: `retake_edge.attention` records the attention, `VideoMap` knows each cell's frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retake_edge.clock import clock

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]

MAX_SPANS = 3
_JOIN = 0.25  # of the span's best frame: what a neighbour needs to belong to the span
_LEAST = 0.3  # of the best span's weight: what another span needs to be told
_ABOVE_EVEN = 2.0  # times the even share: what the best frame needs, or nothing stands out


@dataclass(frozen=True)
class Span:
    """A stretch of the video that the answer attended to.

    `weight`: its share of the attention paid to the video, in (0, 1]. `frame_times_s`: the times
    of its grid frames; the span ends where the frame after them begins.
    """

    start_s: float
    end_s: float
    weight: float
    frame_times_s: tuple[float, ...]

    def __str__(self) -> str:
        first, last = clock(self.start_s), clock(self.end_s)
        return first if first == last else f"{first}-{last}"


def frame_weights(attention: Floats, cell_frames: Ints, n_frames: int) -> Floats:
    """Return each grid frame's share of an answer's attention, f32 [n_frames], in all 1.

    Only the later half of the layers counts: the first ones look at what is near or bright, not
    yet at what was asked (measured by scripts/evaluate_evidence.py).

    `attention` f32 [n_layer, n_cells]; `cell_frames` int32 of the same shape: the grid frame of
    each cell, -1 - frame for clock text, which counts for the frame it precedes.
    """
    late = slice(len(attention) // 2, None)
    frames = np.where(cell_frames < 0, -1 - cell_frames, cell_frames)[late]
    weights = np.zeros(n_frames)
    for layer, layer_frames in zip(attention[late], frames, strict=True):
        weights += np.bincount(layer_frames, weights=layer, minlength=n_frames)
    return np.asarray(weights / weights.sum(), np.float32)


def attended_spans(
    weights: Floats, times_s: Doubles, end_s: float, *, max_spans: int = MAX_SPANS
) -> list[Span]:
    """Return the spans that stand out in the attention, the heaviest first.

    `weights` f32 [T], `times_s` f64 [T] of the grid frames; `end_s`: where the last one ends. A
    span grows from its best frame over neighbours with at least a quarter of its weight. Nothing
    is returned where the attention is nearly even: the answer then looked nowhere in particular.
    """
    left = np.asarray(weights, np.float64).copy()
    ends = np.append(times_s[1:], end_s)
    found: list[Span] = []
    while len(found) < max_spans and left.max() > _ABOVE_EVEN / len(left):
        first, last = _grown(left, int(left.argmax()))
        part = slice(first, last + 1)
        share = float(left[part].sum())
        if found and share < _LEAST * found[0].weight:
            break
        start_s, frames = float(times_s[first]), tuple(times_s[part].tolist())
        found.append(Span(start_s, float(ends[last]), share, frames))
        left[part] = 0.0
    return sorted(found, key=lambda span: -span.weight)


def _grown(weights: Doubles, peak: int) -> tuple[int, int]:
    """The first and last frame of the span around a peak."""
    enough = weights >= _JOIN * weights[peak]
    first = last = peak
    while first > 0 and enough[first - 1]:
        first -= 1
    while last + 1 < len(weights) and enough[last + 1]:
        last += 1
    return first, last


def evidence_line(spans: Sequence[Span]) -> str:
    """Return the spans as one line in order of time, '' if there are none."""
    ordered = sorted(spans, key=lambda span: span.start_s)
    return "  ".join(["evidence", *map(str, ordered)]) if ordered else ""
