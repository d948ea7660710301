"""The second look: after a first answer, the seconds that matter are read again, closely.

More frames a second, at the model's full size, nothing of them dropped; they stand at their true
times beside what is kept of the video, and the question is answered from both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from retake_edge.config import RetakeConfig
from retake_edge.engine.beside import Beside, why_not_beside
from retake_edge.engine.chunks import ChunkBuilder, FrameBlock, n_text_per_step
from retake_edge.engine.state import ImageRule
from retake_edge.errors import RetakeError, VideoError
from retake_edge.plan.frames import look_frames, look_size, wanted_times
from retake_edge.session.closer import Grid, Look, shown_spans
from retake_edge.session.prefilled import PrefilledVideo
from retake_edge.session.store.looks import SavedLooks
from retake_edge.stages import StageTimes
from retake_edge.video.glance import SIDE_PX, Moment, unseen_moments
from retake_edge.video.parts import PartReader
from retake_edge.video.picture import GLANCE
from retake_edge.video.sampling import time_grid
from retake_edge.vision.encoder import VisionEncoder, VisionFeatures, newline_of

TIMES_CLOSER = 4
"""Frames a second of a second look, against the first reading's."""
_GLANCE_BATCH = 256


@dataclass(frozen=True)
class LookedAgain:
    """A second look at a video.

    `spans`: (start, end) in seconds of what was looked at, in order of time, and `why` of each:
    'named' in the question, 'evidence' of the first answer, 'unseen' by the first reading.
    `n_frames` in all, `fps` of them a second. `first_text`: the first answer, with its
    `first_probability`. `problem`: why it was not done, '' if it was.
    """

    spans: tuple[tuple[float, float], ...] = ()
    why: tuple[str, ...] = ()
    n_frames: int = 0
    fps: float = 0.0
    first_text: str = ""
    first_probability: float = 0.0
    problem: str = ""

    def __str__(self) -> str:
        """Return one line for people."""
        if self.problem:
            return f"not looked at again: {self.problem}"
        pairs = list(zip(self.spans, self.why, strict=True))
        parts = []
        if near := [span for span, why in pairs if why != "unseen"]:
            parts.append(shown_spans(near))
        if n := len(pairs) - len(near):
            parts.append(f"{n} moment{'s' if n > 1 else ''} between its frames")
        return f"looked again at {' and '.join(parts)} ({self.n_frames} frames)"


class SecondLook:
    """Means for a second look: the file's frames, the vision tower, and what was looked at before.

    `saved`: features of earlier looks. `is_unchanged`: whether the file is still the one that was
    read; asked once. To be closed after use.
    """

    def __init__(
        self,
        prefilled: PrefilledVideo,
        config: RetakeConfig,
        saved: SavedLooks,
        is_unchanged: Callable[[], bool] = lambda: True,
    ) -> None:
        self._prefilled, self._config, self._saved = prefilled, config, saved
        self._is_unchanged = is_unchanged
        self._resources = ExitStack()
        self._moments: list[Moment] | None = None

    def close(self) -> None:
        """End the decoder and free the tower."""
        self._resources.close()

    @property
    def n_frames(self) -> int:
        """Frames of a second look at most; 0 where none is wanted."""
        return look_frames(self._prefilled.manifest, self._config)

    @cached_property
    def why_not(self) -> str:
        """Reason why this video cannot be looked at again, '' if it can."""
        return why_not_beside(self._prefilled.engine)

    def n_affordable(self, n_text: int) -> int:
        """Return the frames for which there are cells, besides `n_text` of question and answer."""
        engine, rule = self._prefilled.engine, self._prefilled.manifest.frames
        room = engine.context.n_ctx - engine.n_cells - n_text
        n_steps = max(0, room) // self._cells_per_step()
        return min(self.n_frames, n_steps * rule.frames_per_step)

    def _cells_per_step(self) -> int:
        manifest, model = self._prefilled.manifest, self._prefilled.engine.model
        size = look_size(manifest, self.n_frames, self._reader.info)
        last_s = float(self._prefilled.video_map.frame_times_s[-1])
        n_text = n_text_per_step(model, manifest.positions, self._n_steps, last_s, last_s)
        return manifest.frames.n_vision_tokens(*size) + n_text

    @property
    def _n_steps(self) -> int:
        return len(self._prefilled.video_map.frame_times_s)

    @cached_property
    def _reader(self) -> PartReader:
        """The file.

        Raises:
            VideoError: it is gone, or another one by now.
        """
        path = Path(self._prefilled.video.path)
        if path.is_file() and not self._is_unchanged():
            raise VideoError(f"{path} has changed since it was read.")
        return self._resources.enter_context(PartReader(path))

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
        one_by_one = encoder.non_causal or model.scales_tokens
        prefilled.engine.images = ImageRule(one_by_one=one_by_one, non_causal=encoder.non_causal)
        return encoder

    @cached_property
    def grid(self) -> Grid:
        """The frames that can be looked at.

        Raises:
            VideoError: the file cannot be read.
        """
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
        step_s /= TIMES_CLOSER
        if rule.kind in ("mrope-time", "mrope-clock"):  # two moments need two positions
            step_s = max(step_s, 1 / (rule.positions_per_second * per_step))
        return Grid(start_s, max(step_s, info.frame_s), end_s, per_step)

    def moments(self) -> Sequence[Moment]:
        """Return what happens between the frames of the first reading; found once a video.

        Raises:
            VideoError: the file cannot be read.
        """
        if self._moments is None:
            self._moments = self._saved.moments()
        if self._moments is None:
            grid = self.grid
            wanted = wanted_times(self._prefilled.manifest, self._config, self._reader.info)
            frames = self._reader.frames(
                grid.start_s,
                grid.step_s,
                grid.n,
                (SIDE_PX, SIDE_PX),
                resample=GLANCE,
                batch_frames=_GLANCE_BATCH,
            )
            self._moments = unseen_moments(frames, wanted.all_s)
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
        width, height = look_size(self._prefilled.manifest, self.n_frames, self._reader.info)
        start_us, step_us = (round(1e6 * s) for s in (self.grid.time_s(look.first), self._step_s))
        return f"{width}x{height}-{start_us}-{step_us}-{look.n}"

    @property
    def _step_s(self) -> float:
        return self.grid.step_s

    def _encoded(self, look: Look, times: StageTimes) -> VisionFeatures | None:
        rule, grid = self._prefilled.manifest.frames, self.grid
        size = look_size(self._prefilled.manifest, self.n_frames, self._reader.info)
        with times.measure("decode again"):
            batches = list(
                self._reader.frames(
                    grid.time_s(look.first),
                    grid.step_s,
                    look.n,
                    size,
                    fit=rule.fit,
                    resample=rule.resample,
                    via_px=rule.via_px,
                )
            )
        if not batches:
            return None
        frames = np.concatenate([batch.frames for batch in batches])
        times_s = np.concatenate([batch.times_s for batch in batches])
        with times.measure("encode again"):
            return self._encoder.encode(frames, times_s, grid.step_s).rounded()

    def beside(self, end: int) -> Beside:
        """Return the sequence of the video, to which features can be added from `blocks`.

        `end`: where text after the video, or a conversation, would begin.
        """
        prefilled = self._prefilled
        manifest, engine = prefilled.manifest, prefilled.engine
        origin_s = float(prefilled.video_map.frame_times_s[0])
        newline = newline_of(manifest)
        builder = ChunkBuilder(
            engine.model, manifest.positions, prefilled.n_before, origin_s, newline
        )
        return Beside(engine, manifest.positions, builder, end)

    def block(self, features: VisionFeatures) -> FrameBlock:
        """Return features as frames of the video: numbered as those of the first reading were."""
        n_steps, n_tokens = features.embeddings.shape[:2]
        times_s = self._prefilled.video_map.frame_times_s
        first = int(np.searchsorted(times_s, features.times_s[0] + 1e-6)) - 1
        none = np.zeros((n_steps, n_tokens), np.float32)
        return FrameBlock(features, none, none.astype(np.bool_), max(1, first))


def problem_of(error: RetakeError) -> str:
    """Return why a second look failed, as the end of a sentence."""
    return str(error).rstrip(".")
