"""Cells are counted as cells, before prefill, and what does not fit is refused with the numbers."""

import pytest

from retake_edge.compress.policies import kept_vision
from retake_edge.config import CompressionConfig, RuntimeConfig
from retake_edge.errors import MemoryBudgetError
from retake_edge.plan.frames import VideoShape, plan_memory

SHAPE = VideoShape(
    n_steps=100,
    vision_per_step=16,
    text_per_step=1,
    n_before=5,
    n_text_reserve=300,
    steps_per_chunk=8,
)


def brute_force_peak(shape: VideoShape, ratio: float) -> int:
    """Walk through prefill as the engine does, and return the most cells in use."""
    used, peak, left = shape.n_before, 0, shape.n_steps
    while left:
        steps = min(left, shape.steps_per_chunk)
        vision, text = steps * shape.vision_per_step, steps * shape.text_per_step
        peak = max(peak, used + vision + text)
        used += kept_vision(vision, ratio) + text
        left -= steps
    return max(peak, used + shape.n_text_reserve)


@pytest.mark.parametrize("ratio", [1.0, 0.5, 0.25, 0.0625, 0.001])
def test_planned_cells_equal_a_walk_through_prefill(ratio):
    plan = plan_memory(SHAPE, CompressionConfig(keep_ratio=ratio), RuntimeConfig(), 1024)
    peak = brute_force_peak(SHAPE, ratio)
    assert peak <= plan.n_ctx < peak + 256
    assert plan.kv_bytes == plan.n_ctx * 1024


def test_one_cell_less_than_needed_is_refused_with_the_numbers():
    needed = brute_force_peak(SHAPE, 0.25)
    compression = CompressionConfig(keep_ratio=0.25)
    assert plan_memory(SHAPE, compression, RuntimeConfig(n_ctx=needed), 1).n_ctx == needed
    with pytest.raises(MemoryBudgetError) as refusal:
        plan_memory(SHAPE, compression, RuntimeConfig(n_ctx=needed - 1), 1)
    assert str(needed) in str(refusal.value) and str(needed - 1) in str(refusal.value)


def test_without_a_keep_ratio_the_video_is_compressed_just_to_the_budget():
    plan = plan_memory(SHAPE, CompressionConfig(kv_budget=500), RuntimeConfig(), 1)
    assert 480 <= plan.n_kept_cells <= 500
    assert plan_memory(SHAPE, CompressionConfig(), RuntimeConfig(), 1).keep_ratio == 1.0


@pytest.mark.parametrize("n_ctx", [700, 1000, 1500])
def test_without_a_keep_ratio_the_video_is_compressed_to_fit_the_context(n_ctx):
    plan = plan_memory(SHAPE, CompressionConfig(), RuntimeConfig(n_ctx=n_ctx), 1)
    assert plan.keep_ratio < 1.0
    assert brute_force_peak(SHAPE, plan.keep_ratio) <= n_ctx


def test_the_full_cache_is_never_compressed():
    plan = plan_memory(SHAPE, CompressionConfig(policy="none", keep_ratio=0.25), RuntimeConfig(), 1)
    assert plan.keep_ratio == 1.0
    assert plan.n_kept_cells == SHAPE.n_video_cells


def test_more_bytes_than_the_machine_has_are_refused():
    with pytest.raises(MemoryBudgetError, match="GiB"):
        plan_memory(SHAPE, CompressionConfig(), RuntimeConfig(), 2**20, available_bytes=2**30)


def test_a_budget_that_the_times_alone_exceed_is_refused_with_the_numbers():
    n_chunks = len(SHAPE.chunk_steps())
    least = SHAPE.n_steps * SHAPE.text_per_step + n_chunks
    assert plan_memory(SHAPE, CompressionConfig(kv_budget=least), RuntimeConfig(), 1)
    with pytest.raises(
        MemoryBudgetError, match=rf"{least} tokens of context \(100 .* gives {least - 1};"
    ):
        plan_memory(SHAPE, CompressionConfig(kv_budget=least - 1), RuntimeConfig(), 1)


def test_a_budget_is_refused_where_nothing_is_evicted():
    full = CompressionConfig(policy="none", kv_budget=SHAPE.n_video_cells - 1)
    with pytest.raises(MemoryBudgetError, match="drops nothing"):
        plan_memory(SHAPE, full, RuntimeConfig(), 1)
