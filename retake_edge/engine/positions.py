"""Position ids of the video span, per model family, and how they move after compression.

One data shape for all: int32 [4, n] with rows t, h, w, 0 where the model has M-RoPE (what an
embedding batch of llama.cpp takes), int32 [n] where it has not. Rows and columns of the patch
grid stay fixed for the whole video and only t moves, as the models' own processors do; mtmd's
per-image positions would make "when" wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retake_edge.errors import ConfigError

Ints = npt.NDArray[np.int32]
Bools = npt.NDArray[np.bool_]
Doubles = npt.NDArray[np.float64]

TEXT = -1
NEWLINE = -2
# Sampled times are whole microseconds or so: a rate at the limit may be a little above it.
_RATE_ROUNDING = 1e-3


@dataclass(frozen=True)
class SpanPositions:
    """Position ids of a video span, token by token.

    `ids`: int32 [4, n] or [n]. `frame`: int32 [n], the grid frame of a vision token, TEXT (-1)
    for text between frames, NEWLINE (-2) for the model's learned row. `next_position`: where the
    text after the span goes on.
    """

    ids: Ints
    frame: Ints
    next_position: int

    @property
    def is_text(self) -> Bools:
        """Mask of the tokens that are text between frames, learned rows included, bool [n]."""
        return np.asarray(self.frame < 0)

    @property
    def is_newline(self) -> Bools:
        """Mask of the tokens that are the model's learned row, bool [n]."""
        return np.asarray(self.frame == NEWLINE)


def text_positions(n: int, start: int) -> Ints:
    """Return M-RoPE positions of n text tokens, int32 [4, n]: start, start + 1, ... on t, h, w."""
    ids = np.zeros((4, n), np.int32)
    ids[:3] = np.arange(start, start + n)
    return ids


def next_position(ids: Ints) -> int:
    """Return 1 + the highest position on any axis; 0 if there are no tokens."""
    axes = ids[:3] if ids.ndim == 2 else ids
    return int(axes.max()) + 1 if axes.size else 0


def time_axis(ids: Ints) -> Ints:
    """Return a view of the time axis of positions int32 [4, n] or [n]."""
    return ids[0] if ids.ndim == 2 else ids


def start_at(ids: Ints, time_start: int) -> None:
    """Move positions along the time axis, in place, so that the first one is `time_start`."""
    times = time_axis(ids)
    times -= times.min() - time_start


def frame_steps(n_frames: int) -> Ints:
    """Return the t step of each grid frame, int32 [T]: 0, 1, 2, ... (Qwen2-VL)."""
    return np.arange(n_frames, dtype=np.int32)


def frame_steps_by_time(seconds: Doubles, tokens_per_second: float, step_s: float = 0.0) -> Ints:
    """Return the t step of each grid frame from its clock time, int32 [T] (Qwen2.5-VL).

    `seconds`: float [T], counted from the first one. `step_s`: seconds between two sampled times,
    to whole numbers of which those times are rounded (0: as they are); a frame is shown a little
    before or after the time it was sampled for, and a cut product would carry that over. Two
    frames make a grid frame; its number times the tokens in one is cut to an integer in float32,
    as the model's processor does.

    Source: transformers, Qwen2_5_VL get_rope_index.
    """
    grid, elapsed = 1.0, np.asarray(seconds, np.float64) - seconds[0]
    if step_s > 0:
        grid, elapsed = 2 * step_s, np.rint(elapsed / step_s) / 2
    return np.asarray(elapsed.astype(np.float32) * np.float32(tokens_per_second * grid), np.int32)


def require_separate_times(
    kind: str, positions_per_second: float, step_s: float, frames_per_step: int
) -> None:
    """Check that grid frames whose positions tell seconds get positions of their own.

    Of two with one time position the earlier would see the later. `step_s`: seconds between two
    frames, `frames_per_step` of which make a grid frame.

    Raises:
        ConfigError: there are more grid frames a second than positions.
    """
    if kind not in ("mrope-time", "mrope-clock") or step_s <= 0:
        return
    most = positions_per_second * frames_per_step
    if 1 / step_s > most * (1 + _RATE_ROUNDING):
        raise ConfigError(
            f"At {1 / step_s:.4g} frames a second, two moments of the video would share one time "
            f"position of this model; take at most {most:g} with --fps."
        )


def separated(steps: Ints, last: int | None = None) -> Ints:
    """Return steps int32 [T] that rise by 1 at least, moved up by as little as that takes.

    `last`: the step before the first one (None: there is none). Times that are not even, as beside
    a gap in a video, may be rounded to one step; a later frame with room takes its own again.

    Raises:
        ConfigError: `steps` fall.
    """
    _check_rise(steps)
    order = np.arange(len(steps), dtype=np.int64)
    lowest = np.asarray(steps, np.int64) - order
    if last is not None and len(lowest):
        lowest[0] = max(lowest[0], last + 1)
    return np.asarray(np.maximum.accumulate(lowest) + order, np.int32)


def mrope_span(steps: Ints, rows: int, cols: int, base: int) -> SpanPositions:
    """Lay out one vision span: t = base + step, h = base + row, w = base + column.

    `steps`: int [T], one per grid frame; `rows` x `cols` tokens a frame, row by row; `base`: the
    position after the text before it.

    Raises:
        ConfigError: `steps` fall, or a side of the grid is below 1.
    Source: transformers, Qwen2VL get_rope_index.
    """
    _check_grid(steps, rows, cols)
    return _joined([_frame_ids(base + int(step), base, rows, cols) for step in steps], 0, base)


def timed_span(
    seconds: Doubles,
    rows: int,
    cols: int,
    base: int,
    *,
    first_s: float | None = None,
    positions_per_second: float = 4.0,
    last_step: int | None = None,
) -> SpanPositions:
    """Lay out the tiny model's span: each frame pair follows one text token that tells its time.

    Pair i at clock time `seconds[i]` has t_i = base + 1 + round(positions_per_second * (seconds[i]
    - first_s)); its time token stands at t_i - 1 on all axes, its vision tokens at (t_i, base +
    row, base + column). `first_s`: the video's first clock time, where `seconds` is a later part
    of it (None: seconds[0]); `last_step`: t - base - 1 of the pair before such a part.
    `next_position` counts this part only.

    Raises:
        ConfigError: times fall, or a side of the grid is below 1.
    """
    origin = float(seconds[0]) if first_s is None else first_s
    steps = np.rint(positions_per_second * (np.asarray(seconds, np.float64) - origin))
    _check_grid(steps.astype(np.int32)[:0], rows, cols)
    times = base + 1 + separated(steps.astype(np.int32), last_step)
    blocks = []
    for t in times.tolist():
        blocks += [text_positions(1, t - 1), _frame_ids(t, base, rows, cols)]
    return _joined(blocks, 1, base)


def interleaved_span(n_text: Sequence[int], rows: int, cols: int, base: int) -> SpanPositions:
    """Lay out frames with n_text[i] >= 0 text tokens before frame i (Qwen3-VL).

    Text takes positions on all axes. A frame has one t, and h and w from the same start; what
    follows it starts at its maximum + 1.

    Raises:
        ConfigError: a side of the grid is below 1.
    Source: transformers, Qwen3VL get_rope_index.
    """
    _check_grid(np.zeros(0, np.int32), rows, cols)
    blocks, start = [], base
    for n in n_text:
        blocks += [text_positions(n, start), _frame_ids(start + n, start + n, rows, cols)]
        start = next_position(blocks[-1])
    return _joined(blocks, 1, base)


def linear_span(
    n_text: Sequence[int], n_tokens: int, base: int, n_newlines: int = 0
) -> SpanPositions:
    """Lay out frames of `n_tokens` after n_text[i] text tokens each, for 1-D RoPE: int32 [n].

    `n_newlines`: in how many equal parts the tokens of a frame stand, a learned row after each.
    """
    n_parts = max(1, n_newlines)
    parts = [n_tokens // n_parts, min(1, n_newlines)] * n_parts
    counts = [n for before in n_text for n in (before, *parts)]
    names = [name for i in range(len(n_text)) for name in (TEXT, *[i, NEWLINE] * n_parts)]
    frame = np.repeat(np.array(names, np.int32), counts)
    ids = np.arange(base, base + len(frame), dtype=np.int32)
    return SpanPositions(ids, frame, base + len(frame))


def reforge(t: Ints, n_keep: int, n: int | None = None) -> tuple[Ints, int]:
    """Squeeze a chunk's temporal positions by the share of it that is kept.

    `t`: int, the chunk's t (or 1-D) positions before compression; `n`: the tokens that they stand
    for (None: as many as they are). Returns the new ones,
    t' = t_min + floor((t - t_min) * n_keep / n), int32, and where the next chunk starts,
    max t' + 1. The rule depends on nothing that differs between layers, so that one position
    input can serve them all: each token has its t' whether it is kept or not. Integer
    arithmetic: no rounding.

    Source: ReTaKe section 3.3 with the reference's per-layer start replaced by the chunk's.
    """
    first = int(t.min())
    offset = t.astype(np.int64) - first
    n = n or len(t)
    moved = (first + offset * min(n_keep, n) // n).astype(np.int32)
    return moved, int(moved.max()) + 1


def reforge_per_layer(kept_t: Ints, n: int) -> Ints:
    """Squeeze the kept tokens' t of ONE layer as the reference code does.

    `kept_t`: int [n_keep], positions of the kept tokens in chunk order; `n`: tokens of the whole
    chunk. t' = t0 + trunc(float32(t - t0) * float32(n_keep / n)), t0 being the first KEPT
    token's. The reference starts the layer's next chunk at the last t' + 1.

    Source: video-ReTaKe, PivotKVCache; float32 on purpose (17 of 151,863 products differ).
    """
    offset = (kept_t - kept_t[0]).astype(np.float32)
    squeezed = (offset * np.float32(len(kept_t) / n)).astype(np.int32)
    return np.asarray(kept_t[0] + squeezed, np.int32)


def _frame_ids(t: int, base: int, rows: int, cols: int) -> Ints:
    """[4, rows * cols] of one frame."""
    ids = np.zeros((4, rows * cols), np.int32)
    ids[0] = t
    ids[1] = base + np.repeat(np.arange(rows), cols)
    ids[2] = base + np.tile(np.arange(cols), rows)
    return ids


def _joined(blocks: list[Ints], n_text_blocks: int, base: int) -> SpanPositions:
    """Chain blocks; with n_text_blocks = 1 every other block, from the first, is text."""
    period = n_text_blocks + 1
    frame = [
        np.full(block.shape[1], TEXT if i % period < n_text_blocks else i // period, np.int32)
        for i, block in enumerate(blocks)
    ]
    ids = np.concatenate([np.zeros((4, 0), np.int32), *blocks], axis=1)
    frames = np.concatenate([np.zeros(0, np.int32), *frame])
    return SpanPositions(ids, frames, max(base, next_position(ids)))


def _check_grid(steps: Ints, rows: int, cols: int) -> None:
    if rows < 1 or cols < 1:
        raise ConfigError(f"The patch grid is {rows} x {cols}, but both sides must be at least 1.")
    _check_rise(steps)


def _check_rise(steps: Ints) -> None:
    if (np.diff(steps) < 0).any():
        raise ConfigError("The frames' times go backwards, but they must not fall.")
