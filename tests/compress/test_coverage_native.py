"""The library's selection equals its specification in numpy to the last index."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import numpy as np
import pytest

from retake_edge.compress import coverage
from retake_edge.errors import NativeError
from retake_edge.golden import coverage as specification

SEEDS = range(60)


@dataclass(frozen=True)
class Case:
    """Vectors f32 [L, n, d] with the other inputs of farthest_points."""

    vectors: np.ndarray
    n_keep: int
    seeds: np.ndarray
    memory: np.ndarray | None
    weights: np.ndarray | None


def case(seed: int) -> Case:
    """A random shape; every kind of vectors in turn, with broken, zero and equal ones."""
    rng = np.random.default_rng(seed)
    n_layer, n, d = (int(x) for x in rng.integers([1, 1, 1], [4, 200, 80]))
    vectors = _vectors(rng, seed % 4, (n_layer, n, d))
    broken = rng.random((n_layer, n)) < (0.1 if seed % 3 == 0 else 0)
    vectors[broken, 0] = [np.nan, np.inf, -np.inf][seed // 3 % 3]
    vectors[:, :: 3 if seed % 5 == 0 else n] = 0
    n_keep = int(rng.integers(0, n + 1))
    n_seeds = int(rng.integers(0, n_keep + 1)) // (1 + seed % 3)
    seeds = np.stack([rng.permutation(n)[:n_seeds] for _ in range(n_layer)]).astype(np.int32)
    memory = weights = None
    if seed % 2:
        memory = rng.standard_normal((n_layer, int(rng.integers(0, 40)), d)).astype(np.float32)
        memory[:, ::4, 0] = np.nan
    if seed % 7 < 4:
        weights = np.round(rng.gamma(1, size=(n_layer, n)), 1).astype(np.float32) + np.float32(0.1)
    return Case(vectors, n_keep, seeds, memory, weights)


def _vectors(rng: np.random.Generator, kind: int, shape: tuple[int, int, int]) -> np.ndarray:
    vectors = rng.standard_normal(shape).astype(np.float32)
    if kind == 1:  # equal vectors
        return np.round(vectors)
    if kind == 2:  # equal directions of different lengths
        lengths = rng.gamma(1, size=shape[:2])[..., None].astype(np.float32)
        return vectors[:, rng.integers(0, shape[1], shape[1])] * lengths
    if kind == 3:  # hardly any difference
        return 1 + np.float32(1e-3) * vectors
    return vectors


@pytest.mark.parametrize("seed", SEEDS)
def test_farthest_points_are_those_of_the_specification(seed: int) -> None:
    c = case(seed)
    found = coverage.farthest_points(c.vectors, c.n_keep, c.seeds, c.memory, c.weights)
    units, finite = coverage.directions(c.vectors)
    old = units[:, :0] if c.memory is None else coverage.memory_directions(c.memory)
    for layer, chosen in enumerate(found):
        weights = None if c.weights is None else c.weights[layer]
        expected = specification.farthest_points(
            units[layer], ~finite[layer], c.n_keep, c.seeds[layer], old[layer], weights
        )
        np.testing.assert_array_equal(chosen, expected)


@pytest.mark.parametrize("seed", SEEDS)
def test_nearest_counts_are_those_of_the_specification(seed: int) -> None:
    c = case(seed)
    units, _ = coverage.directions(c.vectors)
    rng = np.random.default_rng(seed)
    kept = np.sort(rng.permutation(len(units[0]))[: max(1, c.n_keep)])
    expected = specification.nearest_counts(units[0], kept)
    np.testing.assert_array_equal(coverage.nearest_counts(c.vectors[0], kept), expected)


def test_the_specification_sums_sixteen_lanes_and_then_by_halves() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 37)).astype(np.float32)
    lanes = [np.float32(0)] * 16
    for i, (x, y) in enumerate(zip(a, b, strict=True)):
        lanes[i % 16] += x * y
    for width in (8, 4, 2, 1):
        lanes = [lanes[j] + lanes[j + width] for j in range(width)]
    assert specification.dot(a, b) == lanes[0]


@pytest.mark.parametrize(
    ("seeds", "weights", "reason"),
    [
        ([[0, 0]], None, "given twice"),
        ([[0, 9]], None, "out of range"),
        ([[-1]], None, "out of range"),
        ([[0]], [[1, 1, 0, 1]], "weight"),
        ([[0]], [[1, 1, np.nan, 1]], "weight"),
        ([[0]], [[1, 1, np.inf, 1]], "weight"),
    ],
)
def test_wrong_seeds_and_weights_are_refused_with_the_reason(
    seeds: list[list[int]], weights: list[list[float]] | None, reason: str
) -> None:
    vectors = np.eye(4, dtype=np.float32)[None]
    factors = None if weights is None else np.array(weights, np.float32)
    with pytest.raises(NativeError, match=reason):
        coverage.farthest_points(vectors, 3, np.array(seeds, np.int32), None, factors)


def test_counts_refuse_kept_tokens_that_do_not_ascend() -> None:
    with pytest.raises(NativeError, match="ascend"):
        coverage.nearest_counts(np.eye(4, dtype=np.float32), np.array([2, 1]))


def test_missing_arrays_and_bad_sizes_are_refused_at_the_boundary() -> None:
    library = coverage._library()
    x = np.zeros(16, np.float32)
    for arguments in (
        (2, 2, None, 1, x.ctypes.data, x.ctypes.data),
        (2, 2, x.ctypes.data, 0, x.ctypes.data, x.ctypes.data),
        (2, 2, x.ctypes.data, 3, x.ctypes.data, x.ctypes.data),
        (-2, 2, x.ctypes.data, 1, x.ctypes.data, x.ctypes.data),
    ):
        assert library.retake_select_counts(*arguments) < 0
        assert ctypes.string_at(library.retake_kvc_last_error())
