"""Parts of a video, asked for one after another from one decoder process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import TracebackType

import numpy as np
import numpy.typing as npt

from retake_edge.video.frame_size import SizeRule
from retake_edge.video.path import check_path
from retake_edge.video.process import DecoderProcess
from retake_edge.video.read import (
    FrameBatch,
    VideoInfo,
    VideoLimits,
    read_info,
    resolve_size,
    worker_request,
)


class PartReader:
    """A video of which frames are taken here and there; a context manager that ends its process.

    Raises:
        VideoError: the file cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str], limits: VideoLimits | None = None) -> None:
        self._limits = limits or VideoLimits()
        file = check_path(path)
        request = worker_request(file, self._limits)
        self._decoder = DecoderProcess(file, self._limits.no_progress_s, request)
        self._decoder.__enter__()
        try:
            self.info: VideoInfo = read_info(self._decoder, file)
        except BaseException:
            self._decoder.close()
            raise

    def __enter__(self) -> PartReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        self._decoder.close()

    def frames(
        self,
        start_s: float,
        step_s: float,
        n: int,
        target_size: SizeRule | tuple[int, int],
        *,
        fit: str = "stretch",
        resample: str = "area",
        via_px: int | None = None,
        batch_frames: int = 64,
    ) -> Iterator[FrameBatch]:
        """Yield the frames shown at start_s + i * step_s for i < n, as `sample_frames` does.

        There may be fewer, or none: where the video ends, or has fewer frames a second. All must be
        taken before others are asked for.

        Raises:
            VideoError: decoding failed. ConfigError: the size is out of range.
        """
        width, height = resolve_size(self.info, n, target_size, self._limits)
        self._decoder.send(
            {
                "fit": fit,
                "resample": resample,
                "via_px": via_px,
                "batch_frames": batch_frames,
                "max_pixels": self._limits.max_pixels,
                "start_s": start_s,
                "step_s": step_s,
                "n": n,
                "width_px": width,
                "height_px": height,
                "after_s": None,
            }
        )
        while True:
            message, raw = self._decoder.receive()
            if message["kind"] == "end":
                return
            frames: npt.NDArray[np.uint8] = np.frombuffer(raw, np.uint8).reshape(message["shape"])
            yield FrameBatch(frames, np.asarray(message["times_s"], np.float64), step_s)
