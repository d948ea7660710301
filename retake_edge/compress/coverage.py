"""Farthest-point sampling: keep tokens so that no token is far from a kept one.

A rare token has few supporters in attention, but it lies far from everything else; this is what
finds it. Each layer has vectors and a kept set of its own. The patched library compares all tokens
with all kept ones, on one thread; retake_edge.golden.coverage says in numpy what it chooses.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from retake_edge.errors import NativeError
from retake_edge.llama import library

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]
Bools = npt.NDArray[np.bool_]


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

    Raises:
        NativeError: the seeds or weights are not as said.
    Source: Gonzalez 1985 (greedy k-center).
    """
    n_layer, n, width = vectors.shape
    units, finite = directions(vectors)
    old = units[:, :0] if memory is None else memory_directions(memory)
    chosen = np.empty((n_layer, n_keep), np.int32)
    chosen[:, : seeds.shape[1]] = seeds
    factors = None if weights is None else np.ascontiguousarray(weights, np.float32)
    sizes, n_old = (n_layer, n, width), old.shape[1]
    last = np.ascontiguousarray(~finite).view(np.uint8)
    _call("farthest", *sizes, units, last, n_old, old, factors, seeds.shape[1], n_keep, chosen)
    return chosen


def layers_joined(vectors: Floats) -> Floats:
    """Join the directions of all layers to one vector a token: f32 [L, n, d] to [1, n, L * d].

    Every layer counts alike, however long its vectors are. Infinity becomes NaN.
    """
    n_layer, n, width = vectors.shape
    finite = np.where(np.isfinite(vectors), vectors, np.float32(np.nan))
    return _unit(finite).transpose(1, 0, 2).reshape(1, n, n_layer * width)


def likeness(vectors: Floats) -> Floats:
    """Return how alike each vector is to all of its layer's, f32 [L, n], from -1 to 1.

    `vectors`: f32 [L, n, d]. The cosine of a vector and the sum of all directions; infinity for a
    vector with NaN or infinity in it, which counts for nothing.
    Source: Park et al. 2025 (KeyDiff), there of keys.
    """
    units, finite = directions(vectors)
    common = _unit(units.sum(axis=1, keepdims=True))
    return np.where(finite, np.einsum("lnd,lmd->ln", units, common), np.float32(np.inf))


def nearest_counts(vectors: Floats, kept: npt.NDArray[np.integer]) -> Floats:
    """Count for each kept token the tokens that are nearest to it of all kept, itself included.

    `vectors`: f32 [n, d], compared by direction; `kept`: int [k], ascending. Returns f32 [k],
    together n. Ties go to the lowest index; a token with NaN or infinity counts for the first.
    """
    counts = np.zeros(len(kept), np.float32)
    if len(kept):
        units, _ = directions(vectors[None])
        _call("counts", *vectors.shape, units, len(kept), kept.astype(np.int32), counts)
    return counts


def nearest_sums(vectors: Floats, kept: npt.NDArray[np.integer], counts: Floats) -> Floats:
    """Return what `nearest_counts` does with tokens that count f32 [n] each: f32 [k].

    Tokens of one count are asked about together, so there should be few different ones.
    """
    is_kept = np.zeros(len(vectors), np.bool_)
    is_kept[kept] = True
    sums, places = np.array(counts[kept], np.float32), np.arange(len(kept))
    for count in np.unique(counts[~is_kept]):
        dropped = vectors[~is_kept & (counts == count)]
        found = nearest_counts(np.concatenate([vectors[kept], dropped]), places)
        sums += count * (found - 1)
    return np.asarray(sums, np.float32)


def directions(vectors: Floats) -> tuple[Floats, Bools]:
    """Return (vectors at length 1, f32 [L, n, d]; which of them are finite, bool [L, n]).

    Vectors with NaN or infinity become 0.
    """
    finite = np.asarray(np.isfinite(vectors).all(axis=2))
    return _unit(vectors if finite.all() else np.where(finite[..., None], vectors, 0)), finite


def memory_directions(memory: Floats) -> Floats:
    """Return remembered vectors at length 1, what is not finite in them as 0: f32 [L, m, d]."""
    return _unit(np.where(np.isfinite(memory), memory, 0))


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


def _unit(vectors: Floats) -> Floats:
    norms = np.sqrt(np.einsum("lnd,lnd->ln", vectors, vectors))
    return np.asarray(vectors / np.maximum(norms, np.float32(1e-20))[..., None], np.float32)


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL:
    lib = ctypes.CDLL(library.load_libraries()._lib._name)  # argument types belong to a handle
    i32, pointer = ctypes.c_int32, ctypes.c_void_p
    lib.retake_select_farthest.argtypes = [
        *[i32] * 3,
        pointer,
        pointer,
        i32,
        pointer,
        pointer,
        i32,
        i32,
        pointer,
    ]
    lib.retake_select_counts.argtypes = [i32, i32, pointer, i32, pointer, pointer]
    lib.retake_kvc_last_error.restype = ctypes.c_char_p
    return lib


def _call(name: str, *arguments: int | npt.NDArray[Any] | None) -> None:
    """Call the library with contiguous arrays, which live until it returns."""
    arrays = [np.ascontiguousarray(a) if isinstance(a, np.ndarray) else a for a in arguments]
    plain = [a.ctypes.data if isinstance(a, np.ndarray) else a for a in arrays]
    if getattr(_library(), f"retake_select_{name}")(*plain) < 0:
        reason = (_library().retake_kvc_last_error() or b"").decode("utf-8", "replace")
        raise NativeError(f"The selection of tokens failed: {reason}.")
