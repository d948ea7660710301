"""The policies: what each keeps, over many shapes, and what none of them may break."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from retake_edge.compress.coverage import evenly_spaced, farthest_points, nearest_counts, remember
from retake_edge.compress.policies import (
    MOST_TOKENS,
    POLICIES,
    ChunkSignals,
    cell_weights,
    select_cells,
)
from retake_edge.errors import ConfigError

SEEDS = range(12)


def signals(seed: int, *, n_layer: int | None = None, n: int | None = None) -> ChunkSignals:
    """Random evidence of a random shape, scores with exact ties, some forced text."""
    rng = np.random.default_rng(seed)
    n = n or int(rng.integers(2, 90))
    n_layer = n_layer or int(rng.integers(1, 6))
    scores = rng.gamma(1.0, size=(n_layer, n)).astype(np.float32)
    return ChunkSignals(
        n_layer=n_layer,
        pivots=rng.random(n) < 0.3,
        changes=rng.random(n, dtype=np.float32),
        frame_index=np.sort(rng.integers(0, 1 + n // 8, n)).astype(np.int32),
        forced=rng.random(n) < 0.05,
        scores=np.round(scores, 1),
        values=rng.standard_normal((n_layer, n, 8)).astype(np.float32),
    )


def select(policy: str, e: ChunkSignals, n_keep: int, seed: int = 0, **options: str) -> np.ndarray:
    return select_cells(policy, e, n_keep, np.random.default_rng(seed), **options)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("seed", SEEDS)
def test_every_layer_keeps_equally_many_distinct_tokens_in_order(policy: str, seed: int) -> None:
    e = signals(seed)
    for n_keep in (-1, 0, 1, e.n // 2, e.n - 1, e.n, e.n + 5):
        kept = select(policy, e, n_keep)
        expected = min(max(n_keep, 1, e.forced.sum()), e.n)
        expected = e.n if policy in ("frames", "none") else expected
        assert kept.shape == (e.n_layer, expected) and kept.dtype == np.int32
        assert (np.diff(kept, axis=1) > 0).all() and kept.min() >= 0 and kept.max() < e.n
        for row in kept:
            assert e.forced[row].sum() == e.forced.sum(), "forced tokens are always kept"


@pytest.mark.parametrize("policy", POLICIES)
def test_the_same_seed_keeps_the_same_tokens(policy: str) -> None:
    e = signals(5, n=60)
    np.testing.assert_array_equal(select(policy, e, 20, seed=3), select(policy, e, 20, seed=3))


@pytest.mark.parametrize("policy", ["random", "random-stratified"])
def test_random_policies_differ_between_seeds_and_layers(policy: str) -> None:
    e = signals(5, n=60, n_layer=2)
    kept = select(policy, e, 20, seed=3)
    assert (kept != select(policy, e, 20, seed=4)).any() and (kept[0] != kept[1]).any()


@pytest.mark.parametrize("seed", SEEDS)
def test_without_pivots_the_highest_scores_are_kept_and_ties_go_to_the_lowest(seed: int) -> None:
    e = replace(signals(seed), forced=np.zeros(signals(seed).n, bool))
    n_keep = max(1, e.n // 3)
    kept = select("pivotkv", e, n_keep, pivot="none")
    for row, scores in zip(kept, e.scores, strict=True):
        brute = sorted(range(e.n), key=lambda i: (-scores[i], i))[:n_keep]
        assert row.tolist() == sorted(brute)


@pytest.mark.parametrize("seed", SEEDS)
def test_protected_pivots_go_before_all_others_and_by_score_among_themselves(seed: int) -> None:
    e = replace(signals(seed), forced=np.zeros(signals(seed).n, bool))
    n_keep = max(1, e.n // 4)
    for row, scores in zip(select("pivotkv", e, n_keep), e.scores, strict=True):
        brute = sorted(range(e.n), key=lambda i: (not e.pivots[i], -scores[i], i))[:n_keep]
        assert row.tolist() == sorted(brute)


def test_the_reference_demotes_a_pivot_that_scores_above_the_mean() -> None:
    e = signals(0, n=4, n_layer=1)
    e = replace(
        e,
        scores=np.array([[3.0, 1.2, 0.5, 0.1]], np.float32),
        pivots=np.array([True, False, False, True]),
        forced=np.zeros(4, bool),
    )
    assert select("pivotkv", e, 2, pivot="reference").tolist() == [[0, 1]]
    assert select("pivotkv", e, 1, pivot="reference").tolist() == [[1]]
    assert select("pivotkv", e, 1, pivot="none").tolist() == [[0]]
    assert select("pivotkv", e, 2, pivot="protect").tolist() == [[0, 3]]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_broken_scores_rank_last(bad: float) -> None:
    e = replace(signals(7, n=30), forced=np.zeros(30, bool))
    scores = e.scores.copy()
    scores[:, 10:20] = bad
    e = replace(e, scores=scores)
    kept = select("pivotkv", e, 20, pivot="none")
    assert not np.isin(kept, np.arange(10, 20)).any()
    assert select("pivotkv", e, 21, pivot="none")[0].tolist() == [*range(11), *range(20, 30)]


@pytest.mark.parametrize("policy", ["coverage", "hybrid"])
@pytest.mark.parametrize("seed", SEEDS)
def test_coverage_keeps_a_lone_outlier_that_attention_ignores(policy: str, seed: int) -> None:
    e = signals(seed, n=64, n_layer=3)
    rng = np.random.default_rng(seed)
    values = 0.1 * rng.standard_normal((3, 64, 8)).astype(np.float32)
    values[..., 0] += 1
    lone = int(rng.integers(64))
    values[:, lone] = [0, 1, 0, 0, 0, 0, 0, 0]
    scores = e.scores.copy()
    scores[:, lone] = 0
    pivots = e.pivots.copy()
    pivots[lone] = False
    e = replace(e, values=values, scores=scores, pivots=pivots)
    kept = select(policy, e, 12)
    assert (kept == lone).any(axis=1).all()
    assert not (select("pivotkv", e, 12) == lone).any() or e.forced[lone]


def test_pivots_take_at_most_a_quarter_of_the_coverage_budget() -> None:
    n, n_keep = 60, 16
    e = replace(
        signals(1, n=n, n_layer=1),
        pivots=np.arange(n) < 30,
        changes=np.arange(n, dtype=np.float32),
        forced=np.zeros(n, bool),
        values=np.ones((1, n, 4), np.float32),
    )
    # Equal values are at distance 0: after the seeds the lowest indices follow.
    kept = select("coverage", e, n_keep)[0]
    assert kept.tolist() == [*range(12), 26, 27, 28, 29]


def test_hybrid_gives_half_of_its_budget_to_attention() -> None:
    e = replace(signals(2, n=80, n_layer=4), forced=np.zeros(80, bool), pivots=np.zeros(80, bool))
    kept = select("hybrid", e, 20)
    for row, scores in zip(kept, e.scores, strict=True):
        best = sorted(range(80), key=lambda i: (-scores[i], i))[:10]
        assert np.isin(best, row).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_spread_keeps_one_set_for_all_layers_however_long_a_layers_values_are(seed: int) -> None:
    e = signals(seed, n=64, n_layer=3)
    kept = select("spread", e, 20)
    assert (kept == kept[0]).all()
    scale = np.array([1, 100, 0.01], np.float32)[:, None, None]
    np.testing.assert_array_equal(select("spread", replace(e, values=e.values * scale), 20), kept)


def test_spread_takes_of_equally_far_tokens_the_one_that_attention_favours() -> None:
    e = replace(
        signals(0, n=12, n_layer=2),
        values=np.tile(np.repeat(np.eye(4, dtype=np.float32), 3, axis=0), (2, 1, 1)),
        scores=np.tile(np.array([1, 3, 2] * 4, np.float32), (2, 1)),
        pivots=np.zeros(12, bool),
        forced=np.zeros(12, bool),
    )
    assert select("spread", e, 4).tolist() == [[1, 4, 7, 10]] * 2


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_spread_outlives_broken_scores_and_values(bad: float) -> None:
    e = replace(signals(7, n=30, n_layer=2), forced=np.zeros(30, bool), pivots=np.zeros(30, bool))
    scores, values = e.scores.copy(), e.values.copy()
    scores[0], values[1, 10:20] = bad, bad
    kept = select("spread", replace(e, scores=scores, values=values), 20)
    assert not np.isin(kept, np.arange(10, 20)).any()


def test_weights_multiply_squared_distances() -> None:
    angles = np.array([0, 0.3, 0.6])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1)[None].astype(np.float32)
    seeds = np.zeros((1, 1), np.int32)
    gaps = np.sum((vectors[0] - vectors[0, 0]) ** 2, axis=1)
    for weight, second in ((0.9, 2), (1.1, 1)):
        weights = np.array([[1, weight * gaps[2] / gaps[1], 1]], np.float32)
        assert farthest_points(vectors, 2, seeds, None, weights).tolist() == [[0, second]]


@pytest.mark.parametrize("seed", SEEDS)
def test_distinct_keeps_in_all_layers_what_is_least_like_the_others_on_average(seed: int) -> None:
    e = signals(seed)
    alike = np.zeros(e.n)
    for layer in e.values.astype(np.float64):
        units = [v / np.linalg.norm(v) for v in layer]
        common = sum(units)
        for i, unit in enumerate(units):
            alike[i] += unit @ common / np.linalg.norm(common)
    n_keep = max(e.n // 2, int(e.forced.sum()), 1)
    order = sorted(range(e.n), key=lambda i: (not e.forced[i], alike[i]))
    expected = sorted(order[:n_keep])
    assert select("distinct", e, n_keep).tolist() == [expected] * e.n_layer


def test_distinct_keeps_a_lone_outlier_and_takes_broken_values_last() -> None:
    e = signals(1, n=40, n_layer=3)
    values = np.ones((3, 40, 8), np.float32)
    values[:, 17, 0] = -9
    values[1, 3, 2], values[0, 4, 1] = np.nan, np.inf
    e = replace(e, values=values, forced=np.zeros(40, np.bool_))
    assert select("distinct", e, 1).tolist() == [[17]] * 3
    kept = select("distinct", e, 38)[0]
    assert not {3, 4} & set(kept.tolist())


def test_coverage_falls_back_on_vision_features_with_one_set_for_all_layers() -> None:
    e = signals(3, n=40, n_layer=3)
    e = replace(e, values=None, features=e.values[0])
    kept = select("coverage", e, 10)
    assert (kept == kept[0]).all()


def test_memory_keeps_coverage_from_choosing_what_an_earlier_chunk_kept() -> None:
    values = np.repeat(np.eye(4, dtype=np.float32), 3, axis=0)[None]
    e = replace(
        signals(0, n=12, n_layer=1),
        values=values,
        pivots=np.zeros(12, bool),
        forced=np.zeros(12, bool),
        memory=np.eye(4, dtype=np.float32)[None, :3],
    )
    assert select("coverage", e, 1).tolist() == [[9]]
    assert select("coverage", replace(e, memory=None), 1).tolist() == [[0]]


@pytest.mark.parametrize("seed", SEEDS)
def test_farthest_points_equal_a_plain_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n_layer, n, d = (int(x) for x in rng.integers([1, 2, 2], [4, 25, 9]))
    vectors = rng.standard_normal((n_layer, n, d)).astype(np.float32)
    n_keep, n_seeds = int(rng.integers(1, n + 1)), int(rng.integers(0, 3))
    n_seeds = min(n_seeds, n_keep)
    seeds = np.stack([rng.permutation(n)[:n_seeds] for _ in range(n_layer)]).astype(np.int32)
    memory = rng.standard_normal((n_layer, 3, d)).astype(np.float32) if seed % 2 else None
    found = farthest_points(vectors, n_keep, seeds, memory)
    for layer in range(n_layer):
        unit = vectors[layer] / np.linalg.norm(vectors[layer], axis=1, keepdims=True)
        centres = [unit[i] for i in seeds[layer]]
        if memory is not None:
            centres += list(memory[layer] / np.linalg.norm(memory[layer], axis=1, keepdims=True))
        chosen = seeds[layer].tolist()
        while len(chosen) < n_keep:
            gaps = [min([np.sum((u - c) ** 2) for c in centres], default=np.inf) for u in unit]
            pick = max((i for i in range(n) if i not in chosen), key=lambda i: (gaps[i], -i))
            chosen.append(pick)
            centres.append(unit[pick])
        assert found[layer].tolist() == chosen


def test_vectors_with_nan_are_chosen_last() -> None:
    vectors = np.random.default_rng(0).standard_normal((2, 10, 4)).astype(np.float32)
    vectors[:, 3] = np.nan
    vectors[:, 5, 1] = np.inf
    order = farthest_points(vectors, 10, np.zeros((2, 0), np.int32), None)
    assert order[:, -2:].tolist() == [[3, 5], [3, 5]]


def test_memory_grows_to_its_cap_and_is_thinned_evenly() -> None:
    vectors = np.arange(20, dtype=np.float32).reshape(1, 20, 1)
    kept = np.arange(0, 20, 2, dtype=np.int32)[None]
    memory = remember(None, vectors, kept, 15)
    assert memory[0, :, 0].tolist() == list(range(0, 20, 2))
    memory = remember(memory, vectors, kept, 10)
    assert memory.shape == (1, 10, 1)
    assert memory[0, :, 0].tolist() == [2, 6, 10, 14, 18, 2, 6, 10, 14, 18]


@pytest.mark.parametrize("n", range(1, 30))
def test_evenly_spaced_indices_leave_equal_gaps(n: int) -> None:
    for n_keep in range(1, n + 1):
        kept = evenly_spaced(n, n_keep)
        assert len(set(kept.tolist())) == n_keep and kept.min() >= 0 and kept.max() < n
        gaps = np.diff(kept)
        assert n_keep < 2 or gaps.max() - gaps.min() <= 1


def test_stratified_random_gives_every_frame_the_same_quota() -> None:
    frames = np.repeat(np.arange(10), 8).astype(np.int32)
    e = replace(signals(4, n=80, n_layer=3), frame_index=frames, forced=np.arange(80) % 8 == 0)
    for row in select("random-stratified", e, 35):
        free = row[~e.forced[row]]
        counts = np.bincount(frames[free], minlength=10)
        assert counts.sum() == 25 and set(counts.tolist()) == {2, 3}


def test_recent_keeps_the_last_tokens() -> None:
    e = replace(signals(4, n=20, n_layer=2), forced=np.arange(20) == 3)
    assert select("recent", e, 4).tolist() == [[3, 17, 18, 19]] * 2


def test_unknown_policies_and_pivot_modes_are_refused() -> None:
    with pytest.raises(ConfigError, match="no policy 'best'"):
        select("best", signals(0), 3)
    with pytest.raises(ConfigError, match="no pivot mode"):
        select("pivotkv", signals(0), 3, pivot="all")


def test_the_engine_measures_only_what_a_policy_reads() -> None:
    for name, policy in POLICIES.items():
        e = signals(6, n=40)
        if not policy.needs_scores:
            e = replace(e, scores=None)
        if not policy.needs_values:
            e = replace(e, values=None)
        assert len(select(name, e, 10)) == e.n_layer


# --- what a kept cell weighs --------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_every_token_counts_for_the_kept_one_it_is_most_like(seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((50, 6)).astype(np.float32)
    kept = np.sort(rng.permutation(50)[: int(rng.integers(1, 50))])
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    brute = np.bincount((units @ units[kept].T).argmax(axis=1), minlength=len(kept))
    counts = nearest_counts(3 * vectors, kept)
    assert counts.dtype == np.float32 and counts.tolist() == brute.tolist()


def test_tokens_that_cannot_be_compared_are_counted_all_the_same() -> None:
    vectors = np.eye(4, dtype=np.float32)
    vectors[2:] = np.nan
    assert nearest_counts(vectors, np.array([0, 1])).tolist() == [3, 1]
    assert nearest_counts(vectors, np.array([], np.int64)).shape == (0,)


@pytest.mark.parametrize("seed", SEEDS)
def test_weights_share_out_the_chunk_and_leave_text_alone(seed: int) -> None:
    e = signals(seed, n=64)
    kept = select("spread", e, 40)
    weights = cell_weights("spread", e, kept)
    assert weights is not None and weights.dtype == np.float32
    text = e.forced[kept[0]]
    assert (weights[text] == 1).all() and weights.min() == 1 and weights.max() <= MOST_TOKENS
    assert weights[~text].sum() == pytest.approx((~e.forced).sum()) or weights.max() == MOST_TOKENS


def test_the_background_weighs_as_much_as_its_tokens_up_to_a_limit() -> None:
    values = np.zeros((2, 40, 3), np.float32)
    values[:, :35, 0] = values[:, 35:, 1] = 1
    e = replace(signals(0, n=40, n_layer=2), values=values, forced=np.arange(40) == 39)
    kept = np.tile(np.array([0, 36, 39], np.int32), (2, 1))
    assert cell_weights("spread", e, kept).tolist() == [MOST_TOKENS, 4, 1]


@pytest.mark.parametrize("policy", sorted(set(POLICIES) - {"spread"}))
def test_other_policies_weigh_every_cell_alike(policy: str) -> None:
    e = signals(3, n=40)
    assert cell_weights(policy, e, select(policy, e, 20)) is None
