"""Decode and encode a video, batch by batch, as its features are consumed."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retake_edge.config import RetakeConfig
from retake_edge.models.manifest import ModelManifest
from retake_edge.progress import ProgressCallback, no_progress
from retake_edge.stages import StageTimes
from retake_edge.video.read import FrameBatch, VideoInfo, sample_frames, time_grid
from retake_edge.vision.encoder import Doubles, VisionEncoder, VisionFeatures

MAX_THUMBNAILS = 240
THUMBNAIL_PX = 160
_THUMBNAIL_QUALITY = 75

Thumbnail = tuple[float, bytes]
"""A grid frame's time in seconds, and its picture as a small JPEG."""


class VideoReader:
    """A video being read: `features` yields its grid frames, after `use`.

    `frame_times_s`: of every frame delivered so far; `times_s`: of every grid frame; `thumbnails`:
    of evenly spaced grid frames, MAX_THUMBNAILS at most. A video that an earlier run
    has read in part goes on after `done_times_s`, the times of the frames it used.
    """

    def __init__(
        self,
        path: str | Path,
        manifest: ModelManifest,
        config: RetakeConfig,
        times: StageTimes,
        done_times_s: Doubles | None = None,
    ) -> None:
        sampling = config.sampling
        self.encoder: VisionEncoder | None = None
        self.info: VideoInfo | None = None
        self.frame_times_s: list[float] = [] if done_times_s is None else done_times_s.tolist()
        self.times_s: list[float] = []
        self.thumbnails: list[Thumbnail] = []
        self._is_stretched = manifest.frames.fit == "stretch"
        self._times = times
        self._progress: ProgressCallback = no_progress
        self._window = {
            "fps": sampling.fps or manifest.fps,
            "max_frames": sampling.max_frames or manifest.max_frames,
            "start_s": sampling.start_s,
            "end_s": sampling.end_s,
        }
        batches = sample_frames(
            path,
            **self._window,  # type: ignore[arg-type]
            target_size=manifest.frames.size_rule(sampling.long_side_px),
            fit=manifest.frames.fit,
            resample=manifest.frames.resample,
            via_px=manifest.frames.via_px,
            batch_frames=-(-config.runtime.encode_batch_frames // 2) * 2,
            after_s=self.frame_times_s[-1] if self.frame_times_s else None,
            on_info=self._keep_info,
        )
        self._batches = self._times.each("decode", batches)
        self.features = self._encode()

    def use(self, encoder: VisionEncoder, progress: ProgressCallback) -> None:
        """Take the tower for the frames, and tell `progress` of what is decoded and encoded."""
        self.encoder, self._progress = encoder, progress

    def begin(self) -> VideoInfo:
        """Decode the first frames, and return what the file holds."""
        first = list(islice(self._batches, 1))
        self._batches = chain(first, self._batches)
        assert self.info is not None
        return self.info

    @property
    def frames_per_step(self) -> int:
        """Video frames that share one grid frame."""
        assert self.encoder is not None
        return self.encoder.frames_per_step

    def _keep_info(self, info: VideoInfo) -> None:
        self.info = info

    @property
    def n_frames(self) -> int:
        """Frames delivered so far."""
        return len(self.frame_times_s)

    @property
    def end_s(self) -> float:
        """End of the part of the video that is read, in seconds."""
        assert self.info is not None
        end_s = self._window["end_s"]
        return self.info.duration_s if end_s is None else min(end_s, self.info.duration_s)

    def n_planned(self) -> int:
        """Return how many frames will come (at most)."""
        assert self.info is not None
        window: dict[str, Any] = {**self._window, "first_s": self.info.first_s}
        return time_grid(self.info.duration_s, **window)[2]

    def _encode(self) -> Iterator[VisionFeatures]:
        assert self.encoder is not None
        self.times_s.extend(self.frame_times_s[:: self.frames_per_step])
        for batch in self._batches:
            first = len(self.times_s)
            self.frame_times_s.extend(batch.times_s.tolist())
            self._progress("decode", self.n_frames, self.n_planned())
            n_before = self.n_frames - len(batch.times_s)
            on_step = partial(self._tell, n_before)
            with self._times.measure("encode"):
                features = self.encoder.encode(batch.frames, batch.times_s, batch.step_s, on_step)
            self.times_s.extend(features.times_s.tolist())
            self._keep_thumbnails(batch, first)
            yield features

    def _tell(self, n_before: int, n_done: int) -> None:
        self._progress("encode", n_before + n_done, self.n_planned())

    def _keep_thumbnails(self, batch: FrameBatch, first_step: int) -> None:
        n_steps = -(-self.n_planned() // self.frames_per_step)
        every = max(1, -(-n_steps // MAX_THUMBNAILS))
        assert self.info is not None
        shape = (self.info.width_px, self.info.height_px) if self._is_stretched else None
        for i, at in enumerate(range(0, len(batch.frames), self.frames_per_step)):
            if (first_step + i) % every == 0:
                picture = small_jpeg(batch.frames[at], shape)
                self.thumbnails.append((float(batch.times_s[at]), picture))


def small_jpeg(frame: npt.NDArray[np.uint8], shape: tuple[int, int] | None = None) -> bytes:
    """Return a small JPEG of a frame uint8 [H, W, 3], RGB.

    `shape`: (width, height) before it was stretched to the size that a model wants.
    """
    import cv2

    width, height = shape or (frame.shape[1], frame.shape[0])
    scale = min(1.0, THUMBNAIL_PX / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    picture: Any = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
    options = [cv2.IMWRITE_JPEG_QUALITY, _THUMBNAIL_QUALITY]
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), options)
    return bytes(encoded)
