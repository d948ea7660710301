"""A cache full of video, however it came about, and what is asked of those who fill it."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retake_edge.checkpoint import Chunks
from retake_edge.config import RetakeConfig
from retake_edge.engine import Engine
from retake_edge.errors import MemoryBudgetError
from retake_edge.llama import Context, Model
from retake_edge.models import ModelFiles, ModelManifest, infer_manifest
from retake_edge.planner import available_memory_bytes, kv_bytes_per_cell
from retake_edge.progress import ProgressCallback
from retake_edge.reader import Thumbnail
from retake_edge.timing import StageTimes
from retake_edge.video_map import VideoMap, VideoStats

QUESTION_RESERVE = 512
"""KV cells kept free for a question."""


class SessionWarning(UserWarning):
    """A session was not used or not saved, and the work done without it; one sentence why."""


@dataclass(frozen=True)
class Request:
    """What is to be opened; `n_after` cells stay free for text after the video."""

    path: str | Path
    source: ModelManifest | ModelFiles
    settings: RetakeConfig
    n_after: int
    progress: ProgressCallback


@dataclass(frozen=True)
class PrefilledVideo:
    """A cache full of video, ready for questions.

    `times`: what this process spent; `index_seconds`: what reading the video took, whenever that
    was. `resources` closes model and context; `is_saved`: whether a finished session holds it all.
    """

    engine: Engine
    manifest: ModelManifest
    video: VideoStats
    map: VideoMap
    thumbnails: list[Thumbnail]
    times: StageTimes
    index_seconds: dict[str, float]
    resources: ExitStack
    is_saved: bool


def video_map_of(grid_times_s: list[float], chunks: Chunks) -> VideoMap:
    """Return where the cells of chunks come from; `grid_times_s`: all grid frames' times."""
    return VideoMap(
        np.array(grid_times_s),
        np.concatenate([result.pivot_share for result in chunks.results]),
        np.concatenate([result.cell_frames for result in chunks.results], axis=1),
    )


def load_model(resources: ExitStack, request: Request) -> tuple[Model, ModelManifest]:
    """Load the language model, and return how it wants to be used.

    Raises:
        ModelError: it cannot be loaded.
    """
    source = request.source
    llm = resources.enter_context(
        Model(source.model, n_gpu_layers=request.settings.runtime.n_gpu_layers)
    )
    if isinstance(source, ModelManifest):
        return llm, source
    return llm, infer_manifest(llm, source.mmproj)


def make_context(resources: ExitStack, llm: Model, request: Request, n_ctx: int) -> Context:
    """Make a context of `n_ctx` cells.

    Raises:
        MemoryBudgetError: this machine has no room for it.
    """
    runtime = request.settings.runtime
    needed = int(n_ctx * kv_bytes_per_cell(llm, runtime))
    available = available_memory_bytes()
    if available is not None and needed > available:
        raise MemoryBudgetError(
            f"The KV cache needs {needed / 2**30:.1f} GiB for {n_ctx} cells, but "
            f"{available / 2**30:.1f} GiB are available; close other programs, or lower "
            "--keep-ratio or --kv-budget."
        )
    return resources.enter_context(
        Context(
            llm,
            n_ctx=n_ctx,
            n_batch=runtime.n_batch,
            n_ubatch=runtime.n_ubatch,
            n_seq_max=2,  # the second sequence is for saving and loading cells
            type_k=runtime.type_k,
            type_v=runtime.type_v,
            n_threads=runtime.n_threads,
        )
    )
