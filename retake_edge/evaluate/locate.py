"""Find a set's videos by name, anywhere below its folder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from retake_edge.errors import ConfigError

SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".flv")


class VideoFiles:
    """The video files below a folder."""

    def __init__(self, folder: Path) -> None:
        self._by_name: dict[str, list[Path]] = {}
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() in SUFFIXES and path.is_file():
                self._by_name.setdefault(path.stem, []).append(path)

    def find(self, video: str) -> Path | None:
        """Return the file of a video named by the end of its path; its suffix may be another.

        Raises:
            ConfigError: several files go by this name.
        """
        wanted = PurePosixPath(video)
        is_file = wanted.suffix.lower() in SUFFIXES
        stem, parents = (wanted.stem if is_file else wanted.name), wanted.parts[:-1]
        found = self._by_name.get(stem, [])
        fitting = [p for p in found if parents and p.parts[-1 - len(parents) : -1] == parents]
        exact = [p for p in fitting or found if p.name == wanted.name]
        chosen = exact or fitting or found
        if len(chosen) > 1:
            raise ConfigError(
                f"Several files are named {video}: {chosen[0]} and {chosen[1]}; keep one of them."
            )
        return chosen[0] if chosen else None

    def missing(self, videos: Iterable[str]) -> list[str]:
        """Return the videos without a file, each once."""
        return [video for video in dict.fromkeys(videos) if self.find(video) is None]
