"""At which times a video is looked at: evenly, or more often where it changes.

Even times are a frame every 1 / fps seconds, or every so often that `max_frames` reach over the
video. Then an event between two of them is missed, and times that follow change see more:

- Half of the frames at least (SHARE) stay evenly spaced, so that no stretch is without one.
- The others go where pictures stand out (`video.change`); what finds no such place stays even.
- A model that joins frames to pairs gets a pair there, half a second apart, and no pair joins
  pictures from both sides of such a moment: where that would happen, the second frame of the pair
  before is brought forward to just before it. Pairs begin a second apart at least, so that each
  has its own place on a model's axis of time.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from retake_edge.video.change import Floats, change_strengths, changing_moments

if TYPE_CHECKING:
    from retake_edge.video.read import VideoInfo

SHARE = 0.5
"""The most of all frames that go where the video changes."""
GAP_S = 0.5
"""Between the frames at such a place, at least: the usual rate at which models saw videos."""
_LEAST_GAP_S = 0.05  # between two wanted times: more than twice what a time stamp is off


@dataclass(frozen=True)
class SampleTimes:
    """The wanted times: start_s + k * step_s for k < n, or `times_s` [n] where it is not empty.

    `step_s` is the mean distance then.
    """

    start_s: float
    step_s: float
    n: int
    times_s: tuple[float, ...] = ()

    @property
    def sampling(self) -> str:
        """Whether the times are `even`, or follow `change`."""
        return "change" if self.times_s else "even"

    @property
    def even_step_s(self) -> float:
        """Seconds between two times, 0 where they are not even."""
        return 0.0 if self.times_s else self.step_s

    @property
    def all_s(self) -> Floats:
        """All times, f64 [n]."""
        even_s = self.start_s + np.arange(self.n) * self.step_s
        return np.asarray(self.times_s or even_s, np.float64)

    @property
    def last_s(self) -> float:
        """The last time."""
        return self.times_s[-1] if self.times_s else self.start_s + (self.n - 1) * self.step_s


def time_grid(
    duration_s: float,
    *,
    fps: float,
    max_frames: int | None,
    start_s: float,
    end_s: float | None,
    first_s: float = 0.0,
) -> tuple[float, float, int]:
    """Return (start_s, step_s, n) of the even times start_s + k * step_s, k < n.

    Times before the first frame, at `first_s`, are left out, but for the last of them.

    The step is 1 / fps; where that gives more than `max_frames` times before the end, it is the
    larger step that spreads `max_frames` times evenly over [start, end).
    """
    end_s = duration_s if end_s is None else min(end_s, duration_s)
    start_s += max(0, math.floor((first_s - start_s) * fps + 1e-6)) / fps
    span_s = max(0.0, end_s - start_s)
    # The end itself is outside, also where the product misses a whole number by rounding.
    n = max(1, math.ceil(span_s * fps - 1e-6))
    if max_frames is None or n <= max_frames:
        return start_s, 1.0 / fps, n
    return start_s, span_s / max_frames, max_frames


def sample_times(
    video: VideoInfo,
    *,
    fps: float,
    max_frames: int | None,
    start_s: float = 0.0,
    end_s: float | None = None,
    sampling: str = "even",
    frames_per_step: int = 1,
) -> SampleTimes:
    """Return the times at which a video is looked at, `max_frames` at most.

    `sampling`: `even` or `change`. Both give the same times where all frames that `fps` asks for
    are within the limit, and where nothing stands out. `frames_per_step`: frames that are joined.
    """
    grid = time_grid(
        video.duration_s,
        fps=fps,
        max_frames=max_frames,
        start_s=start_s,
        end_s=end_s,
        first_s=video.first_s,
    )
    even = SampleTimes(*grid)
    is_limited = even.step_s > (1 + 1e-9) / fps
    if sampling == "even" or not is_limited or video.packets is None:
        return even
    gap_s = max(GAP_S, video.frame_s)
    n_moments = int(SHARE * even.n) // frames_per_step
    until_s = even.start_s + even.n * even.step_s
    moments = changing_moments(
        video.packets,
        change_strengths(video.packets),
        n_moments,
        after_s=even.start_s + frames_per_step * gap_s,
        until_s=until_s - gap_s,
        apart_s=(1 - 1e-6) * frames_per_step * gap_s,
    )
    if not moments:
        return even
    times_s = _woven(even.start_s, until_s, even.n, moments, frames_per_step, gap_s)
    return SampleTimes(even.start_s, (until_s - even.start_s) / len(times_s), len(times_s), times_s)


def _woven(
    start_s: float, end_s: float, n: int, moments: list[float], step: int, gap_s: float
) -> tuple[float, ...]:
    """Even times and `step` frames from each moment on, n at most, in order.

    Every `step` times from the first on are one grid frame; none of these reaches over a moment,
    and each begins step * gap_s after the one before.
    """
    n_even = n - step * len(moments)
    even = deque(start_s + k * (end_s - start_s) / n_even for k in range(n_even))
    found: list[float] = []
    for moment_s, next_s in zip(moments, [*moments[1:], end_s], strict=True):
        while even and even[0] < moment_s - _LEAST_GAP_S:
            found.append(even.popleft())
        n_open = -len(found) % step
        n_last = step - n_open
        has_room = found[-n_last] <= moment_s - (1 - 1e-6) * step * gap_s
        if not has_room or len(even) < n_open:
            del found[-n_last:]
        elif n_open:
            found += _closing(found[-1], moment_s, n_open, gap_s)
            for _ in range(n_open):
                even.popleft()
        inner_s = min(gap_s, (next_s - moment_s) / step)
        found += [moment_s + i * inner_s for i in range(step)]
        while even and even[0] < moment_s + step * gap_s:
            even.popleft()
    return (*found, *even)


def _closing(last_s: float, moment_s: float, n: int, gap_s: float) -> list[float]:
    """`n` times between the last one and a moment, as close before the moment as there is room."""
    gap_s = min(gap_s, (moment_s - last_s) / (n + 1))
    return [moment_s - (n - i) * gap_s for i in range(n)]
