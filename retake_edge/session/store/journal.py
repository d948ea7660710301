"""A file of checksummed records that grows at its end: how a session lies on disk.

A record is a head (tag: 4 bytes; CRC-32 of tag and content: uint32; length: uint64; little-endian)
and its content. What is written stays as it is, so a long video costs one write of its bytes,
and a file that was cut off is still good up to the last whole record.

CRC-32 finds every accident that is likely on a disk and runs at memory speed everywhere; SHA-256
would also find forgery, but whoever can write the user's cache can do worse.
"""

from __future__ import annotations

import io
import json
import mmap
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retake_edge.errors import SessionError

MAGIC = b"retake session\r\n"
JSON, ARRAYS, CELLS, STATES = b"JSON", b"ARRS", b"CELL", b"STAT"

Bytes = npt.NDArray[np.uint8]
Content = bytes | memoryview | Bytes

_HEAD = struct.Struct("<4sIQ")


class JournalWriter:
    """Appends records to a file, which is made new, or cut to its first `n_bytes` to go on."""

    def __init__(self, path: Path, n_bytes: int | None = None) -> None:
        # Unbuffered: closing the file after a failed write must not try to write once more.
        self._file = path.open("w+b" if n_bytes is None else "r+b", buffering=0)
        if n_bytes is None:
            self._write(memoryview(MAGIC))
        else:
            self._file.truncate(n_bytes)
            self._file.seek(n_bytes)

    def __enter__(self) -> JournalWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, tag: bytes, content: Content) -> None:
        """Add a record; it is only safe after `sync`."""
        view = memoryview(content).cast("B")  # type: ignore[arg-type]
        self._write(memoryview(_HEAD.pack(tag, _checksum(tag, view), len(view))))
        self._write(view)

    def append_json(self, values: Mapping[str, Any]) -> None:
        """Add a record of plain values."""
        self.append(JSON, json.dumps(values).encode())

    def append_arrays(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Add a record of named arrays."""
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        self.append(ARRAYS, buffer.getbuffer())

    def sync(self) -> int:
        """Bring everything to the disk; return the file's length in bytes."""
        os.fsync(self._file.fileno())
        return self._file.tell()

    def _write(self, view: memoryview) -> None:
        while view:
            view = view[self._file.write(view) :]


@dataclass(frozen=True)
class Record:
    """One record of a mapped file; `content` is read from the disk when it is touched."""

    tag: bytes
    checksum: int
    content: Bytes

    @property
    def is_intact(self) -> bool:
        """True if the content is what was written."""
        return _checksum(self.tag, self.content.data) == self.checksum


class Journal:
    """The records of a file, mapped into memory; only the first `n_bytes` if given.

    Raises:
        SessionError: the file is no session, or ends within a record. FileNotFoundError: there is
        none.
    """

    def __init__(self, path: Path, n_bytes: int | None = None) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                if size < len(MAGIC) or (n_bytes is not None and size < n_bytes):
                    raise self.error("it is cut short")
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (FileNotFoundError, NotADirectoryError):
            raise FileNotFoundError(path) from None
        except OSError as error:
            raise self.error(f"it cannot be read ({error.strerror})") from None
        data = np.frombuffer(self._map, np.uint8)[:n_bytes]
        if data[: len(MAGIC)].tobytes() != MAGIC:
            raise self.error("it is no session file")
        self._records = list(self._split(data))

    def error(self, reason: str) -> SessionError:
        """Return an error that says why the file cannot be used."""
        return SessionError(f"The saved session {self.path} cannot be used: {reason}.")

    def _split(self, data: Bytes) -> Iterator[Record]:
        at = len(MAGIC)
        while at < len(data):
            if at + _HEAD.size > len(data):
                raise self.error("it is cut short")
            tag, checksum, length = _HEAD.unpack(data[at : at + _HEAD.size].tobytes())
            at += _HEAD.size
            if at + length > len(data):
                raise self.error("it is cut short")
            yield Record(tag, checksum, data[at : at + length])
            at += length

    def head(self) -> dict[str, Any]:
        """Return the first record's values.

        Raises:
            SessionError: it is damaged.
        """
        return self._json(self._records[0]) if self._records else self._fail("it is empty")

    def last(self) -> dict[str, Any]:
        """Return the last record's values.

        Raises:
            SessionError: it is damaged.
        """
        return self._json(self._records[-1]) if self._records else self._fail("it is empty")

    def record(self, i: int) -> Record:
        """Return the record with a number.

        Raises:
            SessionError: it is damaged, or there are fewer.
        """
        if i >= len(self._records) or not self._records[i].is_intact:
            raise self.error("its checksum is wrong, so it is damaged")
        return self._records[i]

    def checked(self) -> Iterator[Record]:
        """Yield the records, each checked before: the next one is checked while one is used.

        Raises:
            SessionError: one is damaged.
        """
        # Checking and using both read memory outside Python's lock, so a thread doubles the speed.
        with ThreadPoolExecutor(1) as pool:
            ahead = pool.map(lambda record: record.is_intact, self._records)
            try:
                for record, is_intact in zip(self._records, ahead, strict=True):
                    if not is_intact:
                        raise self.error("its checksum is wrong, so it is damaged")
                    yield record
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _json(self, record: Record) -> dict[str, Any]:
        if record.tag != JSON or not record.is_intact:
            return self._fail("its checksum is wrong, so it is damaged")
        values: dict[str, Any] = json.loads(record.content.tobytes())
        return values

    def _fail(self, reason: str) -> dict[str, Any]:
        raise self.error(reason)


def read_arrays(record: Record) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of a record."""
    with np.load(io.BytesIO(record.content.tobytes()), allow_pickle=False) as arrays:
        return dict(arrays)


def _checksum(tag: bytes, content: memoryview) -> int:
    return zlib.crc32(content, zlib.crc32(tag))
