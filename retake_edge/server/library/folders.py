"""List folders and videos below the media paths, for choosing one on the page."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retake_edge.server.errors import ApiError
from retake_edge.video.path import SUFFIXES

_MOST = 1000


def listing(roots: Sequence[Path], path: str) -> dict[str, Any]:
    """Return what is in a folder; `path`: '' for the roots, else that of a folder told before.

    Raises:
        ApiError: there is no such folder below a root (404).
    """
    if not path and len(roots) == 1:
        path = str(roots[0])
    if not path:
        entries = [_entry(root, root.name, is_folder=True) for root in roots]
        return {"path": "", "name": "", "parent": None, "entries": entries, "n_more": 0}
    folder = Path(os.path.realpath(path)) if "\0" not in path else Path("/")
    root = next((root for root in roots if folder.is_relative_to(root)), None)
    if root is None or not folder.is_dir():
        raise ApiError(404, "There is no such folder below a --media-path of this server.")
    above = "" if len(roots) > 1 else None
    entries = _entries(folder, root)
    return {
        "path": str(folder),
        "name": str(folder.relative_to(root.parent)),
        "parent": above if folder == root else str(folder.parent),
        "entries": entries[:_MOST],
        "n_more": max(0, len(entries) - _MOST),
    }


def _entries(folder: Path, root: Path) -> list[dict[str, Any]]:
    """Folders first, both by name; what links lead out of the root to is left out."""
    found = []
    try:
        with os.scandir(folder) as inside:
            for item in inside:
                is_folder = item.is_dir()
                if item.name.startswith(".") or not (is_folder or _is_video(item)):
                    continue
                if item.is_symlink() and not Path(os.path.realpath(item)).is_relative_to(root):
                    continue
                found.append(_entry(Path(item.path), item.name, is_folder=is_folder))
    except OSError as error:
        raise ApiError(404, f"The folder cannot be read ({error.strerror}).") from None
    return sorted(found, key=lambda entry: (not entry["is_folder"], entry["name"].casefold()))


def _is_video(item: os.DirEntry[str]) -> bool:
    return item.is_file() and Path(item.name).suffix.lower() in SUFFIXES


def _entry(path: Path, name: str, *, is_folder: bool) -> dict[str, Any]:
    n_bytes = None if is_folder else path.stat().st_size
    return {"path": str(path), "name": name, "is_folder": is_folder, "bytes": n_bytes}
