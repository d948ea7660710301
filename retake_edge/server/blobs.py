"""Videos that clients sent, each stored once under the SHA-256 of its content.

A blob has its final name only when it is whole and on the disk. What is being written is locked,
so that the rest of a killed process is known as such, and removed by the next one.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from retake_edge.files import locked
from retake_edge.server.errors import ApiError

BLOCK_BYTES = 1 << 20


class BlobStore:
    """The blobs below a folder; `max_bytes` of all, `max_blob_bytes` of one.

    Blobs that no one uses or lists go when room is needed, those not used for longest first.
    """

    def __init__(self, folder: Path, *, max_bytes: int, max_blob_bytes: int) -> None:
        self.folder, self._max_bytes, self._max_blob_bytes = folder, max_bytes, max_blob_bytes
        self._lock = threading.RLock()
        self._in_use: Counter[str] = Counter()
        # Kept here, and not as the files' times: a file with new times is another one to sessions.
        self._used: dict[str, float] = {}
        self._listed: frozenset[str] = frozenset()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for lock in folder.glob("*.lock"):
            _remove_if_left(lock)

    def path(self, sha256: str) -> Path:
        """Return where a blob lies, whether or not it is there."""
        return self.folder / f"{sha256}.blob"

    def add(self, blocks: Iterable[bytes], *, hold: bool = False) -> tuple[str, int]:
        """Store content; return its SHA-256 and size. With `hold` it is in use from then on.

        Raises:
            ApiError: it is empty (400), too large (413), or the disk is full (507).
        """
        with self._written(blocks) as (part, digest, n_bytes), self._lock:
            if not self.path(digest).is_file():
                self._make_room(n_bytes)
                part.replace(self.path(digest))
                _sync(self.folder)
            self._used[digest] = time.time()
            if hold:
                self._in_use[digest] += 1
        return digest, n_bytes

    @contextmanager
    def _written(self, blocks: Iterable[bytes]) -> Iterator[tuple[Path, str, int]]:
        """Content in a file that is removed afterwards, unless it got another name."""
        digest, n_bytes = hashlib.sha256(), 0
        part = self.folder / f"{secrets.token_hex(8)}.part"
        try:
            with locked(part.with_suffix(".lock")), part.open("xb") as file:
                for block in blocks:
                    n_bytes += len(block)
                    if n_bytes > self._max_blob_bytes:
                        raise _too_large(self._max_blob_bytes)
                    digest.update(block)
                    file.write(block)
                if n_bytes == 0:
                    raise ApiError(400, "The video is empty (0 bytes); send its content.")
                file.flush()
                os.fsync(file.fileno())
                yield part, digest.hexdigest(), n_bytes
        except OSError as error:
            raise ApiError(507, f"The video cannot be stored ({error.strerror}).") from error
        finally:
            part.unlink(missing_ok=True)

    def hold(self, sha256: str) -> bool:
        """Keep a blob from going while it is used; False if it is gone."""
        with self._lock:
            if not self.path(sha256).is_file():
                return False
            self._in_use[sha256] += 1
            self._used[sha256] = time.time()
            return True

    def release(self, sha256: str) -> None:
        """Undo one `hold`."""
        with self._lock:
            self._in_use[sha256] -= 1
            self._in_use += Counter()  # drops what is at 0

    def list_only(self, listed: Iterable[str]) -> None:
        """Say which blobs clients have listed: they never go by themselves."""
        with self._lock:
            self._listed = frozenset(listed)

    def remove(self, sha256: str) -> None:
        """Remove a blob that no one lists, unless a request uses it."""
        with self._lock:
            if sha256 not in self._listed and not self._in_use[sha256]:
                self.path(sha256).unlink(missing_ok=True)

    def _last_use(self, blob: tuple[os.stat_result, Path]) -> float:
        stat, path = blob
        return self._used.get(path.stem, stat.st_mtime)

    def _make_room(self, n_bytes: int) -> None:
        blobs = [(path.stat(), path) for path in self.folder.glob("*.blob")]
        total = sum(stat.st_size for stat, _ in blobs)
        for stat, path in sorted(blobs, key=self._last_use):
            if total + n_bytes <= self._max_bytes:
                return
            if path.stem not in self._listed and not self._in_use[path.stem]:
                path.unlink(missing_ok=True)
                total -= stat.st_size
        if total + n_bytes > self._max_bytes:
            raise ApiError(
                413,
                f"The uploaded videos take {total} of the {self._max_bytes} bytes kept for them; "
                "delete some files.",
                code="storage_full",
            )


def _too_large(most: int) -> ApiError:
    return ApiError(
        413, f"The video is larger than the {most} bytes that are allowed.", code="too_large"
    )


def _remove_if_left(lock: Path) -> None:
    """Remove what a killed process left; what one is writing is locked."""
    with suppress(OSError), locked(lock):
        lock.with_suffix(".part").unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
