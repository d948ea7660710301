"""Files of ours: written whole or not at all, known by their SHA-256, kept in the cache folder."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def file_sha256(path: Path) -> str:
    """Return a file's SHA-256 as 64 hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file so that it is the old or the new one at any moment, also after a crash."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def locked(file: Path, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold a lock file, which is removed at the end; a process that ends, however, lets go of it.

    Where another one holds it, `on_wait` is called once, and the lock waited for.

    Raises:
        BlockingIOError: another one holds it, and there is no `on_wait`.
        OSError: the file cannot be written.
    """
    from filelock import FileLock, Timeout

    file.touch()
    lock = FileLock(file, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if on_wait is None:
            raise BlockingIOError(f"{file} is held by another process") from None
        on_wait()
        lock.acquire()
    try:
        yield
    finally:
        file.unlink(missing_ok=True)
        lock.release()


CACHE_DIR_VARIABLE = "RETAKE_CACHE_DIR"


def default_cache_dir() -> Path:
    """Return `RETAKE_CACHE_DIR`, or the user's cache folder of this program."""
    override = os.environ.get(CACHE_DIR_VARIABLE)
    if override:
        return Path(override)
    import platformdirs

    return platformdirs.user_cache_path("retake-edge", appauthor=False)


class JsonCache:
    """The newest `n_max` values by key; a file that cannot be read or written is ignored.

    Without a path nothing is known nor kept.
    """

    def __init__(self, path: Path | None, n_max: int) -> None:
        self._path, self._n_max = path, n_max

    def get(self, key: str) -> Any:
        """Return a key's value, None if there is none."""
        return self._read().get(key)

    def put(self, key: str, value: Any) -> None:
        """Remember a value as the newest."""
        if self._path is None:
            return
        known = self._read()
        known.pop(key, None)
        newest = dict([*known.items(), (key, value)][-self._n_max :])
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._path, json.dumps(newest).encode())
        except OSError:
            pass

    def _read(self) -> dict[str, Any]:
        if self._path is None:
            return {}
        try:
            known = json.loads(self._path.read_bytes())
        except (OSError, ValueError):
            return {}
        return known if isinstance(known, dict) else {}
