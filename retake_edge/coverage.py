"""Farthest-point sampling: keep tokens so that no token is far from a kept one.

A rare token has few supporters in attention, but it lies far from everything else; this is what
finds it. All layers run at once, each with vectors and a kept set of its own.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]

# Layers are walked in groups whose vectors stay in a core's cache: every step reads all of them.
_GROUP_BYTES = 1 << 20
_MEMORY_BLOCK = 256


def farthest_points(vectors: Floats, n_keep: int, seeds: Ints, memory: Floats | None) -> Ints:
    """Extend each layer's seeds to `n_keep` tokens, every new one farthest from all chosen.

    `vectors`: f32 [L, n, d], compared by direction (L2-normalised here). `seeds`: int [L, s] with
    s <= n_keep <= n, distinct within a layer. `memory`: f32 [L, m, d] or None, vectors kept
    earlier: what is close to them is not chosen soon. Ties go to the lowest index; tokens with
    NaN or infinity come last. Returns int32 [L, n_keep], the seeds first.

    Source: Gonzalez 1985 (greedy k-center).
    """
    n_layer, n, width = vectors.shape
    group = max(1, _GROUP_BYTES // max(1, n * width * 4))
    parts = []
    for first in range(0, n_layer, group):
        layers = slice(first, first + group)
        old = None if memory is None else memory[layers]
        parts.append(_farthest(vectors[layers], n_keep, seeds[layers], old))
    return np.concatenate(parts)


def remember(memory: Floats | None, vectors: Floats, kept: Ints, n_max: int) -> Floats:
    """Append the kept vectors to what earlier chunks kept, thinned evenly to `n_max` a layer.

    `memory`: f32 [L, m, d] or None; `vectors`: f32 [L, n, d]; `kept`: int [L, k]. Returns f32
    [L, min(m + k, n_max), d]. Repeated thinning leaves old chunks thinner than recent ones.
    """
    new = np.take_along_axis(vectors, kept[:, :, None].astype(np.int64), axis=1)
    joined = new if memory is None else np.concatenate([memory, new], axis=1)
    if joined.shape[1] <= n_max:
        return joined
    return joined[:, evenly_spaced(joined.shape[1], n_max)]


def evenly_spaced(n: int, n_keep: int) -> Ints:
    """Return `n_keep` <= n indices, the middles of n_keep equal parts of 0..n-1."""
    odd = 2 * np.arange(n_keep, dtype=np.int64) + 1
    return (odd * n // (2 * max(n_keep, 1))).astype(np.int32)


def _farthest(vectors: Floats, n_keep: int, seeds: Ints, memory: Floats | None) -> Ints:
    finite = np.asarray(np.isfinite(vectors).all(axis=2))
    units = _unit(np.where(finite[..., None], vectors, 0))
    columns = np.ascontiguousarray(units.transpose(0, 2, 1))  # [L, d, n]
    squares = np.einsum("lnd,lnd->ln", units, units)
    # The distance of a token that is far from all others must stay below "nothing chosen yet".
    nearest = np.where(finite, np.float32(np.inf), np.float32(-1))
    if memory is not None and memory.shape[1]:
        old = _unit(np.where(np.isfinite(memory), memory, 0))
        for start in range(0, old.shape[1], _MEMORY_BLOCK):
            block = old[:, start : start + _MEMORY_BLOCK]
            _lower(nearest, columns, squares, block)
    n_layer = len(vectors)
    rows = np.arange(n_layer)
    chosen = np.empty((n_layer, n_keep), np.int32)
    n_seeds = seeds.shape[1]
    chosen[:, :n_seeds] = seeds
    for start in range(0, n_seeds, _MEMORY_BLOCK):
        some = seeds[:, start : start + _MEMORY_BLOCK]
        _lower(nearest, columns, squares, units[rows[:, None], some])
    nearest[rows[:, None], seeds] = -np.inf
    for i in range(n_seeds, n_keep):
        pick = nearest.argmax(axis=1)
        chosen[:, i] = pick
        _lower(nearest, columns, squares, units[rows, pick][:, None])
        nearest[rows, pick] = -np.inf
    return chosen


def _lower(nearest: Floats, columns: Floats, squares: Floats, centres: Floats) -> None:
    """Lower the squared distances [L, n] to the nearest of centres [L, c, d], in place."""
    lengths = np.einsum("lcd,lcd->lc", centres, centres)
    for c in range(0, centres.shape[1], _MEMORY_BLOCK):
        part = slice(c, c + _MEMORY_BLOCK)
        distance = np.matmul(centres[:, part], columns)  # [L, c, n]
        distance *= -2
        distance += lengths[:, part, None]
        best = distance[:, 0] if distance.shape[1] == 1 else distance.min(axis=1)
        best += squares
        # Rounding must not sort equal tokens: identical directions are at distance 0.
        best[best < 1e-6] = 0
        np.minimum(nearest, best, out=nearest)


def _unit(vectors: Floats) -> Floats:
    norms = np.sqrt(np.einsum("lnd,lnd->ln", vectors, vectors))
    return np.asarray(vectors / np.maximum(norms, np.float32(1e-20))[..., None], np.float32)
