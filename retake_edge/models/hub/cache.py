"""The folder of hub files on this machine, shared with llama.cpp and huggingface_hub.

    models--USER--REPO/refs/main                  the commit that was pulled last
                      /snapshots/COMMIT/FILE      a link to
                      /blobs/SHA256               the content, named by the hub's own record of it

So a file's record is known without the hub: it is the name of the blob.

Source: llama.cpp, common/hf-cache.cpp.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from retake_edge.models.hub.errors import HubError
from retake_edge.models.hub.naming import HubRef, model_parts, projector_of

Sha256 = Callable[[Path], str]
"""From a file to its SHA-256 as 64 hex digits, perhaps from memory."""

_PLACES = (
    ("LLAMA_CACHE", ""),
    ("HF_HUB_CACHE", ""),
    ("HUGGINGFACE_HUB_CACHE", ""),
    ("HF_HOME", "hub"),
    ("XDG_CACHE_HOME", "huggingface/hub"),
)
_PREFIX = "models--"
SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class GgufPair:
    """The files of a model: the language model's parts in order, and the projector."""

    parts: tuple[Path, ...]
    mmproj: Path | None

    @property
    def files(self) -> tuple[Path, ...]:
        """All files."""
        return (*self.parts, self.mmproj) if self.mmproj else self.parts


def cache_dir() -> Path:
    """Return the folder, by the same variables in the same order as llama.cpp."""
    for variable, below in _PLACES:
        value = os.environ.get(variable)
        if value:
            return Path(value).expanduser() / below
    return Path.home() / ".cache/huggingface/hub"


def repo_dir(repo: str) -> Path:
    """Return where the files of a repository lie."""
    return cache_dir() / (_PREFIX + repo.replace("/", "--"))


def cached_repos() -> list[str]:
    """Return the repositories of which there are files."""
    folders = cache_dir().glob(f"{_PREFIX}*--*/snapshots")
    return sorted(f.parent.name.removeprefix(_PREFIX).replace("--", "/", 1) for f in folders)


def snapshots(repo: str) -> Iterator[tuple[Path, list[str]]]:
    """Yield each snapshot's folder and the GGUF files in it, the last pulled one first."""
    folder = repo_dir(repo)
    current = ""
    with suppress(OSError):
        current = (folder / "refs/main").read_text().strip()
    found = [path for path in folder.glob("snapshots/*") if path.is_dir()]
    found.sort(key=lambda path: (path.name == current, path.stat().st_mtime), reverse=True)
    for path in found:
        files = [file.relative_to(path) for file in path.rglob("*.gguf") if file.is_file()]
        yield path, sorted(file.as_posix() for file in files)


def find_pair(ref: HubRef, *, with_mmproj: bool = True) -> GgufPair | None:
    """Return the files of a model if they are all there, from one snapshot; else None."""
    for folder, paths in snapshots(ref.repo):
        parts = model_parts(paths, ref.quant)
        mmproj = projector_of(paths, parts[0]) if parts and with_mmproj else None
        if parts and set(parts) <= set(paths) and (mmproj or not with_mmproj):
            return GgufPair(tuple(folder / p for p in parts), folder / mmproj if mmproj else None)
    return None


def recorded_sha256(file: Path) -> str | None:
    """Return the hub's record of a cached file; None where the cache does not tell."""
    name = Path(os.readlink(file)).name if file.is_symlink() else file.name
    return name if SHA256.fullmatch(name) else None


def is_intact(file: Path, sha256: Sha256) -> bool:
    """Return whether a cached file is what the hub says; one without a record counts as whole."""
    recorded = recorded_sha256(file)
    return recorded is None or sha256(file) == recorded


def check(pair: GgufPair, name: str, sha256: Sha256) -> None:
    """Check a pair from the cache against the hub's record of it.

    Raises:
        HubError: a file differs.
    """
    for file in pair.files:
        if not is_intact(file, sha256):
            raise HubError(
                f"{file} is damaged (its SHA-256 is not the hub's); "
                f"run `retake-edge pull {name}` to fetch it again."
            )
