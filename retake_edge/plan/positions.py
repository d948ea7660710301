"""The positions of a run, known before the video is read: a walk through it, chunk by chunk."""

from __future__ import annotations

import numpy as np

from retake_edge.compress.policies import kept_vision
from retake_edge.config import WHOLE_POLICIES, CompressionConfig
from retake_edge.engine import positions
from retake_edge.engine.chunks import VideoPlaces
from retake_edge.engine.positions import Doubles
from retake_edge.engine.trained_context import PositionUse
from retake_edge.errors import MemoryBudgetError
from retake_edge.models.manifest import FrameRule, PositionRule
from retake_edge.plan.frames import CellBudget, FramePlan, VideoShape

_MORE = "'retake-edge plan' says how much is enough"


def highest_position(
    rule: PositionRule,
    memory: CellBudget,
    frames: FramePlan,
    frame_rule: FrameRule,
    n_text_reserve: int,
    *,
    reforges: bool,
    uneven: bool = False,
) -> int:
    """Return the highest position on any axis, before and after each compression.

    `n_text_reserve`: tokens of a question with its answer. A chunk takes its whole span before it
    is compressed, which counts, too. `uneven`: chunks may keep more than their even share, and the
    last one what is left; what is before it is then at most its own share more.
    """
    shape = memory.shape
    times_s, step_s = _times(frames, shape.n_steps, frame_rule.frames_per_step)
    rows, cols = _grid(shape, frames, frame_rule)
    places = VideoPlaces(rule, shape.n_before, float(times_s[0]))
    start = next_time = shape.n_before
    highest, first, moved = start - 1, 0, 0
    for n in shape.chunk_steps():
        part = times_s[first : first + n]
        texts = [shape.text_per_step - rule.newlines_per_step] * n
        ids = places.lay_out(part, step_s, rows, cols, first, texts, start).ids
        if reforges:
            positions.start_at(ids, next_time)
        times = positions.time_axis(ids)
        others = positions.next_position(ids[1:]) if ids.ndim == 2 else 0
        highest = max(highest, positions.next_position(ids) - 1 + shape.n_guide)
        if reforges and memory.keep_ratio < 1:
            n_text = n * shape.text_per_step
            n_kept = n_text + kept_vision(n * shape.vision_per_step, memory.keep_ratio)
            times, _ = positions.reforge(times, n_kept)
            moved = int(times.max()) + 1 - next_time if uneven else 0
        next_time = int(times.max()) + 1
        start, first = max(next_time, others), first + n
    return max(highest + moved, start + n_text_reserve - 1)


def require_inside(
    use: PositionUse, model: str, memory: CellBudget, compression: CompressionConfig, n_axes: int
) -> None:
    """Refuse a plan whose positions the model was not trained for.

    `n_axes`: of a position, 1 without M-RoPE.

    Raises:
        MemoryBudgetError: with the numbers and what would help.
    """
    if use.fits:
        return
    shape = memory.shape
    n_text = shape.n_steps * shape.text_per_step
    why = f"{shape.n_steps} frames with {shape.n_video_cells:,} tokens, text between them included"
    if use.mode == "reforge" and n_axes == 1:
        n_chunk = min(shape.steps_per_chunk, shape.n_steps) * shape.vision_per_step
        why += f"; {memory.n_kept_cells:,} of them kept, {n_text:,} of these text, "
        why += f"{n_chunk:,} at a time"
    elif use.mode == "keep" and memory.keep_ratio < 1:
        why += "; with positions kept, evicted ones count, too"
    raise MemoryBudgetError(
        f"The video and its answer need {use.highest + 1:,} positions ({why}), but {model} was "
        f"trained for {use.limit:,}; {_advice(use.mode, compression, n_axes)} ({_MORE})."
    )


def _advice(mode: str, compression: CompressionConfig, n_axes: int) -> str:
    compresses = compression.policy not in WHOLE_POLICIES
    found = ["use --positions reforge"] if mode == "keep" and compresses else []
    if mode == "reforge" and n_axes == 1 and compresses:
        found.append("lower --keep-ratio")
    found += ["take fewer frames with --max-frames", "a shorter part with --start and --end"]
    return ", ".join(found) + ", or another model"


def _times(frames: FramePlan, n_steps: int, per_step: int) -> tuple[Doubles, float]:
    """The time of each grid frame, f64 [n_steps], and the seconds between two frames (0: not even).

    Chosen frames may stand anywhere; spaced evenly they end with the last one, too.
    """
    first_s, last_s = frames.times_s
    step_s = 0.0 if frames.all_times_s else (last_s - first_s) / max(1, frames.n - 1)
    if frames.all_times_s and n_steps == frames.n_steps:
        return np.asarray(frames.all_times_s[::per_step], np.float64), 0.0
    if n_steps < frames.n_steps:
        return np.asarray(np.linspace(first_s, last_s, n_steps), np.float64), step_s
    return np.asarray(first_s + np.arange(n_steps) * per_step * step_s, np.float64), step_s


def _grid(shape: VideoShape, frames: FramePlan, rule: FrameRule) -> tuple[int, int]:
    """Rows and columns of a grid frame's tokens; one row of them where they make no grid."""
    side = rule.token_px or rule.multiple_px
    rows, cols = frames.height_px // side, frames.width_px // side
    is_grid = rows * cols == shape.vision_per_step
    return (rows, cols) if is_grid else (1, shape.vision_per_step)
