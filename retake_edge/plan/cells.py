"""The cells of one run: what the video becomes in the KV cache, known before it is read.

One function for the plan that is shown and the plan that is carried out. It ends inside what the
model was trained for, or is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from retake_edge.config import WHOLE_POLICIES, CompressionConfig, RetakeConfig, RuntimeConfig
from retake_edge.engine.keyframes import n_keyframes
from retake_edge.engine.trained_context import PositionUse, position_mode, trained_positions
from retake_edge.llama.capture import why_not_compressible
from retake_edge.llama.model import Model
from retake_edge.models.manifest import ModelManifest
from retake_edge.plan.choose import frames_that_fit
from retake_edge.plan.frames import (
    QUESTION_RESERVE,
    CellBudget,
    FramePlan,
    VideoShape,
    chunk_within,
    kv_bytes_per_cell,
    plan_memory,
    video_shape,
)
from retake_edge.plan.positions import highest_position, require_inside
from retake_edge.video.read import VideoInfo


@dataclass(frozen=True)
class CellPlan:
    """The cells of one run.

    `n_before`: cells of the uncompressed video; `n_whole_steps`: grid frames used, where DPSelect
    drops frames, or where a video does not fit whole and its cells are not evicted (None: all);
    `not_compressible`: why they cannot be. `positions`: those that the video takes with a question
    and its answer.
    """

    memory: CellBudget
    n_before: int
    positions: PositionUse
    n_whole_steps: int | None = None
    not_compressible: str = ""


def plan_cells(
    model: Model,
    manifest: ModelManifest,
    config: RetakeConfig,
    video: VideoInfo,
    frames: FramePlan,
    n_text_reserve: int,
) -> CellPlan:
    """Choose how many cells, or frames, of a video stay; the model needs no weights.

    `n_text_reserve`: cells for text after the video.

    Raises:
        MemoryBudgetError: the cells do not fit into `-c`, or the model was not trained for that
            many positions.
    """
    shape = video_shape(model, manifest, config, video, frames, n_text_reserve)
    not_compressible, compression, runtime = "", config.compression, config.runtime
    if compression.policy not in WHOLE_POLICIES:
        not_compressible = why_not_compressible(model, type_k=runtime.type_k, type_v=runtime.type_v)
    n_before, n_whole_steps = shape.n_video_cells, None
    if config.dpselect.ratio < 1:
        n_whole_steps = n_keyframes(shape.n_steps, config.dpselect.ratio)
        shape = video_shape(model, manifest, config, video, frames, n_text_reserve, n_whole_steps)
    if not_compressible or compression.policy == "frames":
        n_fit = _whole_frames(model, shape, compression, runtime.n_ctx)
        n_whole_steps = n_fit if n_fit < shape.n_steps else n_whole_steps
        if n_whole_steps is not None:
            shape = video_shape(model, manifest, config, video, frames, n_text_reserve, n_fit)
        compression = replace(compression, policy="none", kv_budget=None)
    memory = _plan_memory(model, shape, compression, runtime)
    use = _positions(model, manifest, config, frames, memory)
    require_inside(use, manifest.name, memory, compression, model.n_pos_per_embd)
    return CellPlan(memory, n_before, use, n_whole_steps, not_compressible)


def _plan_memory(
    model: Model, shape: VideoShape, compression: CompressionConfig, runtime: RuntimeConfig
) -> CellBudget:
    """Return the budget of cells.

    Where each cell takes a position of its own, the model's training is a limit, too.
    """
    limit, mode = None, position_mode(compression.positions, model)
    if mode == "reforge" and model.n_pos_per_embd == 1 and compression.policy != "none":
        limit = trained_positions(model)
        shape = chunk_within(shape, limit)
    n_cell_bytes = kv_bytes_per_cell(model, runtime)
    return plan_memory(shape, compression, runtime, n_cell_bytes, n_positions=limit)


def _positions(
    model: Model,
    manifest: ModelManifest,
    config: RetakeConfig,
    frames: FramePlan,
    memory: CellBudget,
) -> PositionUse:
    """The positions of a plan; a conversation may take more, turn by turn."""
    n_text_reserve = min(
        memory.shape.n_text_reserve, QUESTION_RESERVE + config.generation.max_tokens
    )
    mode = position_mode(config.compression.positions, model)
    highest = highest_position(
        manifest.positions,
        memory,
        frames,
        manifest.frames,
        n_text_reserve,
        reforges=mode == "reforge",
        uneven=config.compression.budgets != "even",
    )
    return PositionUse(mode, highest, trained_positions(model))


def _whole_frames(
    model: Model, shape: VideoShape, compression: CompressionConfig, n_ctx: int | None
) -> int:
    """As `_plan_memory`, but of frames that stay whole."""
    n_positions = trained_positions(model) if model.n_pos_per_embd == 1 else None
    return frames_that_fit(shape, compression, n_ctx, n_positions)


def text_reserve(config: RetakeConfig, n_question_reserve: int = QUESTION_RESERVE) -> int:
    """Return the cells that stay free for text after the video: a question and its answer.

    With -c they are what is left, and the video's share must not depend on them.
    """
    n_question = QUESTION_RESERVE if config.runtime.n_ctx is not None else n_question_reserve
    return n_question + config.generation.max_tokens
