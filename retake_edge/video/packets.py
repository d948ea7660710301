"""What packets say about their pictures before any is decoded: time, size, key frame or not."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_MOST_BYTES = 2**32 - 1
MIN_KEY_SHARE = 1 / 8
"""Of the first picture's bytes, what key frames usually have at least."""


class PacketLog:
    """Packets noted one by one; flat arrays, since a day of video has millions of them."""

    def __init__(self) -> None:
        self._times_s, self._n_bytes, self._is_key = array("d"), array("I"), array("B")
        self._ahead: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._times_s)

    def add(
        self, time_s: float, n_bytes: int, is_key: bool, ahead: Iterable[tuple[int, int]] = ()
    ) -> None:
        """Note a packet: when its picture is shown, its size, and whether it is a key frame.

        `ahead`: bytes in it of pictures that are shown so many packets later.
        """
        at = len(self)
        for distance, n_hidden in ahead:
            self._ahead[at + distance] = self._ahead.get(at + distance, 0) + n_hidden
            n_bytes -= n_hidden
        n_bytes += self._ahead.pop(at, 0)
        self._times_s.append(time_s)
        self._n_bytes.append(max(0, min(n_bytes, _MOST_BYTES)))
        self._is_key.append(is_key)

    @property
    def has_false_keys(self) -> bool:
        """True if all are said to be key frames, and most are far too small for that.

        FFmpeg writes RPZA so; decoding cannot begin at such a picture.
        """
        return all(self._is_key) and median(self._n_bytes) < MIN_KEY_SHARE * self._n_bytes[0]

    @classmethod
    def joined(cls, logs: Iterable[PacketLog]) -> PacketLog:
        """Return the packets of several logs as one log."""
        whole = cls()
        for log in logs:
            whole._times_s.extend(log._times_s)
            whole._n_bytes.extend(log._n_bytes)
            whole._is_key.extend(log._is_key)
        return whole

    def to_bytes(self) -> bytes:
        """Return all times (f64), then all sizes (u32), then all marks of key frames (u8)."""
        return self._times_s.tobytes() + self._n_bytes.tobytes() + self._is_key.tobytes()


@dataclass(frozen=True, eq=False, repr=False)
class Packets:
    """The packets of a film in the order in which their pictures are shown.

    `times_s` f64 [n], not falling; `n_bytes` f64 [n]; `is_key` bool [n].
    """

    times_s: npt.NDArray[np.float64]
    n_bytes: npt.NDArray[np.float64]
    is_key: npt.NDArray[np.bool_]

    @classmethod
    def from_bytes(cls, raw: bytes | bytearray) -> Packets:
        """Build from what `PacketLog.to_bytes` gives."""
        import numpy as np

        n = len(raw) // (8 + 4 + 1)
        times_s = np.frombuffer(raw, np.float64, n)
        order = np.argsort(times_s, kind="stable")
        n_bytes = np.frombuffer(raw, np.uint32, n, 8 * n)[order].astype(np.float64)
        return cls(times_s[order], n_bytes, np.frombuffer(raw, np.bool_, n, 12 * n)[order])
