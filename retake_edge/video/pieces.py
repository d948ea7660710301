"""Recordings joined with `cat`: where in a file each begins, for containers read only to their end.

FFmpeg reads such a file to the end of its first piece, or takes the clocks of all pieces for one.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import BinaryIO, NamedTuple

HEAD_BYTES = 300  # of an element: an Ogg page says its length in up to 282
MAX_PIECES = 1000  # each is opened twice
EBML, SEGMENT, CLUSTER = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67", b"\x1f\x43\xb6\x75"
ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
FLV_HEADER_BYTES, FLV_TAG_BYTES, IVF_FRAME_BYTES, OGG_HEAD_BYTES = 13, 15, 12, 27


class Piece(NamedTuple):
    """A recording in a file: its first byte, and the byte after its last (None: the file's end)."""

    start: int = 0
    end: int | None = None


WHOLE = Piece()


class PieceFile:
    """The bytes of a piece as a file that can be read and sought in."""

    def __init__(self, file: BinaryIO, piece: Piece) -> None:
        self.file, (self.start, self.end) = file, piece
        file.seek(self.start)

    def read(self, n: int) -> bytes:
        """Return up to `n` bytes, none of them beyond the piece."""
        left = n if self.end is None else self.end - self.file.tell()
        return self.file.read(max(0, min(n, left)))

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a position within the piece and return it."""
        if whence == os.SEEK_SET:
            offset += self.start
        elif whence == os.SEEK_END and self.end is not None:
            offset, whence = self.end + offset, os.SEEK_SET
        return self.file.seek(offset, whence) - self.start

    def tell(self) -> int:
        """Return the position within the piece."""
        return self.file.tell() - self.start


def pieces_of(path: str, beat: Callable[[int], None]) -> list[Piece]:
    """Return the recordings that were joined in a file; `beat` is told each position."""
    with open(path, "rb") as file:
        head, size = file.read(HEAD_BYTES), os.fstat(file.fileno()).st_size
        element = next((e for e in ELEMENTS if (e(head) or (False, 0))[0]), None)
        starts, at, goes_on = [0], 0, False
        while element is not None and at < size:
            beat(at)
            file.seek(at)
            found = element(file.read(HEAD_BYTES))
            if found is None:
                break
            is_start, n_bytes = found
            if is_start and goes_on and len(starts) < MAX_PIECES:
                starts.append(at)
            goes_on = not is_start  # of two first pages in Ogg, each is of one stream
            at += n_bytes or size
    return [Piece(a, b) for a, b in zip(starts, [*starts[1:], None], strict=True)]


# Of the element that begins with `head`: whether a recording begins with it, and its length with
# its head (0: to the file's end). None: it is no such element.
Element = tuple[bool, int]


def mp4_box(head: bytes) -> Element | None:
    """Source: ISO 14496-12, 4.2."""
    n_bytes, kind = int.from_bytes(head[:4], "big"), head[4:8]
    if n_bytes == 1:
        n_bytes = int.from_bytes(head[8:16], "big")
    is_box = (
        len(kind) == 4 and all(0x20 <= c < 0x7F for c in kind) and (n_bytes >= 8 or not n_bytes)
    )
    return (kind == b"ftyp", n_bytes) if is_box else None


def ebml_element(head: bytes) -> Element | None:
    """Source: RFC 8794, 4 to 6; what holds a segment's or a cluster's elements is entered."""
    n_id, n_size = leading_zeros(head[:1]), 0
    if n_id < 4:
        n_size = leading_zeros(head[n_id + 1 : n_id + 2])
    at = n_id + 1
    if n_id > 3 or n_size > 7 or len(head) < at + n_size + 1:
        return None
    kind, digits = head[:at], head[at : at + n_size + 1]
    n_bytes = int.from_bytes(digits, "big") & ((1 << 7 * len(digits)) - 1)
    is_unknown = n_bytes == (1 << 7 * len(digits)) - 1
    if is_unknown and kind not in (SEGMENT, CLUSTER):
        return None
    return kind == EBML, at + len(digits) + (0 if is_unknown else n_bytes)


def leading_zeros(byte: bytes) -> int:
    """Return how many zeros a byte begins with: 8 for none at all."""
    return 8 - (byte[0].bit_length() if byte else 0)


def flv_tag(head: bytes) -> Element | None:
    """Source: the FLV specification 10.1, annex E."""
    if head[:4] == b"FLV\x01":
        return True, FLV_HEADER_BYTES
    is_tag = head[:1] in (b"\x08", b"\x09", b"\x12") and head[8:11] == bytes(3)
    return (False, FLV_TAG_BYTES + int.from_bytes(head[1:4], "big")) if is_tag else None


def asf_object(head: bytes) -> Element | None:
    """Source: the ASF specification 1.20, 2.1."""
    n_bytes = int.from_bytes(head[16:24], "little")
    return (head[:16] == ASF_HEADER, n_bytes) if n_bytes >= 24 else None


def ivf_frame(head: bytes) -> Element | None:
    """Source: libvpx, ivfdec.c."""
    if head[:4] == b"DKIF":
        return True, int.from_bytes(head[6:8], "little")
    return False, IVF_FRAME_BYTES + int.from_bytes(head[:4], "little")


def ogg_page(head: bytes) -> Element | None:
    """Source: RFC 3533, 6."""
    if head[:4] != b"OggS" or len(head) < OGG_HEAD_BYTES:
        return None
    lengths = head[OGG_HEAD_BYTES : OGG_HEAD_BYTES + head[OGG_HEAD_BYTES - 1]]
    return bool(head[5] & 2), OGG_HEAD_BYTES + len(lengths) + sum(lengths)


ELEMENTS = (mp4_box, ebml_element, flv_tag, asf_object, ogg_page, ivf_frame)
