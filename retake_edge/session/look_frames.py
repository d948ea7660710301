"""The frames of a second look: read from the file again, or those that the first reading kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path

import numpy as np

from retake_edge.config import RetakeConfig
from retake_edge.engine.state import ImageRule
from retake_edge.errors import VideoError
from retake_edge.plan.frames import look_frames, look_size, wanted_times
from retake_edge.session.closer import Grid, Look, SampledGrid
from retake_edge.session.prefilled import PrefilledVideo
from retake_edge.session.store.features import SavedFeatures
from retake_edge.session.store.looks import SavedLooks
from retake_edge.stages import StageTimes
from retake_edge.video.glance import SIDE_PX, Moment, unseen_moments
from retake_edge.video.read import open_video
from retake_edge.video.sampling import SampleTimes, time_grid
from retake_edge.vision.encoder import VisionEncoder, VisionFeatures

TIMES_CLOSER = 4
"""Tokens a second of a second look, against the first reading's: more frames, or larger ones."""
_GLANCE_BATCH = 256


class FileFrames:
    """Frames of the file, of the model's full size: more of them a second, or larger than at first.

    `saved`: what was looked at before. `without_file`: ''. `are_larger`: what they show may be too
    small to be read in the first reading's frames. To be closed after use.

    Raises:
        VideoError: the file is gone, cannot be read, or `is_unchanged` says that it has changed.
    """

    without_file = ""

    def __init__(
        self,
        prefilled: PrefilledVideo,
        config: RetakeConfig,
        saved: SavedLooks,
        is_unchanged: Callable[[], bool],
    ) -> None:
        self._prefilled, self._config, self._saved = prefilled, config, saved
        self._resources = ExitStack()
        self._moments: list[Moment] | None = None
        path = Path(prefilled.video.path)
        if path.is_file() and not is_unchanged():
            raise VideoError(f"{path} has changed since it was read.")
        self._reader = self._resources.enter_context(open_video(path))
        n_frames = look_frames(prefilled.manifest, config)
        self._size = look_size(prefilled.manifest, n_frames, self._reader.info)
        info, rule = self._reader.info, prefilled.manifest.frames
        self._first_times = wanted_times(prefilled.manifest, config, info)
        n, long_side_px = self._first_times.n, config.sampling.long_side_px
        first_size = rule.frame_size(info.width_px, info.height_px, n, long_side_px)
        n_first = rule.n_vision_tokens(*first_size)
        self.are_larger = self.n_vision_tokens > n_first
        self._times_denser = max(1.0, TIMES_CLOSER * n_first / self.n_vision_tokens)

    def close(self) -> None:
        """End the decoder and free the tower."""
        self._resources.close()

    @property
    def n_vision_tokens(self) -> int:
        """Vision tokens of a grid frame."""
        return self._prefilled.manifest.frames.n_vision_tokens(*self._size)

    @cached_property
    def _encoder(self) -> VisionEncoder:
        prefilled, runtime = self._prefilled, self._config.runtime
        model, rule = prefilled.engine.model, prefilled.manifest.frames
        encoder = self._resources.enter_context(
            VisionEncoder(
                model,
                prefilled.manifest.mmproj,
                offload=runtime.mmproj_offload,
                n_threads=runtime.n_threads,
                overview=rule.overview,
                pooling=rule.pooling,
            )
        )
        set_image_rule(prefilled, non_causal=encoder.non_causal)
        return encoder

    @cached_property
    def grid(self) -> Grid:
        """The frames that can be looked at."""
        sampling, manifest = self._config.sampling, self._prefilled.manifest
        info, rule = self._reader.info, manifest.positions
        per_step = manifest.frames.frames_per_step
        start_s, step_s, _ = time_grid(
            info.duration_s,
            fps=sampling.fps or manifest.fps,
            max_frames=sampling.max_frames or manifest.max_frames,
            start_s=sampling.start_s,
            end_s=sampling.end_s,
            first_s=info.first_s,
        )
        end_s = min(sampling.end_s or info.duration_s, info.duration_s)
        step_s /= self._times_denser
        if rule.kind in ("mrope-time", "mrope-clock"):  # two moments need two positions
            step_s = max(step_s, 1 / (rule.positions_per_second * per_step))
        return Grid(start_s, max(step_s, info.frame_s), end_s, per_step)

    def moments(self) -> Sequence[Moment]:
        """Return what happens between the frames of the first reading; found once a video.

        Raises:
            VideoError: the file cannot be read.
        """
        if self._times_denser == 1:
            return ()  # no frame lies between those of the first reading
        if self._moments is None:
            self._moments = self._saved.moments()
        if self._moments is None:
            grid = self.grid
            every = SampleTimes(grid.start_s, grid.step_s, grid.n)
            size = SIDE_PX, SIDE_PX
            frames = self._reader.frames(every, size, batch_frames=_GLANCE_BATCH)
            self._moments = unseen_moments(frames, self._first_times.all_s)
            self._saved.keep_moments(self._moments)
        return self._moments

    def features(self, looks: Iterable[Look], times: StageTimes) -> list[VisionFeatures]:
        """Return the vision features of looks; those that were looked at before are not read again.

        Looks without a frame in the file are left out.

        Raises:
            VideoError: the file cannot be read. ModelError: the tower failed.
        """
        found = []
        for look in looks:
            name = self._name(look)
            features = self._saved.features(name)
            if features is None:
                features = self._encoded(look, times)
                if features is None:
                    continue
                self._saved.keep(name, features)
            found.append(features)
        self._encoder  # noqa: B018 - how images are decoded is known from it
        return found

    def _name(self, look: Look) -> str:
        """Return a name made of what a look's features depend on besides the session."""
        width, height = self._size
        start_us, step_us = (
            round(1e6 * s) for s in (self.grid.time_s(look.first), self.grid.step_s)
        )
        return f"{width}x{height}-{start_us}-{step_us}-{look.n}"

    def _encoded(self, look: Look, times: StageTimes) -> VisionFeatures | None:
        rule, grid = self._prefilled.manifest.frames, self.grid
        wanted = SampleTimes(grid.time_s(look.first), grid.step_s, look.n)
        with times.measure("decode again"):
            looked_at = self._reader.frames(
                wanted, self._size, fit=rule.fit, resample=rule.resample, via_px=rule.via_px
            )
            batches = list(looked_at)
        if not batches:
            return None
        frames = np.concatenate([batch.frames for batch in batches])
        times_s = np.concatenate([batch.times_s for batch in batches])
        with times.measure("encode again"):
            return self._encoder.encode(frames, times_s, grid.step_s).rounded()


class KeptFrames:
    """The frames of the first reading, whole, from the features that were kept of it.

    `without_file`: why they stand in for the file. They show no moments between them.
    """

    are_larger = False

    def __init__(
        self,
        prefilled: PrefilledVideo,
        config: RetakeConfig,
        kept: SavedFeatures,
        without_file: str,
    ) -> None:
        self._kept, self.without_file = kept, without_file
        self.n_vision_tokens = kept.n_tokens
        duration_s = prefilled.video.duration_s
        self.grid: Grid = SampledGrid(
            prefilled.video_map.frame_times_s,
            min(config.sampling.end_s or duration_s, duration_s),
            prefilled.manifest.frames.frames_per_step,
        )
        set_image_rule(prefilled, non_causal=kept.non_causal)

    def moments(self) -> Sequence[Moment]:
        """Return none."""
        return ()

    def features(self, looks: Iterable[Look], times: StageTimes) -> list[VisionFeatures]:
        """Return the vision features of looks.

        Raises:
            SessionError: what was kept is damaged.
        """
        step = self.grid.frames_per_step
        with times.measure("decode again"):
            return [
                self._kept.between(look.first // step, (look.first + look.n) // step)
                for look in looks
            ]


def set_image_rule(prefilled: PrefilledVideo, *, non_causal: bool) -> None:
    """Have images decoded as the vision tower wants it."""
    engine = prefilled.engine
    one_by_one = non_causal or engine.model.scales_tokens
    engine.images = ImageRule(one_by_one=one_by_one, non_causal=non_causal)
