"""Shares of cells by novelty: the sum is that of even shares, and no chunk goes below the floor."""

from dataclasses import replace

import numpy as np
import pytest
from session_support import opened, question_logits, settings

from retake_edge.compress.budgets import CAP, FLOOR, Ledger
from retake_edge.compress.policies import kept_vision
from retake_edge.config import (
    POLICIES,
    WHOLE_POLICIES,
    CompressionConfig,
    DPSelectConfig,
    RuntimeConfig,
)
from retake_edge.plan.frames import VideoShape, plan_memory


def spent(ledger, sizes, novelties):
    kept = []
    for n, novelty in zip(sizes, novelties, strict=True):
        n_kept, ledger = ledger.spend(n, novelty)
        kept.append(n_kept)
    return kept


def test_shares_of_many_videos_have_the_even_sum_a_floor_and_a_cap():
    rng = np.random.default_rng(5)
    for _ in range(500):
        full, n = int(rng.integers(1, 40)), int(rng.integers(16, 600))
        sizes = [n] * full + [int(rng.integers(16, n + 1))] * int(rng.integers(2))
        ratio = float(rng.uniform(0.1, 0.5))
        ledger = Ledger.of(sizes, ratio)
        novelties = rng.gamma(0.3, size=len(sizes)) * rng.integers(2, size=len(sizes))
        kept, even = spent(ledger, sizes, novelties), ledger.even
        assert sum(kept) <= sum(kept_vision(size, ratio) for size in sizes)
        if kept[-1] < sizes[-1]:
            assert sum(kept) == ledger.n_cells
        before = n_before = 0
        for size, n_kept in zip(sizes[:-1], kept[:-1], strict=True):
            assert int(FLOOR * even * size) - 1 <= n_kept <= max(1, CAP * even * size)
            assert before <= ledger.most_before(sum(sizes) - n_before)
            before, n_before = before + n_kept, n_before + size
        assert before <= ledger.most_before(sizes[-1])
        assert kept[-1] >= int(FLOOR * even * sizes[-1]) - 1


def test_chunks_that_are_equally_new_share_alike_and_newer_ones_get_more():
    sizes = [100] * 8
    assert spent(Ledger.of(sizes, 0.25), sizes, [3.0] * 8) == [25] * 8
    assert spent(Ledger.of(sizes, 0.25), sizes, [0.0] * 8) == [25] * 8
    kept = spent(Ledger.of(sizes, 0.25), sizes, [1, 1, 1, 9, 1, 1, 1, 1])
    assert kept[3] == 50 and sum(kept) == 200
    assert all(n_kept < 25 for n_kept in kept[4:7])


def test_a_last_chunk_too_small_for_the_rest_keeps_all_of_itself():
    sizes = [100, 100, 4]
    assert spent(Ledger.of(sizes, 0.5), sizes, [1, 0, 0]) == [50, 25, 4]


@pytest.mark.parametrize("ratio", [0.07, 0.25, 0.8])
@pytest.mark.parametrize("n_steps", [3, 64, 75])
def test_a_plan_has_cells_for_the_most_uneven_video(ratio, n_steps):
    shape = VideoShape(n_steps, 16, 1, 10, 50, 16)
    uneven = CompressionConfig(keep_ratio=ratio, budgets="novelty")
    plan = plan_memory(shape, uneven, RuntimeConfig(), 1)
    even = plan_memory(shape, replace(uneven, budgets="even"), RuntimeConfig(), 1)
    assert plan.n_kept_cells == even.n_kept_cells and plan.n_needed >= even.n_needed
    sizes = [16 * steps for steps in shape.chunk_steps()]
    for at in range(len(sizes)):
        kept, used = 10, 0
        ledger = Ledger.of(sizes, ratio)
        for i, size in enumerate(sizes):
            used = max(used, kept + size + size // 16)
            n_kept, ledger = ledger.spend(size, 100.0 if i <= at else 0.01)
            kept += n_kept + size // 16
        assert max(used, kept + 50) <= plan.n_needed


@pytest.mark.parametrize("policy", sorted(set(POLICIES) - set(WHOLE_POLICIES)))
@pytest.mark.parametrize("ratio", [1.0, 0.5])
def test_uneven_shares_go_with_every_policy(tmp_path, policy, ratio):
    even = replace(settings(policy=policy), dpselect=DPSelectConfig(ratio=ratio))
    uneven = replace(even, compression=replace(even.compression, budgets="novelty"))
    with opened(tmp_path, even) as session:
        key, n_cells = session.saved.key, session.video.n_cells_kept
    with opened(tmp_path, uneven) as session:
        assert session.saved.key != key and not session.saved.is_reused
        assert session.video.n_cells_kept == n_cells
        assert session.ask("What is it?").text is not None
        logits = question_logits(session)
    with opened(tmp_path, uneven) as session:
        assert session.saved.is_reused
        np.testing.assert_array_equal(question_logits(session), logits)


@pytest.mark.parametrize("positions", ["keep", "reforge"])
def test_an_interrupted_reading_goes_on_with_the_same_shares(tmp_path, positions):
    config = settings(budgets="novelty", positions=positions)
    with opened(tmp_path / "whole", config) as session:
        expected, cells = question_logits(session), session.video_map.cell_frames
    per_chunk = np.bincount(cells[0][cells[0] >= 0] // 2, minlength=6)
    assert len(set(per_chunk.tolist())) > 1, "the shares are all alike"

    def stop(stage, *_):
        if stage.startswith("prefill"):
            raise KeyboardInterrupt

    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            opened(tmp_path / "parts", config, progress=stop)
    with opened(tmp_path / "parts", config) as session:
        np.testing.assert_array_equal(session.video_map.cell_frames, cells)
        np.testing.assert_array_equal(question_logits(session), expected)
