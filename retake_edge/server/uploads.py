"""Files that clients uploaded by name: OpenAI's file objects over the blobs.

An id is made from the content and the name, so that the same upload twice is one file.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from retake_edge.files import write_atomically
from retake_edge.server.blobs import BlobStore
from retake_edge.server.errors import ApiError


@dataclass(frozen=True)
class Upload:
    """One uploaded file; `created_s`: Unix time."""

    id: str
    sha256: str
    filename: str
    purpose: str
    n_bytes: int
    created_s: int

    def to_object(self) -> dict[str, Any]:
        """Return OpenAI's file object."""
        return {
            "id": self.id,
            "object": "file",
            "bytes": self.n_bytes,
            "created_at": self.created_s,
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "processed",
        }


class Uploads:
    """The files that clients listed; one JSON record each, beside the blobs."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs, self._lock = blobs, threading.Lock()
        self._uploads: dict[str, Upload] = {}
        for record in blobs.folder.glob("*.json"):
            with suppress(OSError, ValueError, TypeError):
                upload = Upload(**json.loads(record.read_text(encoding="utf-8")))
                if blobs.path(upload.sha256).is_file():
                    self._uploads[upload.id] = upload
        self._list()

    def add(self, blocks: Iterable[bytes], filename: str, purpose: str) -> Upload:
        """Store a file; raises what `BlobStore.add` raises."""
        sha256, n_bytes = self._blobs.add(blocks, hold=True)
        try:
            name = hashlib.sha256(f"{sha256}\n{filename!a}".encode()).hexdigest()[:32]
            upload = Upload(f"file-{name}", sha256, filename, purpose, n_bytes, int(time.time()))
            with self._lock:
                write_atomically(self._record(upload.id), json.dumps(asdict(upload)).encode())
                self._uploads[upload.id] = upload
                self._list()
        finally:
            self._blobs.release(sha256)
        return upload

    def get(self, file_id: str) -> Upload:
        """Return a file; ApiError 404 if there is none."""
        upload = self._uploads.get(file_id)
        if upload is None or not self._blobs.path(upload.sha256).is_file():
            raise ApiError(
                404, f"There is no file {ascii(file_id)[:80]}; upload it.", code="file_not_found"
            )
        return upload

    def all(self) -> list[Upload]:
        """Return all files, the newest first."""
        return sorted(self._uploads.values(), key=lambda upload: (-upload.created_s, upload.id))

    def remove(self, file_id: str) -> None:
        """Remove a file; a request that uses it goes on. ApiError 404 if there is none."""
        upload = self.get(file_id)
        with self._lock:
            self._uploads.pop(file_id, None)
            self._record(file_id).unlink(missing_ok=True)
            self._list()
        self._blobs.remove(upload.sha256)

    def _record(self, file_id: str) -> Path:
        return self._blobs.folder / f"{file_id}.json"

    def _list(self) -> None:
        self._blobs.list_only(upload.sha256 for upload in self._uploads.values())
