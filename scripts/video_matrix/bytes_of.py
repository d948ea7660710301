"""Changes to a finished file that ffmpeg cannot make: display matrices, lost packets, cuts."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from pathlib import Path

TS_PACKET_BYTES = 188
START = b"\x00\x00\x01"


def turn(name: str, source: str, a: int, b: int, c: int, d: int) -> Callable[[Path], None]:
    """Write `source` as `name` with the display matrix (a b; c d) in the first track header.

    The file's picture point (x, y) goes to (a x + c y, b x + d y): ISO 14496-12, 8.3.2.
    """

    def step(folder: Path) -> None:
        data = bytearray((folder / source).read_bytes())
        at = data.index(b"tkhd") + 4
        version = data[at]
        matrix = at + (36 + 16 if version == 1 else 24 + 16)
        values = (a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
        struct.pack_into(">9i", data, matrix, *values)
        (folder / name).write_bytes(data)

    return step


def edit(name: str, source: str, entries: list[tuple[int, int]]) -> Callable[[Path], None]:
    """Write an MP4 whose index is last with another edit list in its first track.

    `entries`: (length in the movie's 1/1000 s, start in the track's time units; -1: nothing shown).
    """

    def step(folder: Path) -> None:
        data = (folder / source).read_bytes()
        body = b"".join(struct.pack(">Iihh", length, start, 1, 0) for length, start in entries)
        body = struct.pack(">I4sII", 16 + len(body), b"elst", 0, len(entries)) + body
        old = data.index(b"edts") - 4
        old_len = struct.unpack_from(">I", data, old)[0]
        new = struct.pack(">I4s", 8 + len(body), b"edts") + body
        grown = bytearray(data[:old] + new + data[old + old_len :])
        for kind in (b"moov", b"trak"):
            at = data.index(kind) - 4
            size = struct.unpack_from(">I", grown, at)[0]
            struct.pack_into(">I", grown, at, size + len(new) - old_len)
        (folder / name).write_bytes(grown)

    return step


def cut(name: str, source: str, share: float, start: float = 0.0) -> Callable[[Path], None]:
    """Write the part of `source` from `start` to `share` of its length as `name`."""

    def step(folder: Path) -> None:
        data = (folder / source).read_bytes()
        (folder / name).write_bytes(data[int(len(data) * start) : int(len(data) * share)])

    return step


def cut_ts(name: str, source: str, start: float, end: float = 1.0) -> Callable[[Path], None]:
    """Write the whole TS packets between two shares of `source` as `name`."""

    def step(folder: Path) -> None:
        data = (folder / source).read_bytes()
        n = len(data) // TS_PACKET_BYTES
        (folder / name).write_bytes(
            data[int(n * start) * TS_PACKET_BYTES : int(n * end) * TS_PACKET_BYTES]
        )

    return step


def lose_ts(name: str, source: str, share: float, seed: int = 1) -> Callable[[Path], None]:
    """Write `source` without `share` of its TS packets, chosen by `seed`."""

    def step(folder: Path) -> None:
        data = (folder / source).read_bytes()
        rng = random.Random(seed)
        packets = [data[k : k + TS_PACKET_BYTES] for k in range(0, len(data), TS_PACKET_BYTES)]
        kept = [p for k, p in enumerate(packets) if k < 10 or rng.random() >= share]
        (folder / name).write_bytes(b"".join(kept))

    return step


def overwrite(name: str, source: str, places: list[tuple[float, int]]) -> Callable[[Path], None]:
    """Write `source` as `name` with zeros over `n` bytes at each (share of the length, n)."""

    def step(folder: Path) -> None:
        data = bytearray((folder / source).read_bytes())
        for share, n in places:
            at = int(len(data) * share)
            data[at : at + n] = bytes(min(n, len(data) - at))
        (folder / name).write_bytes(data)

    return step


def stamp_flv(name: str, source: str, number: int, by_ms: int) -> Callable[[Path], None]:
    """Write an FLV whose video tag `number` has a time stamp that is off by `by_ms`."""

    def step(folder: Path) -> None:
        data = bytearray((folder / source).read_bytes())
        at, seen = 13, 0
        while at + 11 < len(data):
            is_video = data[at] == 9
            if is_video and seen == number:
                stamp = int.from_bytes(data[at + 4 : at + 7], "big") + by_ms
                data[at + 4 : at + 7] = (stamp & 0xFFFFFF).to_bytes(3, "big")
                data[at + 7] = stamp >> 24
            seen += is_video
            at += 15 + int.from_bytes(data[at + 1 : at + 4], "big")
        (folder / name).write_bytes(data)

    return step


def stamp_ts(name: str, source: str, number: int, by_s: float) -> Callable[[Path], None]:
    """Write a TS whose video picture `number` (with a PTS alone) has one that is off by `by_s`."""

    def step(folder: Path) -> None:
        data = bytearray((folder / source).read_bytes())
        at = -1
        for _ in range(number + 1):
            at = data.index(b"\x00\x00\x01\xe0", at + 1)
        b = data[at + 9 : at + 14]
        pts = (b[0] >> 1 & 7) << 30 | b[1] << 22 | (b[2] >> 1) << 15 | b[3] << 7 | b[4] >> 1
        pts = (pts + round(by_s * 90_000)) % (1 << 33)
        data[at + 9] = b[0] & 0xF0 | (pts >> 30 & 7) << 1 | 1
        data[at + 10 : at + 14] = bytes(
            (pts >> 22 & 255, (pts >> 15 & 127) << 1 | 1, pts >> 7 & 255, (pts & 127) << 1 | 1)
        )
        (folder / name).write_bytes(data)

    return step


def without_avi_index(name: str, source: str) -> Callable[[Path], None]:
    """Write an AVI without its index, as a recorder leaves it when the battery is empty."""

    def step(folder: Path) -> None:
        data = (folder / source).read_bytes()
        (folder / name).write_bytes(data[: data.rindex(b"idx1")])

    return step


def rename(name: str, source: str, words: dict[bytes, bytes]) -> Callable[[Path], None]:
    """Write `source` as `name` with words replaced by others as long."""

    def step(folder: Path) -> None:
        data = (folder / source).read_bytes()
        for word, other in words.items():
            data = data.replace(word, other)
        (folder / name).write_bytes(data)

    return step


def pull_down(name: str, source: str) -> Callable[[Path], None]:
    """Write MPEG-2 film as discs have it: flags say which field is shown again, 2 and 3 in turn.

    Source: ITU-T H.262, 6.2.2 and 6.2.3 (sequence header and extension, picture coding extension).
    """

    def step(folder: Path) -> None:
        data = bytearray((folder / source).read_bytes())
        at, n_pictures = data.find(START), 0
        while 0 <= at < len(data) - 9:
            kind, extension = data[at + 3], data[at + 4] >> 4
            if kind == 0xB3:
                data[at + 7] = data[at + 7] & 0xF0 | 4  # 30000/1001 frames a second
            elif kind == 0xB5 and extension == 1:
                data[at + 5] &= 0xF7  # not a progressive sequence
            elif kind == 0xB5 and extension == 8:
                top_first, again = ((1, 1), (0, 0), (0, 1), (1, 0))[n_pictures % 4]
                data[at + 7] = data[at + 7] & 0x7D | top_first << 7 | again << 1
                data[at + 8] |= 0x80  # both fields are of one moment
                n_pictures += 1
            at = data.find(START, at + 4)
        (folder / name).write_bytes(data)

    return step


def bitmap_subtitles(name: str) -> Callable[[Path], None]:
    """Write a Blu-ray subtitle file (PGS): a white block of 16x8 pixels from 0.5 s to 3 s."""

    def segment(time_s: float, kind: int, body: bytes) -> bytes:
        return b"PG" + struct.pack(">IIBH", round(time_s * 90_000), 0, kind, len(body)) + body

    def step(folder: Path) -> None:
        lines = b"".join(b"\x00\x90\x01\x00\x00" for _ in range(8))  # 16 times colour 1
        picture = struct.pack(">HBB", 0, 0, 0xC0) + (len(lines) + 4).to_bytes(3, "big")
        picture += struct.pack(">HH", 16, 8) + lines
        head = struct.pack(">HHBHB", 176, 144, 0x10, 0, 0x80)
        shown = head + struct.pack(">BBBHBBHH", 0, 0, 1, 0, 0, 0, 80, 120)
        windows = struct.pack(">BBHHHH", 1, 0, 80, 120, 16, 8)
        palette = struct.pack(">BBBBBBB", 0, 0, 1, 235, 128, 128, 255)
        parts = [(0.5, 0x16, shown), (0.5, 0x17, windows), (0.5, 0x14, palette)]
        parts += [(0.5, 0x15, picture), (0.5, 0x80, b"")]
        ended = struct.pack(">HHBHBBBB", 176, 144, 0x10, 1, 0, 0, 0, 0)
        parts += [(3.0, 0x16, ended), (3.0, 0x17, windows), (3.0, 0x80, b"")]
        (folder / name).write_bytes(b"".join(segment(*part) for part in parts))

    return step
