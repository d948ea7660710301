"""One reading of a video: chunk by chunk to its end, saved as it goes."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from retake_edge.engine.chunks import ChunkBuilder, FrameBlock, StreamState, frame_blocks
from retake_edge.engine.engine import ChunkResult, Engine
from retake_edge.engine.keyframes import Keyframes, keyframes
from retake_edge.engine.prefill import prefill
from retake_edge.engine.trained_context import position_mode, trained_positions
from retake_edge.llama.capture import is_compressible
from retake_edge.llama.model import Model
from retake_edge.models.manifest import ModelManifest
from retake_edge.plan.choose import choose_frames, in_whole_video
from retake_edge.plan.frames import CellBudget
from retake_edge.plan.run import Estimate
from retake_edge.session.prefilled import (
    OpenRequest,
    PrefilledVideo,
    SessionWarning,
    head_of,
    video_map_of,
)
from retake_edge.session.store.checkpoint import (
    Chunks,
    Recorder,
    Resume,
)
from retake_edge.session.store.features import FeatureRecorder
from retake_edge.session.telling import Teller
from retake_edge.session.video_map import VideoMap, VideoStats
from retake_edge.stages import StageTimes, added
from retake_edge.vision.encoder import VisionEncoder, VisionFeatures, newline_of
from retake_edge.vision.reader import VideoReader


@dataclass(frozen=True)
class Loaded:
    """The models of a run."""

    model: Model
    manifest: ModelManifest
    encoder: VisionEncoder


@dataclass
class Run:
    """One reading of a video: all it works with, and what it has done so far.

    `n_before`: the position after the text before the video. `n_whole_steps`: frames to be used of
    a video that does not fit whole, None where it does. `earlier_s`: seconds by stage of a run that
    was interrupted.
    """

    request: OpenRequest
    loaded: Loaded
    times: StageTimes
    plan: CellBudget
    engine: Engine
    reader: VideoReader
    features: Iterator[VisionFeatures]
    builder: ChunkBuilder
    teller: Teller
    estimate: Estimate
    n_before: int
    chunks: Chunks = field(default_factory=Chunks)
    stream: StreamState | None = None
    earlier_s: Mapping[str, float] = field(default_factory=dict)
    n_whole_steps: int | None = None
    not_compressible: str = ""
    recorder: Recorder | None = None
    kept: FeatureRecorder | None = None

    def record(self, resources: ExitStack, recorder: Recorder, key: str) -> None:
        """Save what is done from now on."""
        self.recorder = recorder
        resources.callback(recorder.close)
        head = {
            "key": key,
            **head_of(self.request, self.loaded.manifest.name),
            "frames_per_step": self.reader.frames_per_step,
            "n_before": self.n_before,
            "plan": asdict(self.plan),
        }
        self._save(lambda: recorder.begin(head))

    def resume(self, resources: ExitStack, recorder: Recorder, state: Resume) -> None:
        """Save what is done from now on behind what an earlier run saved."""
        self.recorder = recorder
        resources.callback(recorder.close)
        self._save(lambda: recorder.resume(state, self.chunks))

    def keep_features(
        self, resources: ExitStack, file: Path, key: str, done: tuple[int, int] | None = None
    ) -> None:
        """Save the features, too. `done`: grid frames and bytes that an earlier run has saved."""
        shape = self.plan.shape
        n_per_record = min(shape.steps_per_chunk, shape.n_steps)
        kept = self.kept = FeatureRecorder(file, n_per_record, self.plan.kv_bytes)
        resources.callback(kept.close)
        self.features = self._passing(self.features)
        if done is None:
            self._keep(partial(kept.begin, key, non_causal=self.loaded.encoder.non_causal))
        else:
            self._keep(partial(kept.resume, *done))

    def _passing(self, features: Iterator[VisionFeatures]) -> Iterator[VisionFeatures]:
        """Yield features, which are saved on their way."""
        for part in features:
            if self.kept is not None:
                self._keep(partial(self.kept.add, part))
            yield part

    def _keep(self, write: Callable[[], None]) -> None:
        """Write to the file of features; where that fails, go on without one."""
        try:
            with self.times.measure("save"):
                write()
        except OSError as error:
            self._drop_features()
            warnings.warn(
                f"The frames' features cannot be saved ({error.strerror}), so a second look will "
                "need the file; all else is saved.",
                SessionWarning,
                stacklevel=2,
            )

    def _drop_features(self) -> None:
        if self.kept is not None:
            self.kept.give_up()
            self.kept = None

    def _save(self, write: Callable[[], None]) -> None:
        """Write to the session; where that fails, go on without one."""
        try:
            with self.times.measure("save"):
                write()
        except OSError as error:
            assert self.recorder is not None
            self.recorder.give_up()
            self.recorder = None
            self._drop_features()
            warnings.warn(
                f"The session cannot be saved ({error.strerror}), so the next question will read "
                "the video again; choose another --cache-dir.",
                SessionWarning,
                stacklevel=2,
            )

    def prefill(self) -> None:
        """Prefill and compress chunk by chunk to the video's end."""
        config = self.request.config
        n_embd = self.loaded.model.n_embd
        saves_at_end = self.n_whole_steps is not None or not is_compressible(self.engine.context)
        chosen = self._chosen() if self.n_whole_steps is not None else None
        blocks = frame_blocks(
            chosen.parts if chosen else self.features,
            min(self.plan.shape.steps_per_chunk, self.plan.shape.n_steps),
            per_patch=config.dpselect.per_patch,
            n_embd=n_embd,
            after=self.stream,
        )
        blocks = self.times.each("select", blocks)  # DPSelect; what it reads counts for itself
        for block, result in prefill(self.engine, self.builder, blocks, self.plan.keep_ratio):
            self._take(block, result, saves_at_end=saves_at_end)
            del block  # its memory is that of the next one
        self.teller.tell("encode", self.reader.n_frames, self.reader.n_planned(), is_done=True)
        if chosen:
            self.chunks.results = [self._in_whole_video(chosen)]
        self._end(chosen)
        if self.recorder is not None and saves_at_end:
            self._save(partial(self.recorder.add_whole, self.reader, self.chunks.joined()))

    def _take(self, block: FrameBlock, result: ChunkResult, *, saves_at_end: bool) -> None:
        """Note and save a chunk; `saves_at_end`: the cells are saved all at the end."""
        self.chunks.results.append(result)
        stream = self.stream = StreamState.after(block, self.loaded.model.n_embd, self.stream)
        if self.kept is not None:
            self._keep(partial(self.kept.reach, stream.n_frames))
        if self.recorder is not None and not saves_at_end:
            self._save(partial(self._record_chunk, self.recorder, stream, result))
        self.teller.prefilled_s = float(block.features.times_s[-1])
        if self.recorder is not None and not saves_at_end:
            self.teller.saved_s = self.teller.prefilled_s
        self.teller.tell("prefill", self.reader.n_frames, self.reader.n_planned())

    def _end(self, chosen: Keyframes | None) -> None:
        """Prefill what follows the video, whatever is asked of it."""
        assert self.reader.info is not None
        if self.loaded.manifest.positions.ends_with_newline:
            newline = newline_of(self.loaded.manifest)
            assert newline is not None
            self.engine.prefill_rows(newline[None])
        times_s = chosen.times_s.tolist() if chosen else self.reader.frame_times_s
        ending = self.loaded.manifest.prompt.ending(times_s, self.reader.info.duration_s)
        if ending:
            self.engine.prefill_text(ending)

    def _chosen(self) -> Keyframes:
        """Read the video to its end, and choose frames: by DPSelect, and as many as fit whole."""
        assert self.n_whole_steps is not None
        ratio, n_embd = self.request.config.dpselect.ratio, self.loaded.model.n_embd
        features, kept = self.features, None
        n_steps = -(-self.reader.n_planned() // self.reader.frames_per_step)
        if ratio < 1:
            kept = keyframes(self.features, ratio, n_embd)
            features, n_steps = kept.parts, len(kept.index)
            if self.n_whole_steps >= n_steps:
                return kept
        chosen = choose_frames(features, n_steps, self.n_whole_steps, n_embd)
        return Keyframes(
            iter([chosen.features]),
            chosen.index if kept is None else kept.index[chosen.index],
            chosen.pivot_share if kept is None else kept.pivot_share,
            chosen.features.times_s,
        )

    def _in_whole_video(self, chosen: Keyframes) -> ChunkResult:
        """Return the result of the chosen frames, in terms of all frames of the video."""
        shape, joined = self.plan.shape, self.chunks.joined()
        n_cells = len(chosen.pivot_share) * (shape.vision_per_step + shape.text_per_step)
        cell_frames = in_whole_video(joined.cell_frames, chosen.index)
        return ChunkResult(n_cells, cell_frames, chosen.pivot_share)

    def _record_chunk(self, recorder: Recorder, stream: StreamState, result: ChunkResult) -> None:
        n_feature_bytes = self.kept.n_bytes(stream.n_frames) if self.kept else 0
        seconds = self._seconds()
        recorder.add(self.engine, stream, self.reader, result, seconds, n_feature_bytes)

    def _seconds(self) -> dict[str, float]:
        """Seconds by stage that the reading has taken, those of interrupted runs included."""
        return added(self.earlier_s, self.times.named())

    def finished(self, resources: ExitStack) -> PrefilledVideo:
        """Free the vision tower, and return the video."""
        self.loaded.encoder.close()
        video_map = video_map_of(self.reader.times_s, self.chunks)
        stats = self._stats(video_map)
        if self.kept is not None:
            self._keep(self.kept.finish)
        if self.recorder is not None:
            recorder = self.recorder
            self._save(lambda: recorder.finish(self.engine, asdict(stats), self._seconds()))
            self.times.beside["save"] = recorder.write_s
        thumbnails = self.chunks.thumbnails + self.reader.thumbnails
        return PrefilledVideo(
            self.engine,
            self.loaded.manifest,
            stats,
            video_map,
            thumbnails,
            self.times,
            self._seconds(),
            resources.pop_all(),
            is_saved=self.recorder is not None,
            n_before=self.n_before,
            estimate=self.estimate,
            glanced=self.reader.glanced,
        )

    def _stats(self, video_map: VideoMap) -> VideoStats:
        assert self.reader.info is not None
        return VideoStats(
            path=str(self.request.path),
            duration_s=self.reader.info.duration_s,
            n_frames=self.reader.n_frames,
            n_grid_frames=len(video_map.frame_times_s),
            n_keyframes=int((video_map.pivot_share > 0).sum()),
            n_frames_kept=len(np.unique(video_map.cell_frames[video_map.cell_frames >= 0])),
            n_cells_before=sum(result.n_cells for result in self.chunks.results),
            n_cells_kept=video_map.cell_frames.shape[1],
            keep_ratio=self._keep_ratio(),
            n_ctx=self.plan.n_ctx,
            kv_bytes=self.plan.kv_bytes,
            reduced_by=self._reduced_by(),
            not_compressible=self.not_compressible,
            positions=position_mode(self.request.config.compression.positions, self.loaded.model),
            n_positions=self.engine.n_positions,
            n_positions_trained=trained_positions(self.loaded.model),
            n_still=self.reader.is_new.count(False),
            n_left_out=sum(result.n_left_out for result in self.chunks.results),
            sampling=self.reader.sampling,
            guide=self.request.config.compression.guide if self.plan.keep_ratio < 1 else "",
        )

    def _keep_ratio(self) -> float:
        n_times = max(1, len(self.reader.times_s))
        share = 1.0 if self.n_whole_steps is None else min(1.0, self.n_whole_steps / n_times)
        return share * self.plan.keep_ratio

    def _reduced_by(self) -> str:
        if self.plan.keep_ratio < 1:
            return "cells"
        return "nothing" if self.n_whole_steps is None else "frames"
