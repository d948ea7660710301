"""Fill a KV cache with a video: read it from its beginning, or go on where a run stopped."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property
from itertools import chain
from pathlib import Path

from retake_edge.engine.beside import why_not_beside
from retake_edge.engine.chunks import ChunkBuilder
from retake_edge.engine.engine import Engine, ImageRule
from retake_edge.errors import NativeError, SessionError
from retake_edge.models.manifest import ModelManifest
from retake_edge.plan.cells import CellPlan, plan_cells
from retake_edge.plan.frames import CellBudget, VideoShape, guide_tokens, ledger_of, plan_frames
from retake_edge.plan.look import closer_frames, look_frames
from retake_edge.plan.run import RunPlan, RunPlanner, require_room
from retake_edge.progress import in_percent
from retake_edge.session.prefilled import (
    OpenRequest,
    PrefilledVideo,
    kept_features,
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
from retake_edge.video.read import VideoInfo, probe_video
from retake_edge.video.sampling import SampleTimes
from retake_edge.vision.encoder import VisionEncoder, newline_of
from retake_edge.vision.reader import Done, VideoReader


def plan_of(request: OpenRequest) -> RunPlan:
    """Plan the reading of a video from its packets and the files' headers.

    Raises:
        VideoError, ModelError, MemoryBudgetError: the video or the model cannot be read, the cells
        do not fit.
    """
    source, is_loaded = request.source, request.loaded is not None
    with (
        request.times.measure("plan"),
        RunPlanner(source, request.n_text_reserve, is_loaded=is_loaded) as planner,
    ):
        return planner.plan(probe_video(request.path), request.config)
    raise AssertionError("unreachable")


def read_video(
    request: OpenRequest,
    plan: RunPlan,
    *,
    part: Path | None = None,
    resume: Path | None = None,
    features: Path | None = None,
    key: str = "",
) -> PrefilledVideo:
    """Carry out a plan: read a video into a cache.

    With `part` and `resume` it is saved there as session `key`, and its features in `features`
    where they are asked for.

    If an interrupted run left those two files, the work goes on where it stopped, with the same
    result as without the interruption.

    Raises:
        VideoError, ModelError, MemoryBudgetError, NativeError: the video cannot be read, the model
        not loaded, the cells do not fit. OSError: the session cannot be written.
    """
    require_room(plan.memory)
    with ExitStack() as resources:
        begin = _Beginning(request, plan, resources)
        run = begin.resumed(part, resume, features, key) if part and resume else None
        if run is None:
            run = begin.started()
            if part and resume:
                run.record(resources, Recorder(run.engine.context, part, resume), key)
            if features and request.config.look.keep_features and not why_not_beside(run.engine):
                run.keep_features(resources, features, key)
        run.prefill()
        return run.finished(resources)
    raise AssertionError("unreachable")


class _Beginning:
    """The two ways to begin a reading: at the video's start, or where an earlier run stopped."""

    def __init__(self, request: OpenRequest, plan: RunPlan, resources: ExitStack) -> None:
        self._request, self._plan, self._resources = request, plan, resources
        self._times = request.times

    def started(self) -> Run:
        """Decode the first frames, load the models, and make the context."""
        reader = self._reader()
        reader.begin()
        loaded = self._loaded
        teller = self._teller(reader)
        teller.tell("encode", 0, reader.n_planned())
        first = next(reader.features)
        cells = self._cells(reader.frames_per_step, first.rows * first.cols)
        engine = self._engine(cells.memory, self._resources)
        engine.prefill_text(_opening(loaded.manifest, reader, cells.n_whole_steps))
        return Run(
            self._request,
            loaded,
            self._times,
            cells.memory,
            engine,
            reader,
            chain([first], reader.features),
            self._builder(engine.next_position),
            teller,
            self._plan.estimate,
            engine.next_position,
            n_whole_steps=cells.n_whole_steps,
            not_compressible=cells.not_compressible,
        )

    def resumed(self, part: Path, resume: Path, features: Path | None, key: str) -> Run | None:
        """Go on with what an interrupted run left; None if nothing usable is there.

        Features are saved if that run saved them. Where they are asked for and it was not asked
        for them, it is not usable.
        """
        found = read_resume(resume)
        if found is None or not part.is_file():
            return None
        state, newest_cells, states = found
        try:
            with ExitStack() as attempt:
                journal = open_journal(part, key, state.n_bytes)
                head = journal.head()
                if self._request.config.look.keep_features and not kept_features(head):
                    return None
                plan = CellBudget(**{**head["plan"], "shape": VideoShape(**head["plan"]["shape"])})
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
        run = self._going_on(state, plan, engine, chunks, n_before)
        run.resume(self._resources, Recorder(engine.context, part, resume), state)
        if features and state.n_feature_bytes:
            done = state.stream.n_frames, state.n_feature_bytes
            run.keep_features(self._resources, features, key, done)
        return run

    def _going_on(
        self,
        state: Resume,
        plan: CellBudget,
        engine: Engine,
        chunks: Chunks,
        n_before: int,
    ) -> Run:
        engine.restore(state.engine)
        skips_still = bool(self._plan.config.sampling.still)
        frames_per_step = self._loaded.encoder.frames_per_step
        done = chunks.done(frames_per_step, skips_still=skips_still)
        reader = self._reader(done)
        reader.info = self._plan.video
        teller = self._teller(reader)
        teller.tell("encode", reader.n_frames, reader.n_planned())
        return Run(
            self._request,
            self._loaded,
            self._times,
            plan,
            engine,
            reader,
            reader.features,
            self._builder(n_before, done.frame_times_s[0]),
            teller,
            self._plan.estimate,
            n_before,
            chunks,
            state.stream,
            earlier_s=state.seconds,
        )

    @cached_property
    def _loaded(self) -> Loaded:
        """The models; the plan has found room for them."""
        with self._times.measure("load"):
            source, runtime = self._request.source, self._request.config.runtime
            n_model, n_tower = (file.stat().st_size for file in (source.model, source.mmproj))
            share = n_model / max(1, n_model + n_tower)
            model, manifest = load_model(self._resources, self._request, share)
            tell = in_percent(self._request.progress, "load")
            encoder = self._resources.enter_context(
                VisionEncoder(
                    model,
                    manifest.mmproj,
                    offload=runtime.mmproj_offload,
                    n_threads=runtime.n_threads,
                    overview=manifest.frames.overview,
                    pooling=manifest.frames.pooling,
                    progress=lambda loaded: tell(share + (1 - share) * loaded),
                )
            )
        return Loaded(model, manifest, encoder)

    def _cells(self, frames_per_step: int, tokens_per_step: int) -> CellPlan:
        """The plan's cells; planned anew where the tower makes other tokens than planned."""
        plan, loaded = self._plan, self._loaded
        rule = loaded.manifest.frames
        planned = rule.frames_per_step, plan.cells.memory.shape.vision_per_step
        if (frames_per_step, tokens_per_step) == planned:
            return plan.cells
        rule = replace(rule, frames_per_step=frames_per_step, tokens_per_step=tokens_per_step)
        manifest, reserve = replace(loaded.manifest, frames=rule), self._request.n_text_reserve
        frames = plan_frames(manifest, plan.config, plan.video)
        return plan_cells(loaded.model, manifest, plan.config, plan.video, frames, reserve)

    def _reader(self, done: Done | None = None) -> VideoReader:
        request, manifest = self._request, self._plan.manifest

        def glance(video: VideoInfo, first: SampleTimes) -> SampleTimes:
            return closer_frames(manifest, request.config, video, first).every

        glanced = glance if look_frames(manifest, request.config) else None
        return VideoReader(request.path, manifest, request.config, self._times, done, glanced)

    def _teller(self, reader: VideoReader) -> Teller:
        teller = Teller(self._request, reader, self._plan.estimate, self._times)
        reader.use(self._loaded.encoder, teller.tell)
        return teller

    def _builder(self, base: int, origin_s: float | None = None) -> ChunkBuilder:
        model, manifest = self._loaded.model, self._loaded.manifest
        return ChunkBuilder(
            model,
            manifest.positions,
            base,
            origin_s,
            newline_of(manifest),
            whole=self._loaded.encoder.non_causal,  # such an image is seen at once, or not at all
        )

    def _engine(self, plan: CellBudget, resources: ExitStack) -> Engine:
        model, request, non_causal = (
            self._loaded.model,
            self._request,
            self._loaded.encoder.non_causal,
        )
        with self._times.measure("load"):
            n_at_once = plan.shape.vision_per_step if non_causal else 1
            context = make_context(resources, model, request, plan.n_ctx, n_at_once)
        images = ImageRule(one_by_one=non_causal or model.scales_tokens, non_causal=non_causal)
        guide = guide_tokens(model, self._loaded.manifest, request.config.compression.guide)
        return Engine(
            context,
            request.config,
            n_text_reserve=request.n_text_reserve,
            images=images,
            times=self._times,
            guide=guide,
            ledger=ledger_of(plan.shape, plan.keep_ratio, request.config.compression),
        )


def _opening(manifest: ModelManifest, reader: VideoReader, n_whole_steps: int | None) -> str:
    """The text before the video."""
    assert reader.info is not None
    n_frames = (
        reader.n_planned() if n_whole_steps is None else n_whole_steps * reader.frames_per_step
    )
    return manifest.prompt.opening(n_frames, reader.info.duration_s)
