"""The videos that a command line names: files, folders of them, and what is none of both."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from retake_edge.cli.streams import tell
from retake_edge.errors import ConfigError, VideoError
from retake_edge.video.path import SUFFIXES


def video_file(text: str) -> Path:
    """Return the path of a video; a URL is refused as it was written.

    Raises:
        VideoError: it is a URL.
    """
    from retake_edge.video.path import check_no_url

    check_no_url(text)
    return Path(text)


def video_and_question(video: str, question: str | None) -> tuple[Path, str | None]:
    """Return the video and the question, which may come in either order; a swap is told.

    Raises:
        ConfigError: there is a question, but no video. VideoError: the video is a URL.
    """
    if question is None:
        if not os.path.lexists(video) and _is_a_question(video):
            raise ConfigError(
                f"There is no video, only {video!r}; write: retake-edge ask VIDEO QUESTION."
            )
        return video_file(video), None
    if not os.path.lexists(video) and not _is_a_video(video) and _is_a_video(question):
        tell(f"note: {question} is taken as the video, which usually comes first")
        video, question = question, video
    return video_file(video), question


def _is_a_video(text: str) -> bool:
    """Return whether a text is, or would be, a video's file or URL."""
    from retake_edge.video.path import is_url

    return Path(text).suffix.lower() in SUFFIXES or os.path.isfile(text) or is_url(text)


def _is_a_question(text: str) -> bool:
    return bool(re.search(r"\s|\?$", text)) and not _is_a_video(text)


def videos_of(names: Sequence[str]) -> list[Path]:
    """Return the videos that names and folders stand for, each once, folders in order of names.

    Raises:
        VideoError: a folder has none, or a name is a URL.
    """
    found: list[Path] = []
    for name in names:
        path = video_file(name)
        found += _videos_in(path) if path.is_dir() else [path]
    return list({os.path.abspath(path): path for path in found}.values())


def _videos_in(folder: Path) -> list[Path]:
    found = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES]
    found = sorted(
        (path for path in found if path.is_file()), key=lambda path: _in_order(path.name)
    )
    if not found:
        raise VideoError(f"There is no video in the folder {folder}; give the files themselves.")
    return found


def _in_order(name: str) -> list[tuple[int, str]]:
    """A name's sort key, in which numbers count as numbers."""
    parts = re.split(r"(\d+)", name.casefold())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
