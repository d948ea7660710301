"""Decode a film and yield its pictures at the wanted times, jumping ahead where they are far apart.

Between wanted times, pictures to which no other refers are not decoded, and where a key frame lies
between, what comes before it is not read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

from retake_edge.video_goal import Goal
from retake_edge.video_index import FrameIndex
from retake_edge.video_stream import Film

MIN_JUMP_S = 1.0
# So many frames after a picture the next one follows, whatever the packets said.
NEXT_FRAMES = 2.5

Beat = Callable[[int], None]


@dataclass(frozen=True)
class Shown:
    """A decoded picture, with the ones before and after it where they are known."""

    frame: Any
    before: Any = None
    after: Any = None


def shown_pictures(
    open_film: Callable[[], Film], index: FrameIndex, goal: Goal, beat: Beat
) -> Iterator[tuple[float, Shown]]:
    """Yield (time in seconds, picture) for the times of `goal`.

    A jump that lands too late is made good by decoding from the start without jumps.
    """
    may_jump = index.can_seek
    start_s = jump_target(index, goal, -math.inf) if may_jump else None
    while True:
        with open_film() as film:
            for part in parts(film, index, goal, beat, start_s, may_jump):
                if isinstance(part, Late):
                    break
                yield part
            else:
                return
        start_s, may_jump = None, False


class Late:
    """What `parts` yields where a jump landed behind the goal."""


def parts(
    film: Film, index: FrameIndex, goal: Goal, beat: Beat, start_s: float | None, may_jump: bool
) -> Iterator[tuple[float, Shown] | Late]:
    """Decode, from one jump to the next, and yield what `goal` wants."""
    is_first = start_s is None
    left_s = -math.inf  # the time from which the last jump started
    while True:
        jumped = start_s is not None
        if start_s is not None:
            film.seek(start_s)
            start_s = None
        before = held = None
        held_s = -math.inf
        for time_s, frame in decoded(film, index, goal, beat):
            if jumped and held is None:
                if time_s - goal.slack_s > goal.time_s:
                    yield Late()
                may_jump = time_s > left_s  # else it went back: no more of that
            if held is not None:
                is_next = time_s - held_s < NEXT_FRAMES * index.gap_s
                until_s = time_s if is_next else index.after(held_s)
                given = goal.serve(held_s, min(until_s, time_s), is_first)
                for give_s in chain(given, goal.complete_pair(time_s)):
                    yield give_s, Shown(held, before, frame)
                is_first = False
                if goal.next >= goal.n:
                    return
                start_s = jump_target(index, goal, time_s) if may_jump else None
                if start_s is not None:
                    left_s = time_s
                    break
            before, held, held_s = held, frame, time_s
        else:
            if held is not None:
                until_s = index.after(held_s)
                until_s += goal.slack_s if until_s == index.end_s else 0.0
                for give_s in goal.serve(held_s, until_s, is_first):
                    yield give_s, Shown(held, before)
            elif jumped:
                yield Late()
            return


def jump_target(index: FrameIndex, goal: Goal, time_s: float) -> float | None:
    """Return the key frame to jump to from `time_s`, if that skips enough."""
    key_s = index.key_before(goal.time_s + goal.slack_s)
    if key_s is None or key_s < max(time_s, index.times_s[0]) + MIN_JUMP_S:
        return None
    return key_s


def decoded(film: Film, index: FrameIndex, goal: Goal, beat: Beat) -> Iterator[tuple[float, Any]]:
    """Yield (time in seconds, frame) in the order of showing, from where the film stands."""
    import av

    context = film.stream.codec_context
    may_skip = not index.by_count and goal.step_s > 2 * index.gap_s
    last_s, n = -math.inf, 0
    for packet in chain(film.packets(beat), [None]):
        skips = may_skip and packet is not None and not needs(film, index, goal, packet)
        if skips and film.is_intra:
            continue
        context.skip_frame = "NONREF" if skips else "DEFAULT"
        try:
            frames = context.decode(packet)
        except (av.error.FFmpegError, EOFError):
            continue
        for frame in frames:
            time_s: float | None
            if index.by_count:
                time_s = index.times_s[min(n, len(index.times_s) - 1)]
            else:
                time_s = film.time_s(frame.pts if frame.pts is not None else frame.dts)
            n += 1
            if time_s is None or not last_s < time_s <= index.end_s + index.gap_s:
                time_s = 0.0 if last_s == -math.inf else last_s + index.gap_s / 2
            last_s = time_s
            may_skip = may_skip and not frame.interlaced_frame  # the neighbours are needed, too
            yield time_s, frame


def needs(film: Film, index: FrameIndex, goal: Goal, packet: Any) -> bool:
    """Whether the picture of a packet is wanted, or may be."""
    time_s = film.time_s(packet.pts)
    if time_s is None or (packet.is_keyframe and not film.is_intra):
        return True
    return goal.wants(time_s - index.gap_s, index.after(time_s) + index.gap_s)
