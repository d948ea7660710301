"""Places to look at again after a first answer: times that a question names, the seconds that the
answer looked at, and moments that nothing shows of what is kept.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

from retake_edge.formats import clock
from retake_edge.session.evidence import Doubles, Floats, Span
from retake_edge.video.glance import Moment

SURE = 0.9
"""From this probability of its tokens on, an answer is looked at in one place alone."""
_MOST_SPANS = 3
_TOUCH_S = 1e-6
_NAMED_S = 1.0  # a clock time says a second
_CLOCK = re.compile(r"(?<![\d:.])(?:(\d{1,2}):)?(\d{1,3}):([0-5]\d)(?![\d:])")


@dataclass(frozen=True)
class Grid:
    """The frames that a second look can take: start_s + i * step_s, up to end_s.

    `frames_per_step` of them make a grid frame.
    """

    start_s: float
    step_s: float
    end_s: float
    frames_per_step: int

    @property
    def n(self) -> int:
        """Frames there are."""
        return max(0, int(np.ceil((self.end_s - self.start_s) / self.step_s - 1e-6)))

    def time_s(self, frame: int) -> float:
        """Return the time of a frame."""
        return self.start_s + frame * self.step_s

    def at(self, time_s: float) -> float:
        """Return which frame is shown at a time; what lies between two is a fraction."""
        return (time_s - self.start_s) / self.step_s


class SampledGrid(Grid):
    """The frames that a first reading has sampled, in its grid frames at `times_s` f64 [T].

    They may be uneven; `end_s` ends the last one.
    """

    def __init__(self, times_s: Doubles, end_s: float, frames_per_step: int) -> None:
        start_s, end_s = float(times_s[0]), max(end_s, float(times_s[-1]))
        step_s = (_step_s(times_s) or end_s - start_s or 1.0) / frames_per_step
        super().__init__(start_s, step_s, end_s, frames_per_step)
        self._edges_s = np.append(times_s, end_s)

    @property
    def n(self) -> int:
        """Frames there are."""
        return self.frames_per_step * (len(self._edges_s) - 1)

    def time_s(self, frame: int) -> float:
        """Return the time of a frame."""
        steps = np.arange(len(self._edges_s))
        return float(np.interp(frame / self.frames_per_step, steps, self._edges_s))

    def at(self, time_s: float) -> float:
        """Return which frame is shown at a time; what lies between two is a fraction."""
        steps = np.arange(len(self._edges_s))
        return self.frames_per_step * float(np.interp(time_s, self._edges_s, steps))


@dataclass(frozen=True)
class Look:
    """Frames `first` to `first` + `n` - 1 of a grid, looked at again.

    `why`: 'named' in the question, 'evidence' of the first answer, or 'unseen' so far.
    """

    first: int
    n: int
    why: str


def looks(
    grid: Grid,
    n_frames: int,
    question: str,
    spans: Sequence[Span],
    weights: Floats | None,
    frame_times_s: Doubles,
    moments: Sequence[Moment],
    is_sure: bool,
    are_larger: bool,
) -> list[Look]:
    """Return what to look at again, in order of time, without overlaps: `n_frames` at most.

    `spans`, `weights` f32 [T]: where the first answer looked, the heaviest span first, and the
    share of each grid frame at `frame_times_s` f64 [T]. `is_sure`: of the first answer.
    `are_larger`: the frames, than those of the first reading.
    Half of the frames are for what was not seen, as far as there is any; the rest for the times
    that the question names, and for one span of a sure answer. Of an unsure one it is up to three,
    and frames that are left go to the grid frames with the largest shares, peaks first. If frames
    are larger, all go there: what was too small to be read may be misread with all certainty, and
    one frame shows as much of a moment as its whole span.
    """
    chosen = _Chosen(grid, n_frames)
    n_moments = min(len(moments), n_frames // 2 // grid.frames_per_step)
    n_close = n_frames - n_moments * grid.frames_per_step
    margin_s = _step_s(frame_times_s) / 2
    named = [s for s in named_times(question) if grid.start_s <= s < grid.end_s]
    for time_s in named:
        window = time_s, time_s + _NAMED_S + 2 * margin_s  # it may begin late in that second
        chosen.add(*window, time_s + _NAMED_S / 2, n_close // len(named), "named")
    n_spans = _MOST_SPANS
    if are_larger:
        n_spans = 0
    elif is_sure:
        n_spans, n_close = 1, min(n_close, n_frames // 2)
    spans = spans[:n_spans]
    for i, span in enumerate(spans):
        window = max(0.0, span.start_s - margin_s), span.end_s + margin_s
        share = max(0, n_close - chosen.n) // (len(spans) - i)
        chosen.add(*window, _heaviest_s(span, weights, frame_times_s), share, "evidence")
    if n_spans != 1 and weights is not None:
        for at_s in frame_times_s[_peaks_first(weights)]:
            window = float(at_s), float(at_s) + 2 * margin_s
            chosen.add(*window, sum(window) / 2, n_close - chosen.n, "evidence")
    added = (moment for moment in moments if chosen.add_moment(moment))
    for _ in islice(added, n_moments):
        pass
    return chosen.in_order()


def named_times(question: str) -> list[float]:
    """Return the clock times that a text names, in seconds (M:SS or H:MM:SS)."""
    return [
        3600.0 * int(hours or 0) + 60.0 * int(minutes) + int(seconds)
        for hours, minutes, seconds in _CLOCK.findall(question)
    ]


def _peaks_first(weights: Floats) -> npt.NDArray[np.intp]:
    """Return the order from the heaviest local peak to the lightest, then that of the rest."""
    around = np.concatenate([[-np.inf], weights, [-np.inf]])
    is_peak = (weights >= around[:-2]) & (weights > around[2:])
    return np.lexsort((-weights, ~is_peak))


def _heaviest_s(span: Span, weights: Floats | None, frame_times_s: Doubles) -> float:
    """The middle of the grid frame of a span that has the largest share."""
    inside = np.flatnonzero((frame_times_s >= span.start_s) & (frame_times_s < span.end_s))
    if weights is None or not len(inside):
        return (span.start_s + span.end_s) / 2
    best = int(inside[weights[inside].argmax()])
    return float(frame_times_s[best]) + _step_s(frame_times_s) / 2


def _step_s(frame_times_s: Doubles) -> float:
    return float(np.median(np.diff(frame_times_s))) if len(frame_times_s) > 1 else 0.0


class _Chosen:
    """Frames chosen so far, none of them twice."""

    def __init__(self, grid: Grid, n_most: int) -> None:
        self._grid, self._n_most = grid, n_most
        self._looks: list[Look] = []
        self._taken = np.zeros(grid.n, np.bool_)

    @property
    def n(self) -> int:
        """Frames chosen."""
        return int(self._taken.sum())

    def add(self, start_s: float, end_s: float, middle_s: float, n_most: int, why: str) -> None:
        """Add whole grid frames of a window: at most `n_most` frames around its middle."""
        step = self._grid.frames_per_step
        n_most = min(n_most, self._n_most - self.n) // step * step
        first, end = (
            min(self._grid.n, max(0, round(self._grid.at(s) / step) * step))
            for s in (start_s, end_s)
        )
        if end - first > n_most:
            middle = round((self._grid.at(middle_s) - n_most / 2) / step) * step
            first = min(max(first, middle), end - n_most)
            end = first + n_most
        self._take(first, end, why)

    def add_moment(self, moment: Moment) -> bool:
        """Add the grid frame that begins with a moment; return whether it was free."""
        first, step = max(0, round(self._grid.at(moment.start_s))), self._grid.frames_per_step
        end = min(self._grid.n, first + step)
        is_free = self.n + step <= self._n_most and not self._taken[first:end].any()
        if is_free:
            self._take(first, end, "unseen")
        return is_free

    def _take(self, first: int, end: int, why: str) -> None:
        """Take those of the frames that are free, in runs."""
        free = np.flatnonzero(~self._taken[first:end]) + first
        for run in np.split(free, np.flatnonzero(np.diff(free) > 1) + 1):
            if len(run):
                self._looks.append(Look(int(run[0]), len(run), why))
        self._taken[free] = True

    def in_order(self) -> list[Look]:
        """Return what was chosen, in order of time."""
        return sorted(self._looks, key=lambda look: look.first)


def shown_spans(spans: Sequence[tuple[float, float]]) -> str:
    """Return spans of seconds as people read them, those that touch as one."""
    joined: list[tuple[float, float]] = []
    for start_s, end_s in sorted(spans):
        if joined and start_s <= joined[-1][1] + _TOUCH_S:
            joined[-1] = joined[-1][0], max(end_s, joined[-1][1])
        else:
            joined.append((start_s, end_s))
    return ", ".join(f"{clock(start_s)}-{clock(np.ceil(end_s))}" for start_s, end_s in joined)
