"""The path of a video: a regular file that can be read, and nothing that FFmpeg would fetch."""

from __future__ import annotations

import os
import re
from pathlib import Path

from retake_edge.errors import VideoError

SUFFIXES = frozenset(
    [
        *(".3gp", ".asf", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4"),
        *(".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".ts", ".vob", ".webm", ".wmv", ".y4m"),
    ]
)
"""Files of a folder that are taken for videos."""


def check_path(path: str | os.PathLike[str]) -> Path:
    """Return the absolute path of a readable, non-empty regular file; nothing else gets to FFmpeg.

    Raises:
        VideoError: it is a URL, missing, a directory, a device, empty or not readable.
    """
    name = os.fspath(path)
    if not name or "\0" in name:
        raise VideoError(f"{name!r} is not a file name; give the path of a video file.")
    check_no_url(name)
    # An absolute path begins with a slash or drive, which FFmpeg never takes for a protocol.
    file = Path(os.path.abspath(name))
    try:
        if file.is_dir():
            raise VideoError(f"{name} is a directory; give the path of one video file in it.")
        size = os.stat(file).st_size
        if not file.is_file():
            raise VideoError(f"{name} is not a regular file; save the video to a file first.")
        with open(file, "rb"):
            pass
        str(file).encode("utf-8")
    except FileNotFoundError:
        raise VideoError(f"There is no file {name}; check the path.") from None
    except UnicodeEncodeError:
        raise VideoError(f"The name of {name!r} is not valid Unicode; rename the file.") from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise VideoError(f"Cannot read {name} ({reason}); check its permissions.") from None
    if size == 0:
        raise VideoError(f"{name} is empty (0 bytes); record or download it again.")
    return file


_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(?:/.*|\S+)", re.DOTALL)
_SITE = re.compile(r"(?:www\.)?(?:[\w-]+\.)+(?:com|org|net|tv|be|io|de|edu|gov)/\S+", re.ASCII)


def is_url(name: str) -> bool:
    """Return whether a name is a URL, or the address of a page without its scheme, and no file."""
    is_address = _SCHEME.fullmatch(name) or _SITE.fullmatch(name)
    return bool(is_address) and not os.path.lexists(name)


def check_no_url(name: str) -> None:
    """Refuse a URL, written as it was before it became a path, with how to get the video.

    Raises:
        VideoError: it is one.
    """
    if "\0" in name or not is_url(name):
        return
    url = re.sub(r"^(\w+):/(?=[^/])", r"\1://", name)
    scheme = _SCHEME.fullmatch(url)
    how = "save it to a file and give its path"
    if scheme is None or scheme[1].lower() in ("http", "https"):
        how = f"download the video and give its path, for example: yt-dlp -o video.mp4 '{url}'"
    raise VideoError(f"{url} looks like a URL, and only local files are read; {how}.")
