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
_FAR = -2.5  # below minus half of the largest squared distance of unit vectors, 4
_ROUNDING = 5e-7
# Larger products OpenBLAS shares among threads, which costs a hundred times as much as it brings
# when other programs are busy.
_ONE_THREAD = 1 << 18


def farthest_points(
    vectors: Floats,
    n_keep: int,
    seeds: Ints,
    memory: Floats | None,
    weights: Floats | None = None,
) -> Ints:
    """Extend each layer's seeds to `n_keep` tokens, every new one farthest from all chosen.

    `vectors`: f32 [L, n, d], compared by direction (L2-normalised here). `seeds`: int [L, s] with
    s <= n_keep <= n, distinct within a layer. `memory`: f32 [L, m, d] or None, vectors kept
    earlier: what is close to them is not chosen soon. `weights`: f32 [L, n] above 0 or None, by
    which the squared distances are multiplied. Ties go to the lowest index; tokens with NaN or
    infinity come last. Returns int32 [L, n_keep], the seeds first.

    Source: Gonzalez 1985 (greedy k-center).
    """
    n_layer, n, width = vectors.shape
    group = max(1, _GROUP_BYTES // max(1, n * width * 4))
    parts = []
    for first in range(0, n_layer, group):
        layers = slice(first, first + group)
        old, weight = (None if x is None else x[layers] for x in (memory, weights))
        parts.append(_farthest(vectors[layers], n_keep, seeds[layers], old, weight))
    return np.concatenate(parts)


def layers_joined(vectors: Floats) -> Floats:
    """Join the directions of all layers to one vector a token: f32 [L, n, d] to [1, n, L * d].

    Every layer counts alike, however long its vectors are. Infinity becomes NaN.
    """
    n_layer, n, width = vectors.shape
    finite = np.where(np.isfinite(vectors), vectors, np.float32(np.nan))
    return _unit(finite).transpose(1, 0, 2).reshape(1, n, n_layer * width)


def nearest_counts(vectors: Floats, kept: npt.NDArray[np.integer]) -> Floats:
    """Count for each kept token the tokens that are nearest to it of all kept, itself included.

    `vectors`: f32 [n, d], compared by direction; `kept`: int [k], ascending. Returns f32 [k],
    together n. Ties go to the lowest index; a token with NaN or infinity counts for the first.
    """
    if not len(kept):
        return np.zeros(0, np.float32)
    finite = np.isfinite(vectors).all(axis=1, keepdims=True)
    units = _unit(np.where(finite, vectors, 0)[None])[0]
    columns = np.ascontiguousarray(units[kept].T)
    dropped = np.delete(np.arange(len(vectors)), kept)
    counts = np.ones(len(kept), np.float32)
    block = max(1, _ONE_THREAD // columns.size)
    for first in range(0, len(dropped), block):
        nearest = (units[dropped[first : first + block]] @ columns).argmax(axis=1)
        np.add.at(counts, nearest, 1)
    return counts


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


def _farthest(
    vectors: Floats, n_keep: int, seeds: Ints, memory: Floats | None, weights: Floats | None
) -> Ints:
    finite = np.asarray(np.isfinite(vectors).all(axis=2))
    units = _unit(np.where(finite[..., None], vectors, 0))
    centres, columns = _centres(units), _columns(units)
    # Half of minus the squared distance to the nearest of the chosen; tokens that cannot be
    # compared stand after all others.
    nearest = np.where(finite, np.float32(_FAR), np.float32(1))
    if memory is not None and memory.shape[1]:
        old = _centres(_unit(np.where(np.isfinite(memory), memory, 0)))
        _approach(nearest, old, columns)
    rows = np.arange(len(vectors))
    chosen = np.empty((len(vectors), n_keep), np.int32)
    n_seeds = seeds.shape[1]
    chosen[:, :n_seeds] = seeds
    if n_seeds:
        _approach(nearest, centres[rows[:, None], seeds], columns)
    nearest[rows[:, None], seeds] = np.inf
    for i in range(n_seeds, n_keep):
        gain = nearest if weights is None else nearest * weights
        pick = gain.argmin(axis=1)
        chosen[:, i] = pick
        _approach(nearest, centres[rows, pick][:, None], columns)
        nearest[rows, pick] = np.inf
    return chosen


def _centres(units: Floats) -> Floats:
    """Rows [L, c, d + 2] whose product with `_columns` is minus half of a squared distance."""
    half = np.einsum("lcd,lcd->lc", units, units)[..., None] / -2
    return np.concatenate([units, half, np.ones_like(half)], axis=2)


def _columns(units: Floats) -> Floats:
    """Columns [L, d + 2, n], contiguous; the last row also lifts what is but rounding above 0."""
    half = np.einsum("lnd,lnd->ln", units, units)[:, None] / -2 + np.float32(_ROUNDING)
    rows = np.concatenate([units.transpose(0, 2, 1), np.ones_like(half), half], axis=1)
    return np.ascontiguousarray(rows)


def _approach(nearest: Floats, centres: Floats, columns: Floats) -> None:
    """Raise the closeness [L, n] of all tokens to that of new centres [L, c, d + 2], in place."""
    block = max(1, _ONE_THREAD // columns[0].size)
    for c in range(0, centres.shape[1], block):
        some = centres[:, c : c + block]
        if some.shape[1] == 1:
            closeness = np.einsum("ldn,ld->ln", columns, some[:, 0])  # not BLAS, see _ONE_THREAD
        else:
            closeness = np.matmul(some, columns).max(axis=1)
        # Rounding must not sort equal tokens: identical directions are at distance 0.
        np.minimum(closeness, 0, out=closeness)
        np.maximum(nearest, closeness, out=nearest)


def _unit(vectors: Floats) -> Floats:
    norms = np.sqrt(np.einsum("lnd,lnd->ln", vectors, vectors))
    return np.asarray(vectors / np.maximum(norms, np.float32(1e-20))[..., None], np.float32)
