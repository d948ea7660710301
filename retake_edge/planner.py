"""How many KV cells a video needs, counted as cells (not positions) before anything is prefilled.

Text is never evicted, also time text between frames; `keep_ratio` applies to vision tokens.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from retake_edge.config import PivotKVConfig, RuntimeConfig
from retake_edge.errors import MemoryBudgetError
from retake_edge.llama import Model

DEFAULT_KV_BUDGET = 32_000  # the reference's published max_input_length
_BYTES_PER_VALUE = {"f32": 4.0, "f16": 2.0, "q8_0": 34 / 32, "q4_0": 18 / 32}
_CELL_PADDING = 256


@dataclass(frozen=True)
class VideoShape:
    """What is to be prefilled, in tokens.

    `n_steps` grid frames, each of `vision_per_step` vision tokens and `text_per_step` time text
    tokens; `n_before` and `n_after` text tokens around the video, the answer included in the
    latter; `steps_per_chunk` grid frames between two compressions.
    """

    n_steps: int
    vision_per_step: int
    text_per_step: int
    n_before: int
    n_after: int
    steps_per_chunk: int

    @property
    def n_video_cells(self) -> int:
        """Cells of the uncompressed video, time text included."""
        return self.n_steps * (self.vision_per_step + self.text_per_step)

    def chunk_steps(self) -> list[int]:
        """Return the grid frames of each chunk."""
        full, rest = divmod(self.n_steps, self.steps_per_chunk)
        return [self.steps_per_chunk] * full + ([rest] if rest else [])


@dataclass(frozen=True)
class MemoryPlan:
    """The cells and bytes of one run: what is needed, and the keep ratio that makes it fit."""

    shape: VideoShape
    keep_ratio: float
    n_kept_cells: int
    n_ctx: int
    kv_bytes: int


def kept_vision(n_vision: int, keep_ratio: float) -> int:
    """Return how many of a chunk's vision tokens stay: truncated, but at least 1 (reference)."""
    return max(1, int(keep_ratio * n_vision))


def plan_memory(
    shape: VideoShape,
    pivotkv: PivotKVConfig,
    runtime: RuntimeConfig,
    bytes_per_cell: float,
    available_bytes: int | None = None,
) -> MemoryPlan:
    """Choose keep ratio and context size, or refuse.

    Without a keep ratio the video is compressed just as much as `kv_budget` (default 32,000) and
    `-c` ask for. Source: the reference's dynamic_compression_ratio.

    Raises:
        MemoryBudgetError: the cells do not fit into `-c`, or the bytes into this machine.
    """
    fixed = None if pivotkv.policy != "none" else 1.0
    ratio = fixed or pivotkv.keep_ratio or _dynamic_ratio(shape, pivotkv.kv_budget, runtime.n_ctx)
    kept, needed = _cells(shape, ratio)
    if runtime.n_ctx is not None and needed > runtime.n_ctx:
        raise MemoryBudgetError(_cells_message(shape, ratio, needed, runtime.n_ctx))
    n_ctx = runtime.n_ctx or -(-needed // _CELL_PADDING) * _CELL_PADDING
    kv_bytes = int(n_ctx * bytes_per_cell)
    if available_bytes is not None and kv_bytes > available_bytes:
        raise MemoryBudgetError(
            f"The KV cache needs {kv_bytes / 2**30:.1f} GiB for {n_ctx} cells, but "
            f"{available_bytes / 2**30:.1f} GiB are available; lower --keep-ratio, --kv-budget or "
            "--max-frames, or use -ctk q8_0 -ctv q8_0."
        )
    return MemoryPlan(shape, ratio, kept, n_ctx, kv_bytes)


def _dynamic_ratio(shape: VideoShape, kv_budget: int | None, n_ctx: int | None) -> float:
    budget = kv_budget or DEFAULT_KV_BUDGET
    if n_ctx is not None:
        chunk = min(shape.steps_per_chunk, shape.n_steps)
        chunk_cells = chunk * (shape.vision_per_step + shape.text_per_step)
        rest = max(chunk_cells, shape.n_after)
        budget = min(budget, n_ctx - shape.n_before - rest)
    n_text = shape.n_steps * shape.text_per_step
    n_vision = shape.n_steps * shape.vision_per_step
    return min(1.0, max((budget - n_text) / n_vision, 1.0 / n_vision))


def _cells(shape: VideoShape, ratio: float) -> tuple[int, int]:
    """Return the cells that the video keeps, and the most cells in use at any time."""
    kept, peak = 0, 0
    for steps in shape.chunk_steps():
        n_vision, n_text = steps * shape.vision_per_step, steps * shape.text_per_step
        peak = max(peak, kept + n_vision + n_text)
        kept += kept_vision(n_vision, ratio) + n_text
    return kept, shape.n_before + max(peak, kept + shape.n_after)


def _cells_message(shape: VideoShape, ratio: float, needed: int, n_ctx: int) -> str:
    return (
        f"The video needs {needed} KV cells ({shape.n_video_cells} before compression, keep ratio "
        f"{ratio:.3g}, chunks of {shape.steps_per_chunk * shape.vision_per_step} vision tokens, "
        f"{shape.n_before + shape.n_after} for text), but -c gives {n_ctx}; raise -c, or lower "
        "--keep-ratio, --prefill-chunk-frames, --max-frames or --long-side."
    )


def kv_bytes_per_cell(model: Model, runtime: RuntimeConfig) -> float:
    """Return the bytes of one KV cell over all layers, from the GGUF's metadata."""
    arch = model.metadata("general.architecture") or ""
    heads = int(model.metadata(f"{arch}.attention.head_count") or 1)
    kv_heads = int(model.metadata(f"{arch}.attention.head_count_kv") or heads)
    head_dim = model.n_embd // heads
    k_dim = int(model.metadata(f"{arch}.attention.key_length") or head_dim)
    v_dim = int(model.metadata(f"{arch}.attention.value_length") or head_dim)
    per_head = k_dim * _BYTES_PER_VALUE[runtime.type_k] + v_dim * _BYTES_PER_VALUE[runtime.type_v]
    return model.n_layer * kv_heads * per_head


def available_memory_bytes() -> int | None:
    """Return the memory this machine can still give (None where that is not known)."""
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None
