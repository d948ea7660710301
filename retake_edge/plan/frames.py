"""Count the frames and the KV cells of a video before anything is prefilled.

Text is never evicted, also time text between frames; `keep_ratio` applies to vision tokens.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from retake_edge.compress.budgets import Ledger
from retake_edge.compress.policies import kept_vision
from retake_edge.config import (
    DEFAULT_KV_BUDGET,
    CompressionConfig,
    GenerationConfig,
    RetakeConfig,
    RuntimeConfig,
)
from retake_edge.engine import positions
from retake_edge.engine.chunks import n_text_per_step
from retake_edge.errors import MemoryBudgetError
from retake_edge.llama.model import Model
from retake_edge.models.manifest import ModelManifest
from retake_edge.plan.look import look_frames, look_size
from retake_edge.video.read import VideoInfo, check_part
from retake_edge.video.sampling import SampleTimes, sample_times

QUESTION_RESERVE = 512
"""Tokens kept free for a question."""
_USUAL_TEXT = QUESTION_RESERVE + GenerationConfig().max_tokens
_BYTES_PER_VALUE = {"f32": 4.0, "f16": 2.0, "q8_0": 34 / 32, "q4_0": 18 / 32}
_CELL_PADDING = 256


@dataclass(frozen=True)
class VideoShape:
    """The size of a prefill, in tokens.

    `n_steps` grid frames, each of `vision_per_step` vision tokens and `text_per_step` tokens of
    time text and learned rows; `n_before` text tokens before the video, `n_text_reserve` after it,
    the answer included; `steps_per_chunk` grid frames between two compressions. `look_steps` grid
    frames of a second look at most, each of `look_per_step` tokens, text included. `n_guide` tokens
    of the one question that the video is read for, decoded after each chunk and removed again.
    """

    n_steps: int
    vision_per_step: int
    text_per_step: int
    n_before: int
    n_text_reserve: int
    steps_per_chunk: int
    look_steps: int = 0
    look_per_step: int = 0
    n_guide: int = 0

    @property
    def n_look(self) -> int:
        """Cells of a second look."""
        return self.look_steps * self.look_per_step

    @property
    def n_video_cells(self) -> int:
        """Cells of the uncompressed video, time text included."""
        return self.n_steps * (self.vision_per_step + self.text_per_step)

    def chunk_steps(self) -> list[int]:
        """Return the grid frames of each chunk."""
        full, rest = divmod(self.n_steps, self.steps_per_chunk)
        return [self.steps_per_chunk] * full + ([rest] if rest else [])


@dataclass(frozen=True)
class CellBudget:
    """The cells and bytes of one run: what is needed, and the keep ratio that makes it fit.

    `n_needed`: the most cells in use at any time; `n_ctx`: those in the cache.
    """

    shape: VideoShape
    keep_ratio: float
    n_kept_cells: int
    n_ctx: int
    kv_bytes: int
    n_needed: int = 0


@dataclass(frozen=True)
class FramePlan:
    """The frames of a video that will be looked at: `n` at most, `width_px` x `height_px` each.

    `n_steps`: grid frames made of them; `times_s`: of the first and of the last. `all_times_s`:
    of every frame where they follow change, else empty.
    """

    n: int
    n_steps: int
    width_px: int
    height_px: int
    times_s: tuple[float, float]
    all_times_s: tuple[float, ...] = ()

    @property
    def sampling(self) -> str:
        """How the frames are spread, `even` or `change`, whatever was asked for."""
        return "change" if self.all_times_s else "even"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        values = asdict(self)
        return values | {"sampling": self.sampling, "all_times_s": list(self.all_times_s)}


def plan_frames(manifest: ModelManifest, config: RetakeConfig, video: VideoInfo) -> FramePlan:
    """Return the frames that will be taken of a video.

    Raises:
        ConfigError: two grid frames would share a time position. VideoError: the part asked for
        shows no picture.
    """
    sampling = config.sampling
    check_part(video, sampling.start_s, sampling.end_s)
    wanted = wanted_times(manifest, config, video)
    n = wanted.n
    size = manifest.frames.frame_size(video.width_px, video.height_px, n, sampling.long_side_px)
    n_steps = -(-n // manifest.frames.frames_per_step)
    if n_steps > 1:
        positions.require_separate_times(
            manifest.positions.kind,
            manifest.positions.positions_per_second,
            wanted.even_step_s,
            manifest.frames.frames_per_step,
        )
    last_s = min(wanted.last_s, video.duration_s)
    return FramePlan(n, n_steps, *size, (wanted.start_s, last_s), wanted.times_s)


def wanted_times(manifest: ModelManifest, config: RetakeConfig, video: VideoInfo) -> SampleTimes:
    """Return the times at which a video is looked at."""
    sampling = config.sampling
    return sample_times(
        video,
        fps=sampling.fps or manifest.fps,
        max_frames=sampling.max_frames or manifest.max_frames,
        start_s=sampling.start_s,
        end_s=sampling.end_s,
        sampling=sampling.sampling,
        frames_per_step=manifest.frames.frames_per_step,
    )


def video_shape(
    model: Model,
    manifest: ModelManifest,
    config: RetakeConfig,
    video: VideoInfo,
    frames: FramePlan,
    n_text_reserve: int,
    n_steps: int | None = None,
) -> VideoShape:
    """Return what is to be prefilled of a video; of the model only its vocabulary is used.

    `n_steps`: grid frames used, if not all.
    """
    rule = manifest.frames
    n_frames = n_steps * rule.frames_per_step if n_steps else frames.n
    n_steps = n_steps or frames.n_steps
    last_s = frames.times_s[1]  # its time text is the longest
    opening = manifest.prompt.opening(n_frames, video.duration_s)
    ending = manifest.prompt.ending([last_s] * n_frames, video.duration_s)
    n_text = n_text_per_step(model, manifest.positions, n_steps - 1, last_s, last_s)
    look = look_frames(manifest, config)
    size = look_size(manifest, look, video)
    n_around = len(model.tokenize(opening, add_special=True)) + len(model.tokenize(ending))
    return VideoShape(
        n_steps=n_steps,
        vision_per_step=rule.n_vision_tokens(frames.width_px, frames.height_px),
        text_per_step=n_text,
        n_before=n_around + manifest.positions.ends_with_newline,
        n_text_reserve=n_text_reserve,
        steps_per_chunk=max(1, config.compression.prefill_chunk_frames // rule.frames_per_step),
        look_steps=look // rule.frames_per_step,
        look_per_step=rule.n_vision_tokens(*size) + n_text,
        n_guide=len(guide_tokens(model, manifest, config.compression.guide)),
    )


def guide_tokens(model: Model, manifest: ModelManifest, guide: str) -> list[int]:
    """Return the tokens of the question that a video is read for, as it is asked; '': none."""
    return model.tokenize(manifest.prompt.question(guide)) if guide else []


def plan_memory(
    shape: VideoShape,
    compression: CompressionConfig,
    runtime: RuntimeConfig,
    bytes_per_cell: float,
    available_bytes: int | None = None,
    n_positions: int | None = None,
) -> CellBudget:
    """Choose keep ratio and context size, or refuse.

    Without a keep ratio the video is compressed just as much as `kv_budget` (default 32,000) and
    `-c` ask for, and `n_positions` where each cell takes one. What is kept must not depend on
    settings of an answer, so the positions after the video are those of a usual one.

    Source: the reference's dynamic_compression_ratio.

    Raises:
        MemoryBudgetError: the cells do not fit into `-c` or `kv_budget`, or the bytes into this
        machine.
    """
    fixed = None if compression.policy != "none" else 1.0
    ratio = fixed or compression.keep_ratio
    if not ratio:
        limits = [(runtime.n_ctx, shape.n_text_reserve), (n_positions, _USUAL_TEXT)]
        ratio = _dynamic_ratio(shape, compression.kv_budget, limits)
    kept, needed = _cells(shape, ratio, compression)
    if compression.kv_budget is not None and kept > compression.kv_budget:
        raise MemoryBudgetError(_budget_message(shape, kept, compression))
    if runtime.n_ctx is None:  # with -c, a second look takes what is left
        needed += max(0, shape.n_before + kept + shape.n_text_reserve + shape.n_look - needed)
    elif needed > runtime.n_ctx:
        raise MemoryBudgetError(_cells_message(shape, ratio, needed, runtime.n_ctx))
    n_ctx = runtime.n_ctx or padded(needed)
    kv_bytes = int(n_ctx * bytes_per_cell)
    if available_bytes is not None and kv_bytes > available_bytes:
        raise MemoryBudgetError(
            f"What is kept of the video needs {kv_bytes / 2**30:.1f} GiB for {n_ctx} tokens, but "
            f"{available_bytes / 2**30:.1f} GiB are available; lower --keep-ratio, --kv-budget or "
            "--max-frames, or use -ctk q8_0 -ctv q8_0."
        )
    return CellBudget(shape, ratio, kept, n_ctx, kv_bytes, needed)


def chunk_within(shape: VideoShape, n_positions: int) -> VideoShape:
    """Return the shape with chunks that leave room for what is kept, where each cell takes one of
    `n_positions`: a quarter of them at most, or as many as the text after the video takes.
    """
    room, per_step = n_positions - shape.n_before, shape.vision_per_step + shape.text_per_step
    if shape.n_video_cells + _USUAL_TEXT <= room:
        return shape
    most = max(_USUAL_TEXT, room // 4) // per_step
    return replace(shape, steps_per_chunk=max(1, min(shape.steps_per_chunk, most)))


def _dynamic_ratio(
    shape: VideoShape, kv_budget: int | None, limits: Sequence[tuple[int | None, int]]
) -> float:
    """The ratio that a budget and limits allow: each of all cells, and what comes after the video.

    A chunk is there whole before it is compressed, unless all of the video stays.
    """
    budget = kv_budget or DEFAULT_KV_BUDGET
    chunk = min(shape.steps_per_chunk, shape.n_steps)
    chunk_cells = chunk * (shape.vision_per_step + shape.text_per_step) + shape.n_guide
    for limit, n_text_reserve in limits:
        if limit is not None and shape.n_before + shape.n_video_cells + n_text_reserve > limit:
            budget = min(budget, limit - shape.n_before - max(chunk_cells, n_text_reserve))
    n_text = shape.n_steps * shape.text_per_step
    n_vision = shape.n_steps * shape.vision_per_step
    return min(1.0, max((budget - n_text) / n_vision, 1.0 / n_vision))


def _cells(shape: VideoShape, ratio: float, compression: CompressionConfig) -> tuple[int, int]:
    """Return the cells that the video keeps, and the most cells in use at any time."""
    kept, peak, ledger = 0, 0, ledger_of(shape, ratio, compression)
    n_rest = shape.n_steps
    for steps in shape.chunk_steps():
        n_vision, n_text = steps * shape.vision_per_step, steps * shape.text_per_step
        before = kept
        if ledger is not None:
            before = ledger.most_before(n_rest * shape.vision_per_step)
            before += (shape.n_steps - n_rest) * shape.text_per_step
        peak = max(peak, before + n_vision + n_text + shape.n_guide)
        kept += kept_vision(n_vision, ratio) + n_text
        n_rest -= steps
    return kept, shape.n_before + max(peak, kept + shape.n_text_reserve)


def ledger_of(shape: VideoShape, ratio: float, compression: CompressionConfig) -> Ledger | None:
    """Return the cells that chunks share by what is new in them; None where shares are alike."""
    if compression.budgets == "even" or ratio >= 1:
        return None
    return Ledger.of([steps * shape.vision_per_step for steps in shape.chunk_steps()], ratio)


def _budget_message(shape: VideoShape, kept: int, compression: CompressionConfig) -> str:
    if compression.policy == "none":
        why = "--policy none drops nothing"
    else:
        n_text, n_chunks = shape.n_steps * shape.text_per_step, len(shape.chunk_steps())
        why = f"{n_text} tell times and at least one of each of {n_chunks} chunks stays"
    return (
        f"The video needs {kept} tokens of context ({why}), but --kv-budget gives "
        f"{compression.kv_budget}; raise it, or lower --max-frames."
    )


def _cells_message(shape: VideoShape, ratio: float, needed: int, n_ctx: int) -> str:
    return (
        f"The video needs {needed} tokens of context ({shape.n_video_cells} before compression, "
        f"keep ratio {ratio:.3g}, {shape.steps_per_chunk * shape.vision_per_step} at a time, "
        f"{shape.n_before + shape.n_text_reserve} for text), but -c gives {n_ctx}; raise -c, or "
        "lower --keep-ratio, --max-frames or --long-side."
    )


def padded(n_cells: int) -> int:
    """Return the cells of the context that llama.cpp makes for `n_cells`."""
    return -(-n_cells // _CELL_PADDING) * _CELL_PADDING


def kv_bytes_per_cell(model: Model, runtime: RuntimeConfig) -> float:
    """Return the bytes of one KV cell over all layers, from the GGUF's metadata.

    Of a hybrid model only the layers with attention count, of latent attention (MLA) no values.
    """
    arch = model.metadata("general.architecture") or ""
    heads = max(_numbers(model.metadata(f"{arch}.attention.head_count"), 1))
    kv_heads = _numbers(model.metadata(f"{arch}.attention.head_count_kv"), heads)
    every = max(_numbers(model.metadata(f"{arch}.full_attention_interval"), 1))
    n_kv_heads = sum(kv_heads) if len(kv_heads) > 1 else model.n_layer // every * kv_heads[0]
    head_dim = model.n_embd // heads
    k_dim = max(_numbers(model.metadata(f"{arch}.attention.key_length"), head_dim))
    v_dim = max(_numbers(model.metadata(f"{arch}.attention.value_length"), head_dim))
    if model.metadata(f"{arch}.attention.key_length_mla") is not None:
        v_dim = 0
    per_head = k_dim * _BYTES_PER_VALUE[runtime.type_k] + v_dim * _BYTES_PER_VALUE[runtime.type_v]
    return n_kv_heads * per_head


def _numbers(text: str | None, default: int) -> list[int]:
    """The numbers of a metadata value: one, or one a layer as [1, 2, ...]."""
    found = [int(number) for number in re.findall(r"-?\d+", text or "")]
    return found or [default]
