"""The frames of a second look: read from the file again, or those that the first reading kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from retake_edge.config import RetakeConfig
from retake_edge.engine.state import ImageRule
from retake_edge.errors import VideoError
from retake_edge.plan.frames import wanted_times
from retake_edge.plan.look import closer_frames
from retake_edge.session.closer import Grid, Look, SampledGrid
from retake_edge.session.prefilled import PrefilledVideo
from retake_edge.session.store.features import SavedFeatures
from retake_edge.session.store.looks import SavedLooks
from retake_edge.session.video_map import VideoMap
from retake_edge.stages import StageTimes
from retake_edge.video.glance import Bools, Doubles, Glanced, Moment
from retake_edge.video.read import open_video
from retake_edge.video.sampling import SampleTimes
from retake_edge.vision.encoder import VisionEncoder, VisionFeatures


class FileFrames:
    """Frames of the file, of the model's full size: more of them a second, or larger than at first.

    `saved`: what was looked at before. `without_file`: ''. `grid`: the frames that can be looked
    at, of `n_vision_tokens` for each grid frame. `are_larger`: what they show may be too small to
    be read in the first reading's frames. To be closed after use.

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
        path = Path(prefilled.video.path)
        if path.is_file() and not is_unchanged():
            raise VideoError(f"{path} has changed since it was read.")
        self._reader = self._resources.enter_context(open_video(path))
        info, manifest = self._reader.info, prefilled.manifest
        self._first = wanted_times(manifest, config, info)
        self._closer = closer_frames(manifest, config, info, self._first)
        every, per_step = self._closer.every, manifest.frames.frames_per_step
        self.grid = Grid(every.start_s, every.step_s, self._closer.end_s, per_step)
        self.n_vision_tokens, self.are_larger = self._closer.n_tokens, self._closer.are_larger

    def close(self) -> None:
        """End the decoder and free the tower."""
        self._resources.close()

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

    def moments(self) -> Sequence[Moment]:
        """Return what nothing shows that was kept of the first reading; glanced at once a video.

        Raises:
            VideoError: the file cannot be read.
        """
        is_whole = all(kept_steps(self._prefilled.video_map))
        if is_whole and not self._closer.are_denser:
            return ()
        glanced = self._saved.glanced()
        if glanced is None:
            glanced = self._reader.glance(self._first, self._closer.every)
            self._saved.keep_glanced(glanced)
        dropped = dropped_moments(glanced, self._prefilled.video_map)
        between = glanced.moments if self._closer.are_denser else []
        return sorted([*between, *dropped], key=lambda moment: -moment.novelty)

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
        width, height = self._closer.size_px
        start_us, step_us = (
            round(1e6 * s) for s in (self.grid.time_s(look.first), self.grid.step_s)
        )
        return f"{width}x{height}-{start_us}-{step_us}-{look.n}"

    def _encoded(self, look: Look, times: StageTimes) -> VisionFeatures | None:
        rule, grid = self._prefilled.manifest.frames, self.grid
        wanted = SampleTimes(grid.time_s(look.first), grid.step_s, look.n)
        with times.measure("decode again"):
            looked_at = self._reader.frames(
                wanted,
                self._closer.size_px,
                fit=rule.fit,
                resample=rule.resample,
                via_px=rule.via_px,
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

    `without_file`: why they stand in for the file.
    """

    are_larger = False

    def __init__(
        self,
        prefilled: PrefilledVideo,
        config: RetakeConfig,
        saved: SavedLooks,
        kept: SavedFeatures,
        without_file: str,
    ) -> None:
        self._prefilled, self._saved = prefilled, saved
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
        """Return grid frames that nothing shows of what is kept, if the video was glanced at."""
        glanced, video_map = self._saved.glanced(), self._prefilled.video_map
        if glanced is None:
            return ()
        times_s = video_map.frame_times_s
        return [
            replace(moment, start_s=float(times_s[int(step_at(times_s, moment.start_s))]))
            for moment in dropped_moments(glanced, video_map)
        ]

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


def kept_steps(video_map: VideoMap) -> Bools:
    """Return of which grid frames something is kept, bool [T]."""
    frames = video_map.cell_frames
    is_kept = np.zeros(len(video_map.frame_times_s), np.bool_)
    is_kept[frames[frames >= 0]] = True
    return is_kept


def dropped_moments(glanced: Glanced, video_map: VideoMap) -> list[Moment]:
    """Return the moments that no frame shows of which something is kept."""
    steps = step_at(video_map.frame_times_s, glanced.seen_s)
    return glanced.dropped(kept_steps(video_map)[steps])


def step_at(times_s: Doubles, at_s: Doubles | float) -> npt.NDArray[np.intp]:
    """Return which of the grid frames that begin at `times_s` f64 [T] is shown at a time."""
    return np.maximum(np.searchsorted(times_s, np.asarray(at_s) + 1e-6, "right") - 1, 0)
