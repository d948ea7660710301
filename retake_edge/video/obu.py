"""Which picture of an AV1 film the bytes of a packet belong to.

A packet shows one picture, but also brings pictures that are shown up to a whole group later, from
which those between are predicted; they are the large ones. Each says its number in the order of
showing. Only the first bytes of each picture's header are read.

Source: AV1 Bitstream & Decoding Process Specification, sections 5.3, 5.5 and 5.9.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

_SEQUENCE, _HEADER, _FRAME = 1, 3, 6
_KEY, _SWITCH = 0, 3
_SELECT = 2  # the picture's own header says it


class _Bits:
    """The bits of some bytes, the highest first."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def take(self, n: int = 1) -> int:
        """Return the next `n` bits as a number.

        Raises:
            ValueError: there are no more.
        """
        self._left -= n
        if self._left < 0:
            raise ValueError("a header is cut short")
        return (self._value >> self._left) & ((1 << n) - 1)


@dataclass(frozen=True)
class _Sequence:
    """What a sequence's header says about the headers of its pictures; numbers are in bits."""

    order_bits: int
    id_bits: int
    time_bits: int
    screen_tools: int
    integer_motion: int


class HiddenPictures:
    """Reads packet after packet, and tells the bytes of pictures that are shown later.

    `extradata`: what the container says about the stream.
    """

    def __init__(self, extradata: bytes = b"") -> None:
        self._sequence: _Sequence | None = None
        self._shown = 0
        begins = 4 if extradata[:1] == b"\x81" else 0  # the head of MP4's and Matroska's record
        for _ in self.ahead(extradata[begins:]):
            pass

    def ahead(self, packet: bytes) -> list[tuple[int, int]]:
        """Return (pictures until it is shown, bytes) of each picture that is not shown at once.

        Of a packet that cannot be understood, nothing is told.
        """
        hidden, shown = [], None
        try:
            for kind, data, n_bytes in _units(packet):
                if kind == _SEQUENCE:
                    self._sequence = _sequence(_Bits(data))
                elif kind in (_HEADER, _FRAME) and self._sequence and self._sequence.order_bits:
                    number, is_shown = _picture(_Bits(data[:32]), self._sequence)
                    if not is_shown:
                        hidden.append((number, n_bytes))
                    elif number is not None:
                        shown = number
        except (ValueError, IndexError):
            return []
        if self._sequence is None:
            return []
        range_ = 1 << self._sequence.order_bits
        self._shown = shown if shown is not None else (self._shown + 1) % range_
        distances = [((number or 0) - self._shown) % range_ for number, _ in hidden]
        return [
            (distance, n_bytes)
            for distance, (_, n_bytes) in zip(distances, hidden, strict=True)
            if 0 < distance < range_ // 2
        ]


def _units(data: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Yield kind, content and bytes of each unit (OBU)."""
    at = 0
    while at < len(data):
        head, first = data[at], at
        at += 2 if head & 4 else 1
        n = len(data) - at
        if head & 2:
            n = shift = 0
            while True:
                byte = data[at]
                at += 1
                n |= (byte & 127) << shift
                shift += 7
                if not byte & 128:
                    break
        yield (head >> 3) & 15, data[at : at + n], at + n - first
        at += n


def _sequence(bits: _Bits) -> _Sequence:
    bits.take(4)
    if bits.take():  # a still picture: its only frame is shown
        return _Sequence(0, 0, 0, 0, 0)
    time_bits = delay_bits = 0
    if bits.take():
        bits.take(64)
        is_even = bits.take()
        if is_even:
            n_zeros = 0
            while not bits.take():
                n_zeros += 1
            bits.take(n_zeros)
        if bits.take():
            delay_bits = bits.take(5) + 1
            bits.take(37)
            time_bits = bits.take(5) + 1
            time_bits = 0 if is_even else time_bits
    has_display_delay = bits.take()
    for _ in range(bits.take(5) + 1):
        bits.take(12)
        if bits.take(5) > 7:
            bits.take()
        if delay_bits and bits.take():
            bits.take(2 * delay_bits + 1)
        if has_display_delay and bits.take():
            bits.take(4)
    width_bits, height_bits = bits.take(4) + 1, bits.take(4) + 1
    bits.take(width_bits + height_bits)
    id_bits = 0
    if bits.take():
        id_bits = bits.take(4) + 2
        id_bits += bits.take(3) + 1
    bits.take(7)
    has_order = bits.take()
    if has_order:
        bits.take(2)
    screen_tools = _SELECT if bits.take() else bits.take()
    integer_motion = _SELECT
    if screen_tools:
        integer_motion = _SELECT if bits.take() else bits.take()
    order_bits = bits.take(3) + 1 if has_order else 0
    return _Sequence(order_bits, id_bits, time_bits, screen_tools, integer_motion)


def _picture(bits: _Bits, sequence: _Sequence) -> tuple[int | None, bool]:
    """The number of a picture in the order of showing, if its header says it; is it shown now?"""
    if bits.take():
        return None, True  # one that came before is shown
    kind, is_shown = bits.take(2), bool(bits.take())
    if is_shown:
        bits.take(sequence.time_bits)
    else:
        bits.take()
    if kind != _SWITCH and not (kind == _KEY and is_shown):
        bits.take()
    bits.take()
    tools = bits.take() if sequence.screen_tools == _SELECT else sequence.screen_tools
    if tools and sequence.integer_motion == _SELECT:
        bits.take()
    bits.take(sequence.id_bits)
    if kind != _SWITCH:
        bits.take()
    return bits.take(sequence.order_bits), is_shown
