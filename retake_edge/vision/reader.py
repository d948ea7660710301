"""Decode and encode a video, batch by batch, as its features are consumed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retake_edge.config import RetakeConfig
from retake_edge.models.manifest import ModelManifest
from retake_edge.progress import ProgressCallback, no_progress
from retake_edge.stages import StageTimes
from retake_edge.video.glance import Glanced
from retake_edge.video.read import End, FrameBatch, GlancedAt, VideoInfo, sample_frames
from retake_edge.video.sampling import SampleTimes, sample_times
from retake_edge.vision.encoder import Bools, VisionEncoder, VisionFeatures, grid_times, repeat_last
from retake_edge.vision.still import StillFilter

MAX_THUMBNAILS = 240
THUMBNAIL_PX = 160
_THUMBNAIL_QUALITY = 75

Thumbnail = tuple[float, bytes]
"""A grid frame's time in seconds, and its picture as a small JPEG."""


@dataclass(frozen=True)
class Done:
    """What an earlier run has read of a video.

    `frame_times_s` of its frames; `is_new`: which of its grid frames were encoded; `n_before`: how
    many frames came before the first one that is read again to go on.
    """

    frame_times_s: Sequence[float] = ()
    is_new: Sequence[bool] = ()
    n_before: int = 0


class VideoReader:
    """A video being read: `features` yields its grid frames, after `use`.

    `frame_times_s`: of every frame delivered so far; `times_s`: of every grid frame; `is_new`:
    which of those were encoded: the others stood still (`vision.still`). `thumbnails`: of evenly
    spaced grid frames, MAX_THUMBNAILS at most. `done`: the part that an earlier run has read.
    `glance`: when to glance at it, too (`sample_frames`); `glanced`: what that has found, once the
    video is read from its beginning to its end.
    """

    def __init__(
        self,
        path: str | Path,
        manifest: ModelManifest,
        config: RetakeConfig,
        times: StageTimes,
        done: Done | None = None,
        glance: GlancedAt | None = None,
    ) -> None:
        sampling, done = config.sampling, done or Done()
        self.encoder: VisionEncoder | None = None
        self.info: VideoInfo | None = None
        self.frame_times_s, self.is_new = list(done.frame_times_s), list(done.is_new)
        self.times_s: list[float] = []
        self.thumbnails: list[Thumbnail] = []
        self.glanced: Glanced | None = None
        self._is_stretched = manifest.frames.fit == "stretch"
        self._still = StillFilter(sampling.still) if sampling.still else None
        self._held: VisionFeatures | None = None  # the last grid frame that was encoded
        self._n_read = done.n_before
        self._times = times
        self._progress: ProgressCallback = no_progress
        self._window: dict[str, Any] = {
            "fps": sampling.fps or manifest.fps,
            "max_frames": sampling.max_frames or manifest.max_frames,
            "start_s": sampling.start_s,
            "end_s": sampling.end_s,
            "sampling": sampling.sampling,
            "frames_per_step": manifest.frames.frames_per_step,
        }
        batches = sample_frames(
            path,
            **self._window,
            target_size=manifest.frames.size_rule(sampling.long_side_px),
            fit=manifest.frames.fit,
            resample=manifest.frames.resample,
            via_px=manifest.frames.via_px,
            batch_frames=-(-config.runtime.encode_batch_frames // 2) * 2,
            after_s=self.frame_times_s[done.n_before - 1] if done.n_before else None,
            on_info=self._keep_info,
            glance=glance,
            on_end=self._keep_glanced,
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

    def _keep_glanced(self, end: End) -> None:
        self.glanced = end.glanced

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

    @cached_property
    def _wanted(self) -> SampleTimes:
        assert self.info is not None
        return sample_times(self.info, **self._window)

    def n_planned(self) -> int:
        """Return how many frames will come (at most)."""
        return self._wanted.n

    @property
    def sampling(self) -> str:
        """How the frames are spread, whatever was asked for: `even` or `change`."""
        return self._wanted.sampling

    def _encode(self) -> Iterator[VisionFeatures]:
        self.times_s.extend(self.frame_times_s[:: self.frames_per_step])
        for batch in self._batches:
            n_before, first = self._n_read, self._n_read // self.frames_per_step
            n_again = len(self.times_s) - first  # grid frames that an earlier run has used
            self._n_read += len(batch.times_s)
            self.frame_times_s.extend(batch.times_s[self.n_frames - n_before :].tolist())
            self._times.beside.update(batch.seconds)
            self._progress("decode", self.n_frames, self.n_planned())
            features = self._features(batch, n_before)[n_again:]
            self.times_s.extend(features.times_s.tolist())
            self.is_new.extend(features.news.tolist())
            with self._times.measure("pictures"):
                self._keep_thumbnails(batch, first, n_again)
            if len(features.times_s):
                yield features

    def _features(self, batch: FrameBatch, n_before: int) -> VisionFeatures:
        """Features of a batch that comes after `n_before` frames; what is new in it is encoded."""
        is_new, known = self._news(batch), self._held
        if is_new.any():
            found = self._encoded(batch, n_before, is_new)
            self._hold(found)
            if is_new.all():
                return found
            known = found if known is None else known.joined(found)
        assert known is not None
        n_held = len(known.times_s) - int(is_new.sum())
        rows = known.embeddings[np.cumsum(is_new) - 1 + n_held]
        self._progress("encode", n_before + len(batch.times_s), self.n_planned())
        times = grid_times(batch.times_s, self.frames_per_step)
        return VisionFeatures(rows, *times, known.rows, known.cols, batch.step_s, is_new)

    def _encoded(self, batch: FrameBatch, n_before: int, is_new: Bools) -> VisionFeatures:
        """Features of the new grid frames of a batch."""
        assert self.encoder is not None
        frames = np.flatnonzero(np.repeat(is_new, self.frames_per_step)[: len(batch.times_s)])
        pictures = batch.frames if is_new.all() else batch.frames[frames]

        def on_step(n_done: int) -> None:
            self._progress("encode", n_before + int(frames[n_done - 1]) + 1, self.n_planned())

        with self._times.measure("encode"):
            return self.encoder.encode(pictures, batch.times_s[frames], batch.step_s, on_step)

    def _hold(self, features: VisionFeatures) -> None:
        """Keep the last grid frame, for those that show the same."""
        if self._still is not None:
            last = features[-1:]
            self._held = replace(last, embeddings=last.embeddings.copy())

    def _news(self, batch: FrameBatch) -> Bools:
        """Which grid frames of a batch show something new."""
        n, frames = self.frames_per_step, batch.frames
        starts = range(0, len(frames), n)
        if self._still is None:
            return np.ones(len(starts), np.bool_)
        with self._times.measure("still"):
            seen = [self._still.is_new(repeat_last(frames[at : at + n], n)) for at in starts]
        return np.array(seen)

    def _keep_thumbnails(self, batch: FrameBatch, first_step: int, n_again: int) -> None:
        n_steps = -(-self.n_planned() // self.frames_per_step)
        every = max(1, -(-n_steps // MAX_THUMBNAILS))
        assert self.info is not None
        shape = (self.info.width_px, self.info.height_px) if self._is_stretched else None
        for i, at in enumerate(range(0, len(batch.frames), self.frames_per_step)):
            if i >= n_again and (first_step + i) % every == 0:
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
