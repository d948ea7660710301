"""A cache full of video, however it came about, and what is asked of those who fill it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from retake_edge.config import RetakeConfig
from retake_edge.engine.engine import Engine
from retake_edge.errors import MemoryBudgetError
from retake_edge.llama.buffers import available_memory_bytes
from retake_edge.llama.context import Context
from retake_edge.llama.model import Model
from retake_edge.models.families import manifest_of
from retake_edge.models.manifest import ModelFiles, ModelManifest
from retake_edge.plan.frames import kv_bytes_per_cell
from retake_edge.plan.memory import context_settings
from retake_edge.plan.run import Estimate
from retake_edge.plan.seconds import Calibration
from retake_edge.progress import ProgressCallback, in_percent
from retake_edge.session.store.checkpoint import Chunks
from retake_edge.session.video_map import VideoMap, VideoStats
from retake_edge.stages import StageTimes
from retake_edge.video.glance import Glanced
from retake_edge.vision.reader import Thumbnail


class SessionWarning(UserWarning):
    """A session was not used or not saved, and the video is read without it; says why."""


@dataclass(frozen=True)
class OpenRequest:
    """A request to open a video; `n_text_reserve` cells stay free for text after it.

    `calibration`: how long earlier runs took. `facts`: what decides about the cells, to be saved
    with them (`retake_edge.session.store.key.session_facts`). `loaded`: the language model of
    `source` where it is loaded already; it stays loaded. `times` gets the seconds by stage.
    """

    path: str | Path
    source: ModelManifest | ModelFiles
    config: RetakeConfig
    n_text_reserve: int
    progress: ProgressCallback
    calibration: Calibration = field(default_factory=lambda: Calibration(None))
    facts: Mapping[str, Any] = field(default_factory=dict)
    loaded: Model | None = None
    times: StageTimes = field(default_factory=StageTimes)


def head_of(request: OpenRequest, model: str) -> dict[str, Any]:
    """Return what a session's first record says of its making, so that it can be asked by its key.

    `model`: the model's name on the screen.
    """
    source = request.source
    return {
        "video": Path(request.path).name,
        "path": os.path.abspath(request.path),
        "model": model,
        "source": {
            "name": source.name if isinstance(source, ModelManifest) else "",
            "model": os.path.abspath(source.model),
            "mmproj": os.path.abspath(source.mmproj),
        },
        "config": request.config.to_dict(),
        "facts": dict(request.facts),
    }


def kept_features(head: Mapping[str, Any]) -> bool:
    """Return whether a session's first record says that its reading was to keep the features."""
    return bool(head["config"]["look"].get("keep_features"))


@dataclass(frozen=True)
class PrefilledVideo:
    """A cache full of video, ready for questions.

    `times`: what this process spent; `index_seconds`: what reading the video took, whenever that
    was. `resources` closes model and context; `is_saved`: whether a finished session holds it all;
    `n_before`: the position after the text before the video; `estimate`: how much work it was (None
    where it was not done now). `glanced`: what a glance found meanwhile, None where there was
    none.
    """

    engine: Engine
    manifest: ModelManifest
    video: VideoStats
    video_map: VideoMap
    thumbnails: list[Thumbnail]
    times: StageTimes
    index_seconds: dict[str, float]
    resources: ExitStack
    is_saved: bool
    n_before: int
    estimate: Estimate | None = None
    glanced: Glanced | None = None


def video_map_of(grid_times_s: list[float], chunks: Chunks) -> VideoMap:
    """Return where the cells of chunks come from; `grid_times_s`: all grid frames' times."""
    joined = chunks.joined()
    return VideoMap(np.array(grid_times_s), joined.pivot_share, joined.cell_frames)


def load_model(
    resources: ExitStack, request: OpenRequest, share: float = 1.0
) -> tuple[Model, ModelManifest]:
    """Load the language model, which is `share` of what is loaded, and return how it is used.

    Raises:
        ModelError: it cannot be loaded.
    """
    source = request.source
    if request.loaded is not None:
        return request.loaded, manifest_of(source, request.config.prompt.system)
    tell = in_percent(request.progress, "load")
    model = resources.enter_context(
        Model(
            source.model,
            n_gpu_layers=request.config.runtime.n_gpu_layers,
            progress=lambda loaded: tell(share * loaded),
        )
    )
    return model, manifest_of(source, request.config.prompt.system)


def make_context(
    resources: ExitStack, model: Model, request: OpenRequest, n_ctx: int, n_at_once: int = 1
) -> Context:
    """Make a context of `n_ctx` cells that can decode `n_at_once` tokens in one batch.

    Raises:
        MemoryBudgetError: this machine has no room for it.
    """
    runtime = request.config.runtime
    needed = int(n_ctx * kv_bytes_per_cell(model, runtime))
    available = available_memory_bytes()
    if available is not None and needed > available:
        raise MemoryBudgetError(
            f"What is kept of the video needs {needed / 2**30:.1f} GiB for {n_ctx} tokens, but "
            f"{available / 2**30:.1f} GiB are available; close other programs, or lower "
            "--keep-ratio or --kv-budget."
        )
    return resources.enter_context(Context(model, **context_settings(runtime, n_ctx, n_at_once)))
