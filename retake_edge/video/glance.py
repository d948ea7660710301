"""Find what a reading did not see: moments between its frames, and frames of which nothing is kept.

Frames are looked at very small, once a video: while the sampled ones are decoded, which costs less
than to decode it all once more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

SIDE_PX = 24
"""Frames are looked at this small, width and height."""
SEEN_PX = 12
"""Sampled frames are remembered this small."""
_GAPS_AROUND = 8
_LEAST = 2.0  # grey levels, the mean over a frame: no more is noise
_SAME_S = 1e-5  # two times so close are one

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Pictures = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Moment:
    """Something that no frame shows of those that count as seen, between two of them.

    `start_s`: its first frame's time; `novelty`: how far it is from the seen frames on both
    sides, in grey levels (mean over the picture), more than is usual around.
    """

    start_s: float
    novelty: float


@dataclass(frozen=True)
class Glanced:
    """What a glance at a video found.

    `moments` between the sampled frames, the most novel first; the sampled frames' times `seen_s`
    f64 [n], and they themselves, `seen` uint8 [n, SEEN_PX, SEEN_PX, 3].
    """

    moments: list[Moment]
    seen_s: Doubles
    seen: Pictures

    def dropped(self, is_kept: Bools) -> list[Moment]:
        """Return the moments that no sampled frame shows of which something is kept.

        `is_kept` bool [n].
        """
        kept = np.flatnonzero(is_kept)
        small = self.seen.reshape(len(self.seen), -1).astype(np.float32)
        edges = [-1, *kept.tolist(), len(small)]
        gaps = []
        for before, after in pairwise(edges):
            between = [(float(self.seen_s[i]), small[i]) for i in range(before + 1, after)]
            sides = [small[i] for i in (before, after) if 0 <= i < len(small)]
            if sides and between:
                gaps.append(_most_novel(between, sides))
        return _standing_out(gaps)


class Glance:
    """Looks at small frames in order, and finds the moments between samples at `seen_s` [n].

    A frame is as novel as it differs from the nearer of the sampled frames before and after it: a
    cut is not, and a movement from one to the other little. Each gap gives one moment at most.
    """

    def __init__(self, seen_s: Sequence[float]) -> None:
        self._wanted_s = np.asarray(seen_s, np.float64)
        self._gap: list[tuple[float, Floats]] = []  # frames since the last sampled one
        self._at = -1
        self._found: list[Moment] = []
        self._seen: list[tuple[float, Pictures]] = []
        self._before: Floats | None = None

    def add(self, time_s: float, frame: Pictures) -> None:
        """Look at the next frame, uint8 [SIDE_PX, SIDE_PX, 3]."""
        small = frame.astype(np.float32)
        at = int(np.searchsorted(self._wanted_s, time_s + _SAME_S, "right")) - 1
        if at == self._at and self._before is not None:
            self._gap.append((time_s, small.ravel()))
            return
        self._end_gap(small.ravel())
        self._at, self._before = at, small.ravel()
        blocks = small.reshape(SEEN_PX, -1, SEEN_PX, SIDE_PX // SEEN_PX, 3)
        self._seen.append((time_s, blocks.mean((1, 3)).round().astype(np.uint8)))

    def found(self) -> Glanced:
        """Return what was found up to the last frame."""
        self._end_gap(None)
        self._before = None
        seen_s = np.array([time_s for time_s, _ in self._seen], np.float64)
        seen = np.array([picture for _, picture in self._seen], np.uint8)
        return Glanced(_standing_out(self._found), seen_s, seen.reshape(-1, SEEN_PX, SEEN_PX, 3))

    def _end_gap(self, after: Floats | None) -> None:
        if self._before is not None:
            sides = [self._before] if after is None else [self._before, after]
            self._found.append(_most_novel(self._gap, sides))
        self._gap = []


def _standing_out(gaps: Sequence[Moment]) -> list[Moment]:
    """The moments that are more novel than those of the gaps around, the most novel first.

    Where much moves all the time, only what stands out counts: the median is taken off.
    """
    novelty = np.array([moment.novelty for moment in gaps])
    found = []
    for i, moment in enumerate(gaps):
        around = novelty[max(0, i - _GAPS_AROUND) : i + _GAPS_AROUND + 1]
        excess = moment.novelty - float(np.median(around))
        if excess > _LEAST:
            found.append(Moment(moment.start_s, excess))
    return sorted(found, key=lambda moment: -moment.novelty)


def _most_novel(gap: list[tuple[float, Floats]], sides: list[Floats]) -> Moment:
    """The frame of a gap that is furthest from the frames on its sides."""
    if not gap:
        return Moment(0.0, 0.0)
    frames = np.stack([frame for _, frame in gap])
    novelty = np.min([np.abs(frames - side).mean(axis=1) for side in sides], axis=0)
    best = int(novelty.argmax())
    # It may have begun in the frame before, which then is nearly as novel.
    first = best - 1 if best and novelty[best - 1] > novelty[best] / 2 else best
    return Moment(gap[first][0], float(novelty[best]))
