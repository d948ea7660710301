"""Pictures of moments of a video: thumbnails, and frames saved as image files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retake_edge.errors import ConfigError
from retake_edge.formats import clock
from retake_edge.session.evidence import Span

Image = npt.NDArray[np.uint8]

_JPEG_QUALITY = 95


@dataclass(frozen=True)
class Thumbnail:
    """A small JPEG of the frame shown at `time_s`."""

    time_s: float
    jpeg: bytes

    @property
    def time(self) -> str:
        """The time as m:ss."""
        return clock(self.time_s)


def _encoded(frame: Image) -> bytes:
    """The JPEG of a frame uint8 [H, W, 3], RGB."""
    import cv2

    bgr = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
    ok, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    assert ok
    return bytes(data)


def nearest(thumbnails: Sequence[Thumbnail], time_s: float) -> Thumbnail | None:
    """Return the thumbnail closest to a time, None if there are none."""
    return min(thumbnails, key=lambda t: abs(t.time_s - time_s), default=None)


def span_frames(
    video: str | os.PathLike[str], spans: Iterable[Span], *, fps: float
) -> Iterator[tuple[float, Image]]:
    """Yield (time_s, frame) of the video's own size, `fps` a second, of each span in turn.

    Raises:
        VideoError: the video cannot be read.
    """
    from retake_edge.video.read import sample_frames

    for span in spans:
        # A span's end is where the next frame begins; that frame is not part of it.
        window: dict[str, Any] = {"start_s": span.start_s, "end_s": span.end_s}
        for batch in sample_frames(video, fps=fps, **window):
            for time_s, frame in zip(batch.times_s, batch.frames, strict=True):
                if time_s < span.end_s:
                    yield float(time_s), frame


def save_frames(
    video: str | os.PathLike[str], spans: Iterable[Span], folder: Path, *, fps: float
) -> list[Path]:
    """Write the frames of spans as VIDEO-0h12m36.500s.jpg into a folder, and return their paths.

    The folder is made if need be. A file of that name that holds another picture is not touched.

    Raises:
        VideoError: the video cannot be read. ConfigError: a file cannot be written, or another
        one has its name.
    """
    stem, written = Path(video).stem, []
    for time_s, frame in span_frames(video, spans, fps=fps):
        path = folder / f"{stem}-{_name(time_s)}.jpg"
        jpeg = _encoded(frame)
        if path.exists() and path.read_bytes() != jpeg:
            raise ConfigError(
                f"{path} exists and is another picture; give --save-frames an empty folder."
            )
        write_file(path, jpeg)
        written.append(path)
    return written


def _name(time_s: float) -> str:
    """A time that sorts as text."""
    milliseconds = round(time_s * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    return f"{minutes // 60}h{minutes % 60:02d}m{milliseconds / 1000:06.3f}s"


def write_file(path: Path, data: bytes) -> None:
    """Write a whole file or none, making its folder if need be.

    Raises:
        ConfigError: the path cannot be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.write_bytes(data)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigError(f"Cannot write {path} ({reason}); choose another place.") from None
