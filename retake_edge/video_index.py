"""Where the frames of an open video lie in time, and how to get to them (runs in the worker).

Facts about OpenCV 5.0's FFmpeg backend that this file is built on, each held by a test:
CAP_PROP_POS_MSEC after grab() is the exact presentation time of that frame, relative to the
stream's start time. With CAP_PROP_FORMAT = -1, grab() reads packets without decoding them, and
POS_MSEC is the packet's time. set(CAP_PROP_POS_MSEC) counts frames at the nominal rate: with a
variable rate it lands before or after the time asked for.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

# OpenCV's seek goes to the key frame before (target - 16 frames), then decodes up to the target.
OPENCV_SEEK_LEAD_FRAMES = 16
MIN_SEEK_GAIN_S = 1.0
FALLBACK_FRAME_S = 0.04
# A damaged packet makes one grab() fail like the end of the file does; the next may succeed.
MAX_FAILED_GRABS = 64


@dataclass(frozen=True)
class FrameIndex:
    """What demuxing tells about a file.

    `times_s`: sorted, first frame at 0. `key_times_s`: those of key frames. `zero_s`: POS_MSEC of
    the first frame. `by_count`: the decoder's own times are no use, count frames instead.
    `first_pts_s`, `last_pts_s`: on the file's absolute clock, to whole nominal frames.
    """

    times_s: list[float]
    key_times_s: list[float]
    zero_s: float
    by_count: bool
    can_seek: bool
    first_pts_s: float
    last_pts_s: float

    @property
    def gap_s(self) -> float:
        """Median distance of two frames; 0 for one frame."""
        gaps = sorted(b - a for a, b in zip(self.times_s, self.times_s[1:], strict=False))
        return round(gaps[len(gaps) // 2], 6) if gaps else 0.0

    def span(self, time_s: float, slack_s: float) -> tuple[float, float]:
        """Return the [from, until) in which the frame at `time_s` serves a wanted time.

        That is while it is shown, but `slack_s` early (at most half the distance to its
        neighbour), so that rounded time stamps do not fall just behind a wanted time.
        """
        at = bisect_right(self.times_s, time_s + 0.0005)
        before_s = self.times_s[at - 2] if at >= 2 else -math.inf
        after_s = self.times_s[at] if at < len(self.times_s) else math.inf
        from_s = time_s - min(slack_s, (time_s - before_s) / 2)
        return from_s, after_s - min(slack_s, (after_s - time_s) / 2)


class Clock:
    """Reads a frame's time, and undoes a jump of OpenCV's origin.

    CAP_PROP_POS_MSEC is relative to the stream's start time. FFmpeg may learn that start time
    only after some packets (Matroska with few frames a second), and from there on all times are
    smaller by it. CAP_PROP_PTS stays absolute, but is rounded to whole nominal frames.
    """

    def __init__(self, fps: float) -> None:
        self.frame_s = 1.0 / fps if fps > 0 and math.isfinite(fps) else 0.0
        self.origin_s: float | None = None
        self.shift_s = 0.0
        self.pts_s = 0.0  # absolute time of the last frame read, to whole nominal frames

    def read(self, capture: Any) -> float:
        """Return the time in seconds of the frame (or packet) that was grabbed last."""
        import cv2

        pos_s = float(capture.get(cv2.CAP_PROP_POS_MSEC)) / 1000.0
        pts = float(capture.get(cv2.CAP_PROP_PTS))
        if self.frame_s == 0.0 or not abs(pts) < 1e15:
            return pos_s + self.shift_s
        self.pts_s = pts * self.frame_s
        offset_s = self.pts_s - pos_s
        if self.origin_s is None:
            self.origin_s = offset_s
        elif abs(offset_s - self.origin_s - self.shift_s) > 1.5 * self.frame_s:
            self.shift_s = offset_s - self.origin_s
        return pos_s + self.shift_s


def grabbed(capture: Any) -> Iterator[None]:
    """Grab until nothing more comes, yielding after each success."""
    n_failed = 0
    while n_failed < MAX_FAILED_GRABS:
        if capture.grab():
            n_failed = 0
            yield
        else:
            n_failed += 1


def scan(capture: Any, beat: Callable[[], None]) -> FrameIndex | None:
    """Read every packet of a demux-only capture; None if there is none that can be decoded."""
    import cv2

    clock = Clock(float(capture.get(cv2.CAP_PROP_FPS)))
    packets: list[tuple[float, float]] = []  # time, absolute time
    key_times_s: list[float] = []
    for _ in grabbed(capture):
        is_key = capture.get(cv2.CAP_PROP_LRF_HAS_KEY_FRAME) > 0
        time_s = clock.read(capture)
        if is_key:
            key_times_s.append(time_s)
        # A recording cut out of a stream may begin with packets that need an earlier key frame.
        if key_times_s and time_s >= key_times_s[0]:
            packets.append((time_s, clock.pts_s))
        beat()
    if not packets:
        return None
    packets.sort()
    zero_s, first_pts_s = packets[0]
    times_s = [round(time_s - zero_s, 6) for time_s, _ in packets]
    key_times_s = sorted(round(time_s - zero_s, 6) for time_s in key_times_s)
    by_count = len(set(times_s)) <= len(times_s) // 2
    if by_count:  # a bare stream without time stamps: assume the nominal rate
        times_s = [index * (clock.frame_s or FALLBACK_FRAME_S) for index in range(len(times_s))]
    can_seek = not by_count and clock.shift_s == 0.0
    last_pts_s = packets[-1][1]
    return FrameIndex(times_s, key_times_s, zero_s, by_count, can_seek, first_pts_s, last_pts_s)


def compare_first_frame(decoder: Any, index: FrameIndex) -> FrameIndex:
    """Note whether the first decoded frame (just grabbed) has the first packet's time.

    It has not where packets carry decoding times only (AVI), which B frames delay: there the n-th
    frame has the n-th time of the index.
    """
    import cv2

    clock = Clock(float(decoder.get(cv2.CAP_PROP_FPS)))
    clock.read(decoder)
    if abs(clock.pts_s - index.first_pts_s) <= clock.frame_s / 2:
        return index
    return replace(index, by_count=True, can_seek=False)


@dataclass
class Goal:
    """The evenly spaced times still to be served: start_s + next * step_s for next < n."""

    start_s: float
    step_s: float
    n: int
    slack_s: float
    next: int = 0
    n_missed: int = 0

    @property
    def time_s(self) -> float:
        return self.start_s + self.next * self.step_s

    def first_from(self, time_s: float) -> int:
        """Return the number of the first time still to be served that is >= `time_s` (n: none)."""
        if time_s > self.start_s + self.n * self.step_s:
            return self.n
        # Not a loop over the times: a damaged time stamp can lie years ahead.
        at = max(self.next, min(self.n, math.ceil((time_s - self.start_s) / self.step_s)))
        while at > self.next and self.start_s + (at - 1) * self.step_s >= time_s:
            at -= 1
        while at < self.n and self.start_s + at * self.step_s < time_s:
            at += 1
        return at

    def wants(self, from_s: float, until_s: float) -> bool:
        """Is a wanted time in [from_s, until_s)? Moves on past all that are."""
        if from_s > self.time_s:
            at = self.first_from(from_s)
            self.n_missed += at - self.next
            self.next = at
        before = self.next
        self.next = self.first_from(until_s)
        return self.next > before


def frame_times(capture: Any, index: FrameIndex, beat: Callable[[], None]) -> Iterator[float]:
    """Grab frame after frame and yield the time of each, in seconds after the first frame."""
    import cv2

    clock = Clock(float(capture.get(cv2.CAP_PROP_FPS)))
    zero_s: float | None = None
    n_grabbed = 0
    for _ in grabbed(capture):
        beat()
        n_grabbed += 1
        if index.by_count:
            yield index.times_s[min(n_grabbed, len(index.times_s)) - 1]
            continue
        time_s = clock.read(capture)
        zero_s = time_s if zero_s is None else zero_s
        yield round(time_s - zero_s, 6)


def shown_frames(
    open_decoder: Callable[[], Any], index: FrameIndex, goal: Goal, beat: Callable[[], None]
) -> Iterator[tuple[float, Any]]:
    """Yield (time in seconds, capture that has just grabbed the frame), jumping towards `goal`.

    A jump that lands beyond the wanted time, or finds no frame, is made good by decoding again
    from the start without jumps: the caller then sees earlier times once more.
    """
    may_jump = index.can_seek
    while True:
        capture = open_decoder()
        jumped = False
        for time_s in frame_times(capture, index, beat):
            if jumped and index.span(time_s, goal.slack_s)[0] > goal.time_s:
                break
            yield time_s, capture
            jumped = may_jump and jump_ahead(capture, index, time_s, goal.time_s)
        else:
            if not jumped:
                return
        capture.release()
        may_jump = False


def jump_ahead(capture: Any, index: FrameIndex, time_s: float, goal_s: float) -> bool:
    """Seek to a key frame well before `goal_s` if that skips enough of what lies between."""
    import cv2

    fps = float(capture.get(cv2.CAP_PROP_FPS))
    # OpenCV decodes some frames on from the key frame before it hands one out.
    last = bisect_right(index.times_s, goal_s) - OPENCV_SEEK_LEAD_FRAMES - 2
    if last <= 0 or not fps > 0:
        return False
    at = bisect_right(index.key_times_s, index.times_s[last]) - 1
    if at < 0 or index.key_times_s[at] < time_s + MIN_SEEK_GAIN_S:
        return False
    lead_s = (OPENCV_SEEK_LEAD_FRAMES + 0.5) / fps
    pos_s = index.zero_s + index.key_times_s[at] + lead_s
    return bool(capture.set(cv2.CAP_PROP_POS_MSEC, pos_s * 1000.0))
