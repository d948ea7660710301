"""Find what happens between the frames that were sampled: moments that none of them shows.

Every frame is decoded, but looked at very small. That costs what decoding costs, which is little
beside a language model's reading, and it is done once a video.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retake_edge.video.read import FrameBatch

SIDE_PX = 24
"""Frames are looked at this small, width and height."""
_GAPS_AROUND = 8
_LEAST = 2.0  # grey levels, the mean over a frame: no more is noise
_SAME_S = 1e-5  # two times so close are one

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Moment:
    """Something that no sampled frame shows, between two of them.

    `start_s`: its first frame's time; `novelty`: how far it is from the sampled frames on both
    sides, in grey levels (mean over the picture), more than is usual around.
    """

    start_s: float
    novelty: float


def unseen_moments(batches: Iterable[FrameBatch], times_s: Doubles) -> list[Moment]:
    """Return the moments between samples at `times_s` f64 [n], the most novel first.

    `batches`: small frames uint8 [n, h, w, 3] of the whole part, several between two samples. A
    frame is as novel as it differs from the nearer of the sampled frames before and after it: a
    cut is not, and a movement from one to the other little. Where much moves all the time, only
    what stands out counts: the median of the gaps around is taken off. Each gap gives one at most.
    """
    gaps = [_most_novel(*gap) for gap in _gaps(batches, times_s)]
    novelty = np.array([moment.novelty for moment in gaps])
    found = []
    for i, moment in enumerate(gaps):
        around = novelty[max(0, i - _GAPS_AROUND) : i + _GAPS_AROUND + 1]
        excess = moment.novelty - float(np.median(around))
        if excess > _LEAST:
            found.append(Moment(moment.start_s, excess))
    return sorted(found, key=lambda moment: -moment.novelty)


_Frame = tuple[float, Floats]


def _gaps(
    batches: Iterable[FrameBatch], times_s: Doubles
) -> Iterator[tuple[Floats, list[_Frame], Floats | None]]:
    """Yield each sampled frame, those up to the next one, and that (None at the end)."""
    before: Floats | None = None
    gap: list[_Frame] = []
    at = -1
    for batch in batches:
        small = batch.frames.astype(np.float32).reshape(len(batch.frames), -1)
        for time_s, frame in zip(batch.times_s.tolist(), small, strict=True):
            sample = int(np.searchsorted(times_s, time_s + _SAME_S, "right")) - 1
            if sample == at and before is not None:
                gap.append((time_s, frame))
                continue
            if before is not None:
                yield before, gap, frame
            at, before, gap = sample, frame, []
    if before is not None:
        yield before, gap, None


def _most_novel(before: Floats, gap: list[_Frame], after: Floats | None) -> Moment:
    if not gap:
        return Moment(0.0, 0.0)
    frames = np.stack([frame for _, frame in gap])
    novelty = np.abs(frames - before).mean(axis=1)
    if after is not None:
        novelty = np.minimum(novelty, np.abs(frames - after).mean(axis=1))
    best = int(novelty.argmax())
    # It may have begun in the frame before, which then is nearly as novel.
    first = best - 1 if best and novelty[best - 1] > novelty[best] / 2 else best
    return Moment(gap[first][0], float(novelty[best]))
