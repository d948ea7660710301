"""One open video file: which stream is the film, and its packets on the clock that players show.

FFmpeg's libraries read the file through PyAV. Second 0 is the container's start, so that a picture
which begins 5 s after the sound begins at 0:05. Where recordings were joined, time stamps start
again: the next piece goes on where the last one ended, as ffmpeg does for the formats that allow
such jumps. A single time stamp far from both its neighbours is replaced.
"""

from __future__ import annotations

import os
import struct
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

from retake_edge.video.pieces import WHOLE, Piece, PieceFile

# Demuxers that read one file and nothing else: no playlists, no image sequences, no devices.
CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,live_flv,asf,ogg,mxf,nut,"
    "rm,wtv,gxf,dhav,swf,dv,gif,apng,ivf,obu,av1,h261,h263,h264,hevc,vvc,vc1,m4v,mjpeg,mpjpeg,"
    "yuv4mpegpipe,png_pipe,jpeg_pipe,webp_pipe,bmp_pipe,tiff_pipe"
)
# As in ffmpeg: a step back by more than a moment, or forward by more than a pause, is a join.
JOIN_BACK_S, JOIN_AHEAD_S = 0.1, 10.0
FALLBACK_FRAME_S = 0.04
MAX_THREADS = 8
AV1_PICTURES = "4"  # decoded at once

Beat = Callable[[int], None]
Join = tuple[int, int]
"""From this byte on, time stamps are moved by so many ticks."""
Matrix = tuple[int, int, int, int]
"""(a, b, c, d): the point (x, y) of a stored picture goes to (a x + c y, b x + d y)."""
UPRIGHT: Matrix = (1, 0, 0, 1)


class NoFilmError(Exception):
    """The file holds no moving picture: sound, or sound with a cover."""


class Film:
    """An open file and the stream in it that is the film; a context manager.

    `piece`: the part of the file that is read, which begins at second `begins_s`. `frame_s`:
    seconds between two frames, as the header says. `joins`: where the clock starts again, which
    `packets` finds out when asked to. `read_to_s`: where any stream ends that was read so far.
    `n_decoded`: pictures so far; `matrix`: how the first of them lies.
    """

    def __init__(
        self,
        path: str,
        piece: Piece = WHOLE,
        begins_s: float = 0.0,
        joins: tuple[Join, ...] = (),
    ) -> None:
        import av

        options = {"protocol_whitelist": "none", "format_whitelist": CONTAINERS}
        with ExitStack() as opened:
            file = opened.enter_context(open(path, "rb", buffering=0))
            # FFmpeg gets the bytes, not the name: that is no pattern and no protocol, then, tells
            # nothing about what is inside, and no other file can be opened.
            source = PieceFile(file, piece)
            # PyAV 19 takes a title that is no UTF-8 as it is; before, it had to be told.
            is_old = int(av.__version__.partition(".")[0]) < 19
            how: dict[str, Any] = {"metadata_errors": "replace"} if is_old else {}
            self.container: Any = av.open(source, "r", options=options, **how)
            opened.callback(self.container.close)
            self.stream = best_stream(self.container)
            context, n_threads = self.stream.codec_context, os.cpu_count() or 1
            if context.codec.canonical_name == "av1":
                # dav1d's threads wait for one another: with more of them, and more pictures at
                # once, no core is left idle.
                n_threads, context.options = 2 * n_threads, {"max_frame_delay": AV1_PICTURES}
            context.thread_count, context.thread_type = min(n_threads, MAX_THREADS), "AUTO"
            self.opened = opened.pop_all()
        self.piece, self.begins_s, self.read_to_s = piece, begins_s, begins_s
        self.tick_s = float(self.stream.time_base)
        self.zero_s = (self.container.start_time or 0) / 1_000_000 - begins_s
        rate = self.stream.average_rate or self.stream.guessed_rate
        self.frame_s = float(1 / rate) if rate else FALLBACK_FRAME_S
        flags = av.format.Flags(self.container.format.flags)
        self.may_join = av.format.Flags.ts_discont in flags
        self.joins = list(joins)
        # Without an index in the file, the byte of a key frame leads to it, and a time may not. In
        # MPEG-PS, some pictures have a time, and how FFmpeg counts on is not alike after a jump.
        self.seeks_bytes = self.container.format.name == "mpegts"
        pixels = self.stream.codec_context.format  # None where the file does not say
        has_palette = pixels is not None and pixels.name == "pal8"  # its first packet holds it
        self.never_seeks = self.container.format.name == "mpeg" or has_palette
        self.is_intra = bool(self.stream.codec_context.codec.intra_only) and not has_palette
        self.codec = self.stream.codec_context.name
        self.pixel_aspect = float(self.stream.sample_aspect_ratio or 1)
        self.matrix, self.n_decoded = UPRIGHT, 0
        self.is_bare = av.format.Flags.no_timestamps in flags

    def __enter__(self) -> Film:
        return self

    def __exit__(self, *_: object) -> None:
        self.opened.close()

    @property
    def counts_frames(self) -> bool:
        """True if packets have no times of showing: the n-th picture has the n-th time.

        A bare stream has none at all, AVI and GXF have times of decoding alone.
        """
        reorders = bool(self.stream.codec_context.has_b_frames)
        return self.is_bare or (self.container.format.name in ("avi", "gxf") and reorders)

    @property
    def is_turned(self) -> bool:
        """True if pictures are shown on their side."""
        return self.matrix[0] == 0

    def note_decoded(self, frame: Any) -> None:
        """Count a decoded picture; the first one says how all lie."""
        if not self.n_decoded:
            self.matrix = display_matrix(frame)
        self.n_decoded += 1

    def time_s(self, pts: int | None) -> float | None:
        """Return a time stamp in seconds after the start."""
        return None if pts is None else round(pts * self.tick_s - self.zero_s, 6)

    def seek(self, time_s: float, position: int) -> None:
        """Go to the key frame of a time, whose packet begins at a byte of the file."""
        if self.seeks_bytes:
            self.container.seek(position, unsupported_byte_offset=True)
        else:
            stamp = round((time_s + self.zero_s) / self.tick_s)
            self.container.seek(stamp, stream=self.stream, backward=True)

    def packets(self, beat: Beat, *, finds_joins: bool = False) -> Iterator[Any]:
        """Yield the film's packets with continuous time stamps; `beat` is told the file position.

        A file that is cut short or damaged is read to where nothing more comes. Joins are found in
        the time stamps of all streams, which costs reading them.
        """
        packets = self._without_wild(self._read(beat, all_streams=finds_joins))
        if finds_joins and self.may_join:
            packets = self._find_joins(packets)
        shift = 0
        for packet in packets:
            if packet.stream_index != self.stream.index:
                continue
            if self.joins and packet.pos is not None:
                at = bisect_right(self.joins, packet.pos, key=lambda join: join[0])
                shift = self.joins[at - 1][1] if at else 0
            if shift:
                packet.pts = None if packet.pts is None else packet.pts + shift
                packet.dts = None if packet.dts is None else packet.dts + shift
            yield packet

    def _read(self, beat: Beat, all_streams: bool) -> Iterator[Any]:
        """Yield the packets of the film, or of all streams."""
        import av

        streams = () if all_streams else (self.stream,)
        try:
            for packet in self.container.demux(*streams):
                if packet.size:
                    beat(packet.pos or 0)
                    if packet.pts is not None:
                        end_s = (packet.pts + (packet.duration or 0)) * float(packet.time_base)
                        self.read_to_s = max(self.read_to_s, end_s - self.zero_s)
                    yield packet
        except (av.error.FFmpegError, EOFError):
            return

    def _find_joins(self, packets: Iterator[Any]) -> Iterator[Any]:
        """Note where the time stamps of a joined piece begin, and how far they are to be moved.

        The first stream that jumps says by how much; others follow when their own stamps jump,
        since a parser gives the last packet of a piece only when the next one has begun.
        """
        shifts_s = [0.0]
        piece: dict[int, int] = {}
        next_s: dict[int, float] = {}
        position, noted = 0, 0
        for packet in packets:
            at, tick_s = packet.stream_index, float(packet.time_base)
            is_film = at == self.stream.index
            stamp = packet.dts if packet.dts is not None else packet.pts
            number = piece.setdefault(at, len(shifts_s) - 1)
            position = packet.pos if is_film and packet.pos is not None else position
            if stamp is not None:
                own_s = stamp * tick_s
                expected_s = next_s.get(at, own_s + shifts_s[number])
                while not -JOIN_BACK_S <= own_s + shifts_s[number] - expected_s <= JOIN_AHEAD_S:
                    number += 1
                    if number == len(shifts_s):
                        shifts_s.append(expected_s - own_s)
                if is_film and number != noted:
                    noted = number
                    self.joins.append((position, round(shifts_s[number] / tick_s)))
                piece[at] = number
                last_s = (packet.duration or 0) * tick_s
                next_s[at] = own_s + shifts_s[number] + (last_s or self.frame_s * is_film)
            yield packet

    def _without_wild(self, packets: Iterator[Any]) -> Iterator[Any]:
        """Replace a time stamp that lies outside of its two neighbours, which are close."""
        far = JOIN_AHEAD_S / self.tick_s
        last: int | None = None
        waiting: list[Any] = []  # a packet of the film, and those of other streams behind it
        for packet in packets:
            if packet.stream_index == self.stream.index:
                held = waiting[0] if waiting else packet
                if last is not None and held.dts is not None and packet.dts is not None:
                    step = packet.dts - last
                    if 0 < step < far and not last <= held.dts <= last + far:
                        held.pts = held.dts = last + step // 2
                last = held.dts if waiting else None
                yield from waiting
                waiting = []
            waiting.append(packet)
        yield from waiting


def display_matrix(frame: Any) -> Matrix:
    """Return how a picture lies, to quarter turns."""
    from av.sidedata.sidedata import Type

    # PyAV 18 fails on a frame with a kind of side data that it does not know, such as EXIF.
    Type._missing_ = classmethod(lambda cls, _: cls.PANSCAN)  # type: ignore[assignment]
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return UPRIGHT
    a, b, _, c, d = struct.unpack_from("=5i", bytes(data))
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return (-1 if a < 0 else 1), 0, 0, (-1 if d < 0 else 1)
    return 0, (-1 if b < 0 else 1), (-1 if c < 0 else 1), 0


def best_stream(container: Any) -> Any:
    """Return the video stream that ffmpeg takes: the default one, then the largest; no cover.

    A single picture beside a film is its cover, whether it is marked as one or not.

    Raises:
        NoFilmError: there is none.
    """
    import av

    kinds = av.stream.Disposition
    covers = kinds.attached_pic | kinds.timed_thumbnails | kinds.still_image | kinds.dependent
    films = [s for s in container.streams.video if s.codec_context and not s.disposition & covers]
    if not films:
        raise NoFilmError

    def rank(stream: Any) -> tuple[bool, bool, int]:
        context = stream.codec_context
        is_default = bool(stream.disposition & kinds.default)
        return stream.frames != 1, is_default, context.width * context.height

    return max(films, key=rank)
