"""The mark of a video that `retake-edge scene` rendered: a comment in the file's own metadata.

By it such a video is known wherever it lies: the bundled model understands it, and no other video.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

MARK = "retake-edge scene"


def is_marked(metadata: Mapping[str, str]) -> bool:
    """Return whether a container's metadata has the mark, under whatever name the format gives."""
    return any(value.strip() == MARK for value in metadata.values())


def write_marked(source: Path, target: Path) -> None:
    """Copy a video's packets into `target`, with the mark; the pictures stay as they are.

    Raises:
        OSError: a file cannot be read or written.
    """
    import av

    try:
        with av.open(str(source)) as film, av.open(str(target), "w") as copy:
            copy.metadata["comment"] = MARK
            stream = film.streams.video[0]
            written = copy.add_stream_from_template(stream)
            for packet in film.demux(stream):
                if packet.dts is not None:
                    packet.stream = written
                    copy.mux(packet)
    except av.error.FFmpegError as error:
        raise OSError(f"{error}") from None
