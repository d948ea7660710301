"""Find where an answer looked: attention over KV cells, to weights of frames, to spans of time.

Pure numpy: `engine.attention` records the attention, `VideoMap` knows each cell's frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retake_edge.formats import clock

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]

MAX_SPANS = 3
_JOIN = 0.25  # of the span's best frame: what a neighbour needs to belong to the span
_LEAST = 0.4  # of the best span's weight: what another span needs to be told
_FLOOR = 0.15  # of all attention: what it needs, too
_GAP = 1  # frames between two spans that are told as one
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


def without_sinks(weights: Floats, idle: Floats) -> Floats:
    """Return the weights less what the first and the last frame get whatever is asked, in all 1.

    `weights`, `idle` f32 [T]: the shares of the frames in the attention of an answer, and in that
    of a row before its question. Source: attention sinks (Xiao et al. 2023, section 3.1).
    """
    left = np.asarray(weights, np.float64).copy()
    for edge in (0, -1):
        left[edge] = max(0.0, left[edge] - idle[edge])
    return np.asarray(left / left.sum() if left.sum() else weights, np.float32)


def attended_spans(
    weights: Floats, times_s: Doubles, end_s: float, *, max_spans: int = MAX_SPANS
) -> list[Span]:
    """Return the spans that stand out in the attention, the heaviest first.

    `weights` f32 [T], `times_s` f64 [T] of the grid frames; `end_s`: where the last one ends. A
    span grows from its best frame over neighbours with at least a quarter of its weight; spans
    with one frame between them are one. Nothing is returned where the attention is nearly even:
    the answer then looked nowhere in particular.
    """
    left = np.asarray(weights, np.float64).copy()
    found: list[tuple[int, int]] = []
    best = 0.0
    while len(found) < max_spans and left.max() > _ABOVE_EVEN / len(left):
        first, last = _grown(left, int(left.argmax()))
        share = float(left[first : last + 1].sum())
        if found and share < max(_LEAST * best, _FLOOR):
            break
        found.append((first, last))
        best = max(best, share)
        left[first : last + 1] = 0.0
    ends = np.append(times_s[1:], end_s)
    spans = [
        Span(
            float(times_s[first]),
            float(ends[last]),
            float(np.asarray(weights, np.float64)[first : last + 1].sum()),
            tuple(times_s[first : last + 1].tolist()),
        )
        for first, last in _merged(sorted(found))
    ]
    return sorted(spans, key=lambda span: -span.weight)


def _merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Join spans in order of time that have at most `_GAP` frames between them."""
    merged = spans[:1]
    for first, last in spans[1:]:
        if first - merged[-1][1] - 1 <= _GAP:
            merged[-1] = merged[-1][0], last
        else:
            merged.append((first, last))
    return merged


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
    """Return the spans as one line, the heaviest first with their shares; '' if there are none."""
    names = [f"{span} ({100 * span.weight:.0f} %)" for span in spans]
    return f"at {', '.join(names)}" if names else ""
