"""Index when each picture of a film is shown: one pass over the packets, nothing decoded."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median
from typing import Any, NamedTuple

from retake_edge.video.obu import HiddenPictures
from retake_edge.video.packets import PacketLog
from retake_edge.video.pieces import Piece
from retake_edge.video.stream import Beat, Film, Join

# A picture that stays for longer than an hour, and than ten times what came before, is an error.
MAX_HELD_S, MAX_HELD_SHARE = 3600.0, 10.0
MAX_WILD = 8


class Key(NamedTuple):
    """A picture from which decoding can begin: its time, and the byte where its packet begins."""

    time_s: float
    position: int


@dataclass(frozen=True)
class FrameIndex:
    """The times of the pictures of a film, or of a piece of one, with what is needed to reopen it.

    `times_s`: sorted, of every shown picture. `keys`: sorted. `end_s`: until the last one is shown.
    `by_count`: the n-th picture has the n-th time. `can_seek`: what is read after a jump has its
    time. `missing_s`: announced, but neither picture nor sound is there. `packets`:
    what each says of its picture.
    """

    times_s: list[float]
    keys: list[Key]
    gap_s: float
    end_s: float
    missing_s: float
    by_count: bool
    can_seek: bool
    piece: Piece
    begins_s: float
    joins: tuple[Join, ...]
    packets: PacketLog = field(default_factory=PacketLog, compare=False, repr=False)

    def after(self, time_s: float) -> float:
        """Return when the picture that is shown at `time_s` ends."""
        at = bisect_right(self.times_s, time_s + self.gap_s / 4)
        return self.times_s[at] if at < len(self.times_s) else self.end_s

    def key_before(self, time_s: float) -> Key | None:
        """Return the last picture up to `time_s` from which decoding can begin."""
        at = bisect_right(self.keys, (time_s, math.inf)) - 1
        return self.keys[at] if at >= 0 else None


def index_film(film: Film, beat: Beat) -> FrameIndex | None:
    """Read every packet of `film`; None if there is nothing to decode."""
    shown: list[tuple[float, float]] = []  # when, and how long by the packet's own word
    keys: list[Key] = []
    log = PacketLog()
    context = film.stream.codec_context
    is_av1 = context.codec.canonical_name == "av1"
    hidden = HiddenPictures(context.extradata or b"") if is_av1 else None
    n_untimed = n_placeless = 0
    for packet in film.packets(beat, finds_joins=True):
        time_s = packet_time_s(film, packet)
        if time_s is None and not packet.is_discard:
            n_untimed += 1
            time_s = shown[-1][0] + (shown[-1][1] or film.frame_s) if shown else film.begins_s
        n_placeless += packet.pos is None  # several pictures in one packet of the container
        if packet.is_keyframe and time_s is not None:
            keys.append(Key(time_s, packet.pos or 0))
        if not packet.is_discard and time_s is not None:
            shown.append((time_s, (packet.duration or 0) * film.tick_s))
            ahead = hidden.ahead(bytes(packet)) if hidden else ()
            log.add(time_s, packet.size, packet.is_keyframe, ahead)
    if not shown:
        return None
    shown = without_wild_end(shown, film.frame_s)
    times_s = [round(time_s, 6) for time_s, _ in shown]
    gap_s = round(usual_gap_s(times_s) or film.frame_s, 6)
    end_s = times_s[-1] + (shown[-1][1] or gap_s)
    missing_s = announced_s(film, times_s[0]) - max(end_s, film.read_to_s)
    by_count = film.counts_frames or n_untimed > len(times_s) // 2
    can_seek = not n_placeless if film.seeks_bytes else not (film.joins or film.never_seeks)
    can_seek = can_seek and (film.is_intra or not log.has_false_keys)
    return FrameIndex(
        times_s=times_s,
        keys=sorted(keys),
        gap_s=gap_s,
        end_s=round(end_s, 6),
        missing_s=max(0.0, round(missing_s, 6)),
        by_count=by_count,
        can_seek=can_seek and not by_count,
        piece=film.piece,
        begins_s=film.begins_s,
        joins=tuple(film.joins),
        packets=log,
    )


def without_wild_end(shown: list[tuple[float, float]], frame_s: float) -> list[tuple[float, float]]:
    """Sort pictures by time; a few last ones, or a length, far beyond all others follow at once.

    A damaged time stamp would make a short recording years long.
    """
    shown = sorted(shown)
    first_s = shown[0][0]
    at = len(shown)
    for back in range(1, min(len(shown) - 1, MAX_WILD) + 1):
        last_s = shown[-back - 1][0]
        if shown[-back][0] - last_s > max(MAX_HELD_S, MAX_HELD_SHARE * (last_s - first_s)):
            at = len(shown) - back
    tail = [(shown[at - 1][0] + k * frame_s, frame_s) for k in range(1, len(shown) - at + 1)]
    shown = shown[:at] + tail
    last_s, held_s = shown[-1]
    if held_s > max(MAX_HELD_S, MAX_HELD_SHARE * (last_s - first_s)):
        shown[-1] = last_s, frame_s
    return shown


def packet_time_s(film: Film, packet: Any) -> float | None:
    """Return when a packet's picture is shown, as far as the container says."""
    if film.is_bare:
        return None
    if film.counts_frames or packet.pts is None:
        return film.time_s(packet.dts)
    return film.time_s(packet.pts)


def usual_gap_s(times_s: list[float]) -> float:
    """Return the median distance of two times, 0 where there are not two."""
    gaps = [b - a for a, b in pairwise(times_s) if b > a]
    return median(gaps) if gaps else 0.0


def announced_s(film: Film, first_s: float) -> float:
    """Return when the header says that the last stream ends, 0 where it does not say."""
    length = film.container.duration
    if film.may_join or not length:
        return 0.0  # MPEG's containers have no header: FFmpeg guesses
    end_s = film.begins_s + float(length) / 1_000_000
    if not film.stream.frames:  # such headers count from the clock's zero, not from its start
        end_s -= film.zero_s + film.begins_s
    # FFmpeg adds what comes before the pictures to what ASF counts with it.
    lead_s = first_s - film.begins_s if film.container.format.name == "asf" else 0.0
    return end_s - lead_s
