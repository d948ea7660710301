"""One video, read once: frames to a compressed KV cache, and then any number of questions.

    video file -> FrameBatch -> VisionFeatures -> PrefillChunk -> compressed KV -> Answer

A question is decoded after the video and removed again, so every question starts from the same
state and its answer does not depend on the ones before.
"""

from __future__ import annotations

import codecs
import platform
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from retake_edge import __version__
from retake_edge.config import RetakeConfig
from retake_edge.engine import ChunkResult, Engine
from retake_edge.llama import Context, Floats, Ints, Model
from retake_edge.models import (
    ModelFiles,
    ModelManifest,
    file_sha256,
    infer_manifest,
    resolve_model,
)
from retake_edge.planner import (
    MemoryPlan,
    VideoShape,
    available_memory_bytes,
    kv_bytes_per_cell,
    plan_memory,
)
from retake_edge.prefill import ChunkBuilder, clock_tokens, frame_blocks
from retake_edge.progress import ProgressCallback, no_progress
from retake_edge.video import FrameBatch, VideoInfo, sample_frames, time_grid
from retake_edge.vision import Doubles, VisionEncoder, VisionFeatures

_QUESTION_RESERVE = 512


@dataclass
class StageTimes:
    """Wall-clock seconds by stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Add the time of the block to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            passed = time.perf_counter() - start
            self.seconds[stage] = self.seconds.get(stage, 0.0) + passed

    def each(self, stage: str, items: Iterator[Any]) -> Iterator[Any]:
        """Yield items, counting the time that making each one takes."""
        while True:
            with self.measure(stage):
                item = next(items, None)
            if item is None:
                return
            yield item


@dataclass(frozen=True)
class VideoMap:
    """Where in the video each KV cell comes from.

    `frame_times_s` f64 [T], of the grid frames; `pivot_share` f32 [T], the share of each one's
    tokens that DPSelect marked; `cell_frames` int32 [n_layer, n_kept]: the grid frame of each
    cell kept, in the cache's order, -1 - frame for clock text.
    """

    frame_times_s: Doubles
    pivot_share: Floats
    cell_frames: Ints


@dataclass(frozen=True)
class VideoStats:
    """What became of the video: its length, frames and cells.

    A grid frame is what the vision tower makes of one or two frames; it is a keyframe if it has a
    pivot, and kept while any of its cells is left in any layer.
    """

    path: str
    duration_s: float
    n_frames: int
    n_grid_frames: int
    n_keyframes: int
    n_frames_kept: int
    n_cells_before: int
    n_cells_kept: int
    keep_ratio: float
    n_ctx: int
    kv_bytes: int


@dataclass(frozen=True)
class Answer:
    """An answer, and all that is needed to make it again."""

    question: str
    text: str
    n_tokens: int
    video: VideoStats
    seconds: dict[str, float]
    peak_memory_bytes: int
    model: dict[str, str]
    config: dict[str, Any]
    versions: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return asdict(self)

    def summary(self) -> str:
        """Return one line about the video, its frames and cells."""
        video = self.video
        share = video.n_cells_kept / video.n_cells_before
        return (
            f"{clock(video.duration_s)} video, {video.n_frames} frames, "
            f"{video.n_cells_kept} of {video.n_cells_before} KV cells kept ({share:.0%})"
        )


class Session:
    """A prefilled video; made by `open_video`, to be closed after use."""

    def __init__(
        self,
        engine: Engine,
        manifest: ModelManifest,
        settings: RetakeConfig,
        video: VideoStats,
        video_map: VideoMap,
        times: StageTimes,
        resources: ExitStack,
    ) -> None:
        self.video, self.map = video, video_map
        self._engine, self._manifest, self._settings = engine, manifest, settings
        self._times, self._resources = times, resources
        self._answer: Answer | None = None

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the model and the cache."""
        self._resources.close()

    def ask(self, question: str) -> Answer:
        """Answer a question.

        Raises:
            MemoryBudgetError: question and answer do not fit into the cells left.
        """
        for _ in self.stream(question):
            pass
        return self.last_answer()

    def stream(self, question: str) -> Iterator[str]:
        """Yield the answer as it is generated; `last_answer` has all of it afterwards.

        Raises:
            MemoryBudgetError: question and answer do not fit into the cells left.
        """
        times = StageTimes(dict(self._times.seconds))
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        prompt = self._manifest.prompt.question(question)
        pieces: list[str] = []
        n_tokens = 0
        for token in times.each("generate", self._engine.generate(prompt)):
            n_tokens += 1
            piece = decoder.decode(self._engine.model.piece(token))
            pieces.append(piece)
            yield piece
        pieces.append(decoder.decode(b"", final=True))
        self._answer = Answer(
            question=question,
            text="".join(pieces).strip(),
            n_tokens=n_tokens,
            video=self.video,
            seconds=times.seconds,
            peak_memory_bytes=peak_memory_bytes(),
            model=self._model_facts(),
            config=self._settings.to_dict(),
            versions={"retake_edge": __version__, "python": platform.python_version()},
        )

    def last_answer(self) -> Answer:
        """Return the latest finished answer; there must be one."""
        assert self._answer is not None
        return self._answer

    def _model_facts(self) -> dict[str, str]:
        manifest = self._manifest
        return {
            "name": manifest.name,
            "description": self._engine.model.description,
            "model_sha256": manifest.sha256.get("model") or file_sha256(manifest.model),
            "mmproj_sha256": manifest.sha256.get("mmproj") or file_sha256(manifest.mmproj),
        }


def open_video(
    path: str | Path,
    model: str | ModelManifest | ModelFiles = "tiny",
    settings: RetakeConfig | None = None,
    *,
    progress: ProgressCallback = no_progress,
) -> Session:
    """Read a video into a compressed KV cache.

    `model` is a manifest's name, a GGUF path, or what `resolve_model` returns. `progress` is
    called with (stage, done, total) for the stages decode, encode and prefill.

    Raises:
        VideoError, ModelError, MemoryBudgetError, NativeError: the video cannot be read, the
        model not loaded, the cells do not fit, or the native libraries are missing.
    """
    settings = settings or RetakeConfig()
    source = resolve_model(model) if isinstance(model, str) else model
    with ExitStack() as resources:
        times = StageTimes()
        with times.measure("load"):
            llm, encoder, manifest = _load(resources, source, settings)
        reader = _VideoReader(path, encoder, manifest, settings, times, progress)
        first = next(reader.features)
        plan = _plan(reader, first, llm, manifest, settings)
        with times.measure("load"):
            context = resources.enter_context(_context(llm, plan, settings))
        engine = Engine(context, settings, n_after=plan.shape.n_after)
        results = _prefill(engine, reader, first, plan, manifest, settings, times, progress)
        encoder.close()
        video_map = VideoMap(
            np.concatenate(reader.times_s),
            np.concatenate([r.pivot_share for r in results]),
            np.concatenate([r.cell_frames for r in results], axis=1),
        )
        stats = _stats(path, reader, plan, results, video_map)
        return Session(engine, manifest, settings, stats, video_map, times, resources.pop_all())
    raise AssertionError("unreachable")


def _load(
    resources: ExitStack, source: ModelManifest | ModelFiles, settings: RetakeConfig
) -> tuple[Model, VisionEncoder, ModelManifest]:
    runtime = settings.runtime
    llm = resources.enter_context(Model(source.model, n_gpu_layers=runtime.n_gpu_layers))
    manifest = source if isinstance(source, ModelManifest) else infer_manifest(llm, source.mmproj)
    encoder = VisionEncoder(
        llm, manifest.mmproj, offload=runtime.mmproj_offload, n_threads=runtime.n_threads
    )
    return llm, resources.enter_context(encoder), manifest


class _VideoReader:
    """Decodes and encodes a video, batch by batch, as `features` is consumed."""

    def __init__(
        self,
        path: str | Path,
        encoder: VisionEncoder,
        manifest: ModelManifest,
        settings: RetakeConfig,
        times: StageTimes,
        progress: ProgressCallback,
    ) -> None:
        sampling = settings.sampling
        self.frames_per_step = step = encoder.frames_per_step
        self.info: VideoInfo | None = None
        self.n_frames = 0
        self.times_s: list[Doubles] = []
        self._encoder, self._times, self._progress = encoder, times, progress
        self._window = {
            "fps": sampling.fps or manifest.fps,
            "max_frames": sampling.max_frames,
            "start_s": sampling.start_s,
            "end_s": sampling.end_s,
        }
        self.features = self._encode(
            sample_frames(
                path,
                **self._window,  # type: ignore[arg-type]
                target_size=manifest.frames.size_rule(sampling.long_side_px),
                fit=manifest.frames.fit,
                batch_frames=-(-settings.runtime.encode_batch_frames // step) * step,
                on_info=self._keep_info,
            )
        )

    def _keep_info(self, info: VideoInfo) -> None:
        self.info = info

    def n_planned(self) -> int:
        """Return how many frames will come (at most)."""
        assert self.info is not None
        return time_grid(self.info.duration_s, **self._window)[2]  # type: ignore[arg-type]

    def _encode(self, batches: Iterator[FrameBatch]) -> Iterator[VisionFeatures]:
        for batch in self._times.each("decode", batches):
            self.n_frames += len(batch.frames)
            self._progress("decode", self.n_frames, self.n_planned())
            with self._times.measure("encode"):
                features = self._encoder.encode(batch.frames, batch.times_s)
            self._progress("encode", self.n_frames, self.n_planned())
            self.times_s.append(features.times_s)
            yield features


def _plan(
    reader: _VideoReader,
    first: VisionFeatures,
    llm: Model,
    manifest: ModelManifest,
    settings: RetakeConfig,
) -> MemoryPlan:
    step = reader.frames_per_step
    clock_text = clock_tokens(
        llm, manifest.layout, first.times_s[-1], first.middle_s[-1], is_first=False
    )
    shape = VideoShape(
        n_steps=-(-reader.n_planned() // step),
        vision_per_step=first.rows * first.cols,
        text_per_step=len(clock_text),
        n_before=len(llm.tokenize(manifest.prompt.before)),
        n_after=_QUESTION_RESERVE + settings.generation.max_tokens,
        steps_per_chunk=max(1, settings.pivotkv.prefill_chunk_frames // step),
    )
    return plan_memory(
        shape,
        settings.pivotkv,
        settings.runtime,
        kv_bytes_per_cell(llm, settings.runtime),
        available_memory_bytes(),
    )


def _context(llm: Model, plan: MemoryPlan, settings: RetakeConfig) -> Context:
    runtime = settings.runtime
    return Context(
        llm,
        n_ctx=plan.n_ctx,
        n_batch=runtime.n_batch,
        n_ubatch=runtime.n_ubatch,
        type_k=runtime.type_k,
        type_v=runtime.type_v,
        n_threads=runtime.n_threads,
    )


def _prefill(
    engine: Engine,
    reader: _VideoReader,
    first: VisionFeatures,
    plan: MemoryPlan,
    manifest: ModelManifest,
    settings: RetakeConfig,
    times: StageTimes,
    progress: ProgressCallback,
) -> list[ChunkResult]:
    features = chain([first], reader.features)
    engine.prefill_text(manifest.prompt.before)
    builder = ChunkBuilder(engine.model, manifest.layout, engine.next_position)
    blocks = frame_blocks(
        features,
        plan.shape.steps_per_chunk,
        per_patch=settings.dpselect.per_patch,
        n_embd=engine.model.n_embd,
    )
    results: list[ChunkResult] = []
    reforges = settings.pivotkv.positions == "reforge"
    for block in blocks:
        time_start = engine.next_time if reforges else None
        chunk = builder.build(block, engine.next_position, time_start=time_start)
        result = engine.prefill_chunk(chunk, plan.keep_ratio)
        results.append(result)
        for stage, seconds in result.seconds.items():
            times.seconds[stage] = times.seconds.get(stage, 0.0) + seconds
        n_kept = sum(r.n_kept for r in results)
        progress(f"prefill: {n_kept} cells kept", reader.n_frames, reader.n_planned())
    return results


def _stats(
    path: str | Path,
    reader: _VideoReader,
    plan: MemoryPlan,
    results: list[ChunkResult],
    video_map: VideoMap,
) -> VideoStats:
    assert reader.info is not None
    return VideoStats(
        path=str(path),
        duration_s=reader.info.duration_s,
        n_frames=reader.n_frames,
        n_grid_frames=len(video_map.frame_times_s),
        n_keyframes=int((video_map.pivot_share > 0).sum()),
        n_frames_kept=len(np.unique(video_map.cell_frames[video_map.cell_frames >= 0])),
        n_cells_before=sum(r.n_cells for r in results),
        n_cells_kept=video_map.cell_frames.shape[1],
        keep_ratio=plan.keep_ratio,
        n_ctx=plan.n_ctx,
        kv_bytes=plan.kv_bytes,
    )


def clock(seconds: float) -> str:
    """Return a time as m:ss, or h:mm:ss from an hour on."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


def peak_memory_bytes() -> int:
    """Return the most memory this process has had resident."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
