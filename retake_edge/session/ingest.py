"""Fill a KV cache with a video: read it from its beginning, or go on where a run stopped."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from retake_edge.engine.chunks import ChunkBuilder, FrameBlock, StreamState, frame_blocks
from retake_edge.engine.engine import ChunkResult, Engine, ImageRule
from retake_edge.engine.prefill import prefill
from retake_edge.engine.trained_context import position_mode, trained_positions
from retake_edge.errors import NativeError, SessionError
from retake_edge.llama.capture import is_compressible
from retake_edge.plan.cells import CellPlan, plan_cells
from retake_edge.plan.choose import ChosenFrames, choose_frames, in_whole_video
from retake_edge.plan.frames import CellBudget, VideoShape
from retake_edge.plan.pace import Pace
from retake_edge.plan.run import Estimate, RunPlanner
from retake_edge.progress import Reading, in_percent
from retake_edge.session.prefilled import (
    OpenRequest,
    PrefilledVideo,
    SessionWarning,
    head_of,
    load_model,
    make_context,
    video_map_of,
)
from retake_edge.session.store.checkpoint import (
    Chunks,
    Recorder,
    Resume,
    load_chunks,
    open_journal,
    read_resume,
)
from retake_edge.session.video_map import VideoMap, VideoStats
from retake_edge.stages import StageTimes
from retake_edge.video.read import probe_video
from retake_edge.vision.encoder import VisionEncoder, VisionFeatures, newline_of
from retake_edge.vision.reader import VideoReader


def read_video(
    request: OpenRequest, *, part: Path | None = None, resume: Path | None = None, key: str = ""
) -> PrefilledVideo:
    """Read a video into a cache; with `part` and `resume` save it there as session `key`.

    If an interrupted run left those two files, the work goes on where it stopped, with the same
    result as without the interruption.

    Raises:
        VideoError, ModelError, MemoryBudgetError, NativeError: the video cannot be read, the model
        not loaded, the cells do not fit. OSError: the session cannot be written.
    """
    with ExitStack() as resources:
        run = _Run(request, resources)
        started = run.resumed(part, resume, key) if part and resume else None
        if started is None:
            started = run.begun()
            if part and resume:
                started.record(Recorder(started.context, part, resume), key)
        started.prefill()
        return started.finished(resources)
    raise AssertionError("unreachable")


class _Run:
    """One reading of a video, from its model to its last chunk."""

    def __init__(self, request: OpenRequest, resources: ExitStack) -> None:
        self.request, self.resources = request, resources
        self.times = StageTimes()
        self.chunks = Chunks()
        self.stream: StreamState | None = None
        self.recorder: Recorder | None = None
        self.estimate: Estimate | None = None
        self.why_whole = ""
        self.pace: Pace | None = None
        self.n_read = 0  # frames encoded
        self.saved_s: float | None = None  # a later run would go on there
        self.n_chosen: int | None = None  # frames to be used of a video that does not fit whole

    def _load(self) -> None:
        """Load the models; the plan has found room for them."""
        if hasattr(self, "encoder"):
            return
        with self.times.measure("load"):
            source, runtime = self.request.source, self.request.settings.runtime
            n_model, n_tower = (file.stat().st_size for file in (source.model, source.mmproj))
            share = n_model / max(1, n_model + n_tower)
            self.llm, self.manifest = load_model(self.resources, self.request, share)
            tell = in_percent(self.request.progress, "load")
            self.encoder = self.resources.enter_context(
                VisionEncoder(
                    self.llm,
                    self.manifest.mmproj,
                    offload=runtime.mmproj_offload,
                    n_threads=runtime.n_threads,
                    overview=self.manifest.frames.overview,
                    pooling=self.manifest.frames.pooling,
                    progress=lambda loaded: tell(share + (1 - share) * loaded),
                )
            )

    def begun(self) -> _Run:
        """Plan the run from the video's packets, load the models, and make the context."""
        with self._planner() as planner:
            self.manifest = planner.manifest
            self.reader = self._new_reader()
            info = self.reader.begin()
            self.estimate = planner.estimated(info, self.request.settings)
        self._load()
        self.reader.encoder = self.encoder
        self._tell("encode", 0, self.reader.n_planned())
        first = next(self.reader.features)
        self.features: Iterator[VisionFeatures] = chain([first], self.reader.features)
        cells = self._plan(first)
        self.plan, self.n_chosen, self.why_whole = cells.memory, cells.n_chosen, cells.why_whole
        self._make_engine(self.resources)
        self.engine.prefill_text(self._opening())
        self.builder = self._new_builder(self.engine.next_position)
        return self

    def _planner(self) -> RunPlanner:
        return RunPlanner(self.request.source, self.request.n_after)

    def record(self, recorder: Recorder, key: str) -> None:
        """Save what is done from now on."""
        self.recorder = recorder
        self.resources.callback(recorder.close)
        head = {
            "key": key,
            **head_of(self.request, self.manifest.name),
            "frames_per_step": self.encoder.frames_per_step,
            "n_before": self.engine.next_position,
            "plan": asdict(self.plan),
        }
        self._save(lambda: recorder.begin(head))

    def _save(self, write: Callable[[], None]) -> None:
        """Write to the session; where that fails, go on without one."""
        try:
            with self.times.measure("save"):
                write()
        except OSError as error:
            assert self.recorder is not None
            self.recorder.close()
            self.recorder = None
            warnings.warn(
                f"The session cannot be saved ({error.strerror}), so the next question will read "
                "the video again; choose another --cache-dir.",
                SessionWarning,
                stacklevel=2,
            )

    def resumed(self, part: Path, resume: Path, key: str) -> _Run | None:
        """Go on with what an interrupted run left; None if nothing usable is there."""
        found = read_resume(resume)
        if found is None or not part.is_file():
            return None
        state, newest_cells, states = found
        try:
            with ExitStack() as attempt:
                journal = open_journal(part, key, state.n_bytes)
                head = journal.head()
                plan = head["plan"]
                self.plan = CellBudget(**{**plan, "shape": VideoShape(**plan["shape"])})
                with self._planner() as planner:
                    info = probe_video(self.request.path)
                    self.estimate = planner.estimated(info, self.request.settings)
                self._load()
                self._make_engine(attempt)
                with self.times.measure("load"):
                    self.chunks = load_chunks(journal, self.context)
                    self.context.load_cells(newest_cells)
                    self.context.load_states(states)
                self.resources.enter_context(attempt.pop_all())
        except (SessionError, NativeError, KeyError, TypeError):
            # A damaged start is worth nothing: the video is read from its beginning.
            self.chunks = Chunks()
            return None
        self._restore(state, head["n_before"])
        self.reader.info = info
        self._tell("encode", self.reader.n_frames, self.reader.n_planned())
        recorder = self.recorder = Recorder(self.context, part, resume)
        self.resources.callback(recorder.close)
        self._save(lambda: recorder.go_on(state, self.chunks))
        return self

    def _restore(self, state: Resume, n_before: int) -> None:
        self.engine.restore(state.engine)
        self.stream = state.stream
        for stage, seconds in state.seconds.items():
            self.times.add(stage, seconds)
        done_times_s = np.array(self.chunks.frame_times_s)
        self.reader = self._new_reader(done_times_s)
        self.reader.encoder = self.encoder
        self.features = self.reader.features
        self.builder = self._new_builder(n_before, float(done_times_s[0]))

    def _new_reader(self, done_times_s: Any = None) -> VideoReader:
        request = self.request
        return VideoReader(
            request.path,
            self.manifest,
            request.settings,
            self.times,
            self._tell,
            done_times_s,
        )

    def _new_builder(self, base: int, origin_s: float | None = None) -> ChunkBuilder:
        return ChunkBuilder(
            self.llm, self.manifest.layout, base, origin_s, newline_of(self.manifest)
        )

    def _make_engine(self, resources: ExitStack) -> None:
        with self.times.measure("load"):
            n_at_once = self.plan.shape.vision_per_step if self.encoder.non_causal else 1
            self.context = make_context(
                resources, self.llm, self.request, self.plan.n_ctx, n_at_once
            )
        images = ImageRule(
            one_by_one=self.encoder.non_causal or self.llm.scales_tokens,
            non_causal=self.encoder.non_causal,
        )
        self.engine = Engine(
            self.context, self.request.settings, n_after=self.request.n_after, images=images
        )

    def _opening(self) -> str:
        """The text before the video."""
        assert self.reader.info is not None
        n_frames = self.reader.n_planned()
        if self.n_chosen is not None:
            n_frames = self.n_chosen * self.reader.frames_per_step
        return self.manifest.prompt.opening(n_frames, self.reader.info.duration_s)

    def _plan(self, first: VisionFeatures) -> CellPlan:
        """Plan the cells once more, from what the tower really makes of a frame."""
        assert self.reader.info is not None
        rule = replace(
            self.manifest.frames,
            frames_per_step=self.reader.frames_per_step,
            tokens_per_step=first.rows * first.cols,
        )
        manifest = replace(self.manifest, frames=rule)
        request = self.request
        return plan_cells(self.llm, manifest, request.settings, self.reader.info, request.n_after)

    def prefill(self) -> None:
        """Prefill and compress chunk by chunk to the video's end."""
        settings = self.request.settings
        n_embd = self.llm.n_embd
        is_whole = self.n_chosen is not None or not is_compressible(self.context)
        chosen = self._chosen() if self.n_chosen is not None else None
        blocks = frame_blocks(
            iter([chosen.features]) if chosen else self.features,
            min(self.plan.shape.steps_per_chunk, self.plan.shape.n_steps),
            per_patch=settings.dpselect.per_patch,
            n_embd=n_embd,
            after=self.stream,
        )
        for block, result in prefill(self.engine, self.builder, blocks, self.plan.keep_ratio):
            self._take(block, result, is_whole=is_whole)
            del block  # its memory is that of the next one
        self._tell("encode", self.reader.n_frames, self.reader.n_planned(), is_done=True)
        if chosen:
            self.chunks.results = [self._in_whole_video(chosen)]
        self._end(chosen)
        if self.recorder is not None and is_whole:
            self._save(partial(self.recorder.add_whole, self.reader, self.chunks.joined()))

    def _take(self, block: FrameBlock, result: ChunkResult, *, is_whole: bool) -> None:
        """Note and save a chunk; `is_whole`: the cells are saved all at the end."""
        self.chunks.results.append(result)
        for stage, seconds in result.seconds.items():
            self.times.add(stage, seconds)
        stream = self.stream = StreamState.after(block, self.llm.n_embd, self.stream)
        if self.recorder is not None and not is_whole:
            self._save(partial(self._record_chunk, self.recorder, stream, result))
        self.prefilled_s = float(block.features.times_s[-1])
        if self.recorder is not None and not is_whole:
            self.saved_s = self.prefilled_s
        self._tell("prefill", self.reader.n_frames, self.reader.n_planned())

    def _end(self, chosen: ChosenFrames | None) -> None:
        """Prefill what follows the video, whatever is asked of it."""
        assert self.reader.info is not None
        if self.manifest.layout.ends_with_newline:
            newline = newline_of(self.manifest)
            assert newline is not None
            self.engine.prefill_rows(newline[None])
        times_s = chosen.features.times_s.tolist() if chosen else self.reader.frame_times_s
        ending = self.manifest.prompt.ending(times_s, self.reader.info.duration_s)
        if ending:
            self.engine.prefill_text(ending)

    def _tell(self, stage: str, n_frames: int, n_planned: int, *, is_done: bool = False) -> None:
        """Tell how far the reading is: `n_frames` of `n_planned` at most, decoded or encoded."""
        reader, start_s = self.reader, self.request.settings.sampling.start_s
        if self.pace is None:
            self._set_out(start_s)
        assert self.pace is not None
        self.n_read = self.n_read if stage == "decode" else n_frames
        time_s = reader.frame_times_s[self.n_read - 1] if self.n_read else start_s
        if is_done:
            time_s = self.prefilled_s = reader.end_s
        share = self._share(time_s)
        if share > 0:  # a video of fewer frames than a grid has points is done before the last one
            n_planned = min(n_planned, max(n_frames, round(self.n_read / share)))
        spent = {name: s - self.spent.get(name, 0.0) for name, s in self.times.seconds.items()}
        left_s = self.pace.left_s(share, self._share(self.prefilled_s), spent)
        more = Reading(start_s, reader.end_s, time_s, self.begun_s, self.saved_s, left_s)
        self.request.progress(stage, n_frames, n_planned, more)

    def _share(self, time_s: float) -> float:
        """How much of what is to be read lies before a time."""
        start_s = self.request.settings.sampling.start_s
        length_s = max(self.reader.end_s - start_s, 1e-9)
        return min(1.0, max(0.0, time_s - start_s) / length_s)

    def _set_out(self, start_s: float) -> None:
        """Note where this run begins, and what was spent before it."""
        self.begun_s = self.prefilled_s = start_s
        if self.chunks.frame_times_s:
            self.saved_s = self.begun_s = self.prefilled_s = self.chunks.frame_times_s[-1]
        assert self.estimate is not None
        expected = self.request.calibration.seconds(*self.estimate, 0) or {}
        self.pace = Pace(self.estimate.work, expected, self._share(self.begun_s))
        self.spent = dict(self.times.seconds)

    def _chosen(self) -> ChosenFrames:
        """Read the video to its end, and choose frames."""
        assert self.n_chosen is not None
        n_steps = -(-self.reader.n_planned() // self.reader.frames_per_step)
        return choose_frames(self.features, n_steps, self.n_chosen, self.llm.n_embd)

    def _in_whole_video(self, chosen: ChosenFrames) -> ChunkResult:
        """What became of the chosen frames, told of all frames of the video."""
        shape, joined = self.plan.shape, self.chunks.joined()
        n_cells = len(chosen.pivot_share) * (shape.vision_per_step + shape.text_per_step)
        cell_frames = in_whole_video(joined.cell_frames, chosen.index)
        return ChunkResult(n_cells, cell_frames, chosen.pivot_share)

    def _record_chunk(self, recorder: Recorder, stream: StreamState, result: ChunkResult) -> None:
        recorder.add(self.engine, stream, self.reader, result, self.times.seconds)

    def finished(self, resources: ExitStack) -> PrefilledVideo:
        """Free the vision tower, and return the video."""
        self.encoder.close()
        video_map = video_map_of(self.reader.times_s, self.chunks)
        stats = self._stats(video_map)
        if self.recorder is not None:
            recorder = self.recorder
            self._save(lambda: recorder.finish(self.engine, asdict(stats), self.times.seconds))
        thumbnails = self.chunks.thumbnails + self.reader.thumbnails
        return PrefilledVideo(
            self.engine,
            self.manifest,
            stats,
            video_map,
            thumbnails,
            self.times,
            dict(self.times.seconds),
            resources.pop_all(),
            is_saved=self.recorder is not None,
            estimate=self.estimate,
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
            why_whole=self.why_whole,
            positions=position_mode(self.request.settings.compression.positions, self.llm),
            n_positions=self.engine.n_positions,
            n_positions_trained=trained_positions(self.llm),
        )

    def _keep_ratio(self) -> float:
        if self.n_chosen is not None:
            return self.n_chosen / max(1, len(self.reader.times_s))
        return self.plan.keep_ratio

    def _reduced_by(self) -> str:
        if self.n_chosen is not None:
            return "frames"
        return "cells" if self.plan.keep_ratio < 1 else "nothing"
