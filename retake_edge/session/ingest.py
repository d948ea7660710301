"""Fill a KV cache with a video: read it from its beginning, or go on where a run stopped."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property
from itertools import chain
from pathlib import Path

import numpy as np

from retake_edge.engine.chunks import ChunkBuilder
from retake_edge.engine.engine import Engine, ImageRule
from retake_edge.engine.positions import Doubles
from retake_edge.errors import NativeError, SessionError
from retake_edge.models.manifest import ModelManifest
from retake_edge.plan.cells import CellPlan, plan_cells
from retake_edge.plan.frames import CellBudget, VideoShape, plan_frames
from retake_edge.plan.run import Estimate, RunPlanner
from retake_edge.progress import in_percent
from retake_edge.session.prefilled import (
    OpenRequest,
    PrefilledVideo,
    load_model,
    make_context,
)
from retake_edge.session.run import Loaded, Run
from retake_edge.session.store.checkpoint import (
    Chunks,
    Recorder,
    Resume,
    load_chunks,
    open_journal,
    read_resume,
)
from retake_edge.session.telling import Teller
from retake_edge.stages import StageTimes
from retake_edge.video.read import VideoInfo, probe_video
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
        begin = _Beginning(request, resources)
        run = begin.resumed(part, resume, key) if part and resume else None
        if run is None:
            run = begin.started()
            if part and resume:
                run.record(resources, Recorder(run.engine.context, part, resume), key)
        run.prefill()
        return run.finished(resources)
    raise AssertionError("unreachable")


class _Beginning:
    """The two ways to begin a reading: at the video's start, or where an earlier run stopped."""

    def __init__(self, request: OpenRequest, resources: ExitStack) -> None:
        self._request, self._resources = request, resources
        self._times = StageTimes()

    def started(self) -> Run:
        """Plan the run from the video's packets, load the models, and make the context."""
        request = self._request
        with self._planner() as planner:
            reader = self._reader(planner.manifest)
            estimate = planner.estimated(reader.begin(), request.settings)
        loaded = self._loaded
        teller = self._teller(reader, estimate)
        teller.tell("encode", 0, reader.n_planned())
        first = next(reader.features)
        cells = _planned_cells(request, loaded, reader, first)
        engine = self._engine(cells.memory, self._resources)
        engine.prefill_text(_opening(loaded.manifest, reader, cells.n_chosen))
        return Run(
            request,
            loaded,
            self._times,
            cells.memory,
            engine,
            reader,
            chain([first], reader.features),
            self._builder(engine.next_position),
            teller,
            estimate,
            engine.next_position,
            n_chosen=cells.n_chosen,
            why_whole=cells.why_whole,
        )

    def resumed(self, part: Path, resume: Path, key: str) -> Run | None:
        """Go on with what an interrupted run left; None if nothing usable is there."""
        found = read_resume(resume)
        if found is None or not part.is_file():
            return None
        state, newest_cells, states = found
        try:
            with ExitStack() as attempt:
                journal = open_journal(part, key, state.n_bytes)
                head = journal.head()
                plan = CellBudget(**{**head["plan"], "shape": VideoShape(**head["plan"]["shape"])})
                with self._planner() as planner:
                    info = probe_video(self._request.path)
                    estimate = planner.estimated(info, self._request.settings)
                engine = self._engine(plan, attempt)
                with self._times.measure("load"):
                    chunks = load_chunks(journal, engine.context)
                    engine.context.load_cells(newest_cells)
                    engine.context.load_states(states)
                n_before = int(head["n_before"])
                self._resources.enter_context(attempt.pop_all())
        except (SessionError, NativeError, KeyError, TypeError):
            # A damaged start is worth nothing: the video is read from its beginning.
            return None
        run = self._going_on(state, info, plan, engine, chunks, estimate, n_before)
        run.go_on(self._resources, Recorder(engine.context, part, resume), state)
        return run

    def _going_on(
        self,
        state: Resume,
        info: VideoInfo,
        plan: CellBudget,
        engine: Engine,
        chunks: Chunks,
        estimate: Estimate,
        n_before: int,
    ) -> Run:
        engine.restore(state.engine)
        for stage, seconds in state.seconds.items():
            self._times.add(stage, seconds)
        done_times_s = np.array(chunks.frame_times_s)
        reader = self._reader(self._loaded.manifest, done_times_s)
        reader.info = info
        teller = self._teller(reader, estimate)
        teller.tell("encode", reader.n_frames, reader.n_planned())
        return Run(
            self._request,
            self._loaded,
            self._times,
            plan,
            engine,
            reader,
            reader.features,
            self._builder(n_before, float(done_times_s[0])),
            teller,
            estimate,
            n_before,
            chunks,
            state.stream,
        )

    def _planner(self) -> RunPlanner:
        request = self._request
        return RunPlanner(request.source, request.n_after, is_loaded=request.loaded is not None)

    @cached_property
    def _loaded(self) -> Loaded:
        """The models; the plan has found room for them."""
        with self._times.measure("load"):
            source, runtime = self._request.source, self._request.settings.runtime
            n_model, n_tower = (file.stat().st_size for file in (source.model, source.mmproj))
            share = n_model / max(1, n_model + n_tower)
            llm, manifest = load_model(self._resources, self._request, share)
            tell = in_percent(self._request.progress, "load")
            encoder = self._resources.enter_context(
                VisionEncoder(
                    llm,
                    manifest.mmproj,
                    offload=runtime.mmproj_offload,
                    n_threads=runtime.n_threads,
                    overview=manifest.frames.overview,
                    pooling=manifest.frames.pooling,
                    progress=lambda loaded: tell(share + (1 - share) * loaded),
                )
            )
        return Loaded(llm, manifest, encoder)

    def _reader(self, manifest: ModelManifest, done_times_s: Doubles | None = None) -> VideoReader:
        request = self._request
        return VideoReader(request.path, manifest, request.settings, self._times, done_times_s)

    def _teller(self, reader: VideoReader, estimate: Estimate) -> Teller:
        teller = Teller(self._request, reader, estimate, self._times)
        reader.use(self._loaded.encoder, teller.tell)
        return teller

    def _builder(self, base: int, origin_s: float | None = None) -> ChunkBuilder:
        llm, manifest = self._loaded.llm, self._loaded.manifest
        return ChunkBuilder(llm, manifest.layout, base, origin_s, newline_of(manifest))

    def _engine(self, plan: CellBudget, resources: ExitStack) -> Engine:
        llm, request, non_causal = self._loaded.llm, self._request, self._loaded.encoder.non_causal
        with self._times.measure("load"):
            n_at_once = plan.shape.vision_per_step if non_causal else 1
            context = make_context(resources, llm, request, plan.n_ctx, n_at_once)
        images = ImageRule(one_by_one=non_causal or llm.scales_tokens, non_causal=non_causal)
        return Engine(context, request.settings, n_after=request.n_after, images=images)


def _opening(manifest: ModelManifest, reader: VideoReader, n_chosen: int | None) -> str:
    """The text before the video."""
    assert reader.info is not None
    n_frames = reader.n_planned() if n_chosen is None else n_chosen * reader.frames_per_step
    return manifest.prompt.opening(n_frames, reader.info.duration_s)


def _planned_cells(
    request: OpenRequest, loaded: Loaded, reader: VideoReader, first: VisionFeatures
) -> CellPlan:
    """Plan the cells once more, from what the tower really makes of a frame."""
    assert reader.info is not None
    manifest, n_tokens = loaded.manifest, first.rows * first.cols
    planned = plan_frames(manifest, request.settings, reader.info)
    rule = replace(manifest.frames, frames_per_step=reader.frames_per_step)
    if rule.n_vision_tokens(planned.width_px, planned.height_px) != n_tokens:
        rule = replace(rule, tokens_per_step=n_tokens)
    manifest = replace(manifest, frames=rule)
    return plan_cells(loaded.llm, manifest, request.settings, reader.info, request.n_after)
