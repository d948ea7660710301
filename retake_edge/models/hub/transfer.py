"""Fetch one file: checked before it gets its name, and continued after an interruption.

huggingface_hub's own download begins anew after an interruption and compares sizes only. So the
transfer itself is its `http_get`, and where the bytes go is decided here: into SHA256.incomplete,
which becomes the blob SHA256 once that is the hash of its content.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

from retake_edge.files import file_sha256
from retake_edge.models.hub.cache import Sha256
from retake_edge.models.hub.errors import HubError

_T = TypeVar("_T")
_WAITS_S = (1.0, 2.0, 4.0)
_PASSING = (429, 500, 502, 503, 504)


@dataclass(frozen=True)
class RemoteFile:
    """A file as the hub records it: its path in the repository, size, SHA-256, and address."""

    path: str
    n_bytes: int
    sha256: str
    url: str


def with_retries(request: Callable[[], _T]) -> _T:
    """Make a request, and again after a while when the hub is busy for the moment."""
    from huggingface_hub.errors import HfHubHTTPError

    for wait_s in _WAITS_S:
        try:
            return request()
        except HfHubHTTPError as error:
            if error.response.status_code not in _PASSING:
                raise
        time.sleep(wait_s)
    return request()


def download(
    file: RemoteFile,
    repo_dir: Path,
    commit: str,
    *,
    headers: Mapping[str, str],
    sha256: Sha256,
    progress: Callable[[int], None],
) -> int:
    """Make a file be in a snapshot; return the bytes that had to be fetched.

    `progress` is called with the bytes there are so far. Another process that fetches the same
    file is waited for.

    Raises:
        HubError: the content is not what the hub recorded, or the disk has no room.
    """
    from huggingface_hub.utils import WeakFileLock

    pointer = repo_dir / "snapshots" / commit / file.path
    if _is_good(pointer, file, sha256):
        return 0
    blob = repo_dir / "blobs" / file.sha256
    lock = repo_dir.parent / ".locks" / repo_dir.name / f"{file.sha256}.lock"
    for folder in (blob.parent, lock.parent, pointer.parent):
        folder.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):
        n_fetched = 0
        if not _is_good(blob, file, sha256):
            blob.unlink(missing_ok=True)
            n_fetched = _fetch(file, blob, headers, progress)
        _link(blob, pointer)
    return n_fetched


def _is_good(path: Path, file: RemoteFile, sha256: Sha256) -> bool:
    if not path.is_file() or path.stat().st_size != file.n_bytes:
        return False
    return sha256(path) == file.sha256


def _fetch(
    file: RemoteFile, blob: Path, headers: Mapping[str, str], progress: Callable[[int], None]
) -> int:
    """Fetch the blob; what an earlier attempt left is used, but never at the price of the rest."""
    part = blob.with_name(f"{file.sha256}.incomplete")
    n_before = part.stat().st_size if part.is_file() else 0
    _transfer(file, part, headers, progress)
    is_good = _is_good(part, file, file_sha256)
    if n_before and not is_good:
        part.unlink()
        n_before = 0
        _transfer(file, part, headers, progress)
        is_good = _is_good(part, file, file_sha256)
    if not is_good:
        part.unlink()
        raise HubError(
            f"{file.path} did not arrive as the hub recorded it (its SHA-256 differs), and was "
            "removed; try again later."
        )
    part.replace(blob)
    return file.n_bytes - n_before


def _transfer(
    file: RemoteFile, part: Path, headers: Mapping[str, str], progress: Callable[[int], None]
) -> None:
    """Bring the missing bytes of a file to the disk."""
    from huggingface_hub.file_download import http_get

    if part.is_file() and part.stat().st_size > file.n_bytes:
        part.unlink()
    with part.open("r+b" if part.is_file() else "w+b", buffering=0) as raw:

        def rest() -> None:
            there = raw.seek(0, os.SEEK_END)
            if there == file.n_bytes:
                return
            _check_room(part.parent, file, file.n_bytes - there)
            target = cast(BinaryIO, _Counted(raw, progress))
            http_get(file.url, target, resume_size=there, headers=dict(headers))

        with_retries(rest)
        os.fsync(raw.fileno())


def _check_room(folder: Path, file: RemoteFile, n_needed: int) -> None:
    n_free = shutil.disk_usage(folder).free
    if n_free < n_needed:
        raise HubError(
            f"{file.path} needs {_megabytes(n_needed)} more, but the disk of {folder} has "
            f"{_megabytes(n_free)} free; make room, or set HF_HUB_CACHE to another disk."
        )


def _megabytes(n_bytes: int) -> str:
    return f"{-(-n_bytes // 10**6)} MB"


class _Counted:
    """A file that tells how much it holds, and writes whole blocks or fails."""

    def __init__(self, raw: Any, progress: Callable[[int], None]) -> None:
        self._raw, self._progress = raw, progress
        self.seek, self.tell, self.truncate = raw.seek, raw.tell, raw.truncate

    def write(self, data: bytes) -> int:
        view = memoryview(data)
        while view:
            view = view[self._raw.write(view) :]
        self._progress(self._raw.tell())
        return len(data)


def _link(blob: Path, pointer: Path) -> None:
    """Let `pointer` lead to the blob; on a disk without links the blob itself moves there."""
    target = os.path.relpath(blob, pointer.parent)
    fresh = pointer.with_name(f".{pointer.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    try:
        fresh.symlink_to(target)
    except (OSError, NotImplementedError):
        blob.replace(pointer)
        return
    fresh.replace(pointer)
