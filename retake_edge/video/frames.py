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

from retake_edge.video.goal import Goal, Goals
from retake_edge.video.index import FrameIndex, Key
from retake_edge.video.stream import Beat, Film

MIN_JUMP_S = 1.0
# So many frames after a picture the next one follows, whatever the packets said.
NEXT_FRAMES = 2.5


@dataclass(frozen=True)
class Shown:
    """A decoded picture of a film, with the ones before and after it where they are known."""

    film: Film
    frame: Any
    before: Any = None
    after: Any = None

    @property
    def has_two_fields(self) -> bool:
        """True if the lines are of two moments; in HEVC, a field is a picture of its own."""
        return bool(self.frame.interlaced_frame) and self.film.codec != "hevc"


class JumpFailedError(Exception):
    """A jump led behind what was wanted."""


def shown_pictures(
    open_film: Callable[[FrameIndex], Film], pieces: list[FrameIndex], goals: Goals, beat: Beat
) -> Iterator[tuple[Goal, float, Shown]]:
    """Yield (goal, time in seconds, picture) for the times of all goals, from each piece in turn.

    A jump that fails is made good by decoding the piece from its start without jumps.
    """
    for piece in pieces:
        if piece is not pieces[-1] and goals.from_s >= piece.end_s:
            continue
        try:
            with open_film(piece) as film:
                yield from wanted_pictures(film, piece, goals, beat, piece.can_seek)
        except JumpFailedError:
            with open_film(piece) as film:
                yield from wanted_pictures(film, piece, goals, beat, may_jump=False)
        if not goals.open:
            return


def wanted_pictures(
    film: Film, index: FrameIndex, goals: Goals, beat: Beat, may_jump: bool
) -> Iterator[tuple[Goal, float, Shown]]:
    """Decode, from one jump to the next, and yield what the goals want.

    Raises:
        JumpFailedError: a jump did not lead to what is wanted.
    """
    key = jump_target(index, goals, -math.inf) if may_jump else None
    is_first = key is None and not index.begins_s
    left_s = -math.inf  # the time from which the last jump started
    while True:
        jump, key = key, None
        if jump is not None:
            film.seek(*jump)
        before = held = None
        held_s = -math.inf
        for time_s, frame in decoded(film, index, goals, beat):
            if jump is not None and held is None:
                if time_s > goals.from_s:
                    raise JumpFailedError
                may_jump = time_s > left_s  # else it went back: no more of that
            if held is not None:
                is_next = time_s - held_s < NEXT_FRAMES * index.gap_s
                until_s = time_s if is_next else index.after(held_s)
                shown = Shown(film, held, before, frame)
                for goal in goals.all:
                    given = goal.serve(held_s, min(until_s, time_s), is_first)
                    for give_s in chain(given, goal.complete_pair(time_s)):
                        yield goal, give_s, shown
                is_first = False
                if not goals.open:
                    return
                key = jump_target(index, goals, time_s) if may_jump else None
                if key is not None:
                    left_s = time_s
                    break
            before, held, held_s = held, frame, time_s
        else:
            if held is not None:
                end_s, shown = index.after(held_s), Shown(film, held, before)
                for goal in goals.all:
                    until_s = end_s + (goal.slack_s if end_s == index.end_s else 0.0)
                    for give_s in goal.serve(held_s, until_s, is_first):
                        yield goal, give_s, shown
            elif jump is not None:
                raise JumpFailedError
            return


def jump_target(index: FrameIndex, goals: Goals, time_s: float) -> Key | None:
    """Return the key frame to jump to from `time_s`, if that skips enough."""
    key = index.key_before(goals.from_s)
    if key is None or key.time_s < max(time_s, index.times_s[0]) + MIN_JUMP_S:
        return None
    return key


def decoded(film: Film, index: FrameIndex, goals: Goals, beat: Beat) -> Iterator[tuple[float, Any]]:
    """Yield (time in seconds, frame) in the order of showing, from where the film stands."""
    import av

    context = film.stream.codec_context
    may_skip = not index.by_count and goals.step_s > 2 * index.gap_s
    last_s = -math.inf
    for packet in chain(film.packets(beat), [None]):
        skips = may_skip and packet is not None and not needs(film, index, goals, packet)
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
                time_s = index.times_s[min(film.n_decoded, len(index.times_s) - 1)]
            else:
                time_s = film.time_s(frame.pts if frame.pts is not None else frame.dts)
            film.note_decoded(frame)
            if time_s is None or not last_s < time_s <= index.end_s + index.gap_s:
                time_s = index.begins_s if last_s == -math.inf else last_s + index.gap_s / 2
            last_s = time_s
            may_skip = may_skip and not frame.interlaced_frame  # the neighbours are needed, too
            yield time_s, frame


def needs(film: Film, index: FrameIndex, goals: Goals, packet: Any) -> bool:
    """Return whether the picture of a packet is wanted, or may be."""
    time_s = film.time_s(packet.pts)
    if time_s is None or (packet.is_keyframe and not film.is_intra):
        return True
    return goals.wants(time_s - index.gap_s, index.after(time_s) + index.gap_s)
