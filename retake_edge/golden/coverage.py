"""The specification of what retake_edge.compress.coverage chooses: plain loops in numpy.

The library computes in the same order, bit for bit (cpp_patches/src/retake-select.h says which),
so both choose the same tokens, near-ties included. Nothing but tests runs this.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]
Bools = npt.NDArray[np.bool_]

N_LANES = 16
FAR = np.float32(-2.5)
"""Below minus half of the largest squared distance of unit vectors, which is 4."""

ROUNDING = np.float32(5e-7)
"""Half of a squared distance up to this is 0: vectors of one direction differ by rounding."""


def dot(a: Floats, b: Floats) -> Floats:
    """Return the dot products over the last axis in f32: 16 sums, then theirs by halves."""
    products = a * b
    n_more = -products.shape[-1] % N_LANES
    padded = np.pad(products, [(0, 0)] * (products.ndim - 1) + [(0, n_more)])
    sums = np.zeros((*products.shape[:-1], N_LANES), np.float32)
    for first in range(0, padded.shape[-1], N_LANES):
        sums = sums + padded[..., first : first + N_LANES]
    while sums.shape[-1] > 1:
        half = sums.shape[-1] // 2
        sums = sums[..., :half] + sums[..., half:]
    return sums[..., 0]


def farthest_points(
    units: Floats, last: Bools, n_keep: int, seeds: Ints, memory: Floats, weights: Floats | None
) -> Ints:
    """Extend one layer's seeds to `n_keep` tokens, each new one farthest from all chosen.

    `units`: f32 [n, d], of length 1 or 0; `last`: bool [n], tokens that are taken only after all
    others; `seeds`: int [s]; `memory`: f32 [m, d]; `weights`: f32 [n] above 0, factors of the
    squared distances. Ties go to the lowest index. Returns int32 [n_keep].

    Source: Gonzalez 1985 (greedy k-center).
    """
    half = dot(units, units) / 2
    # Half of minus the squared distance to the nearest of the chosen.
    closeness = np.where(last, np.float32(1), FAR)

    def approach(centre: Floats) -> None:
        new = dot(units, centre) - (half + dot(centre, centre) / 2) + ROUNDING
        np.maximum(closeness, np.minimum(new, np.float32(0)), out=closeness)

    chosen = seeds.tolist()
    for centre in [*memory, *units[seeds]]:
        approach(centre)
    closeness[seeds] = np.inf
    while len(chosen) < n_keep:
        pick = int((closeness if weights is None else closeness * weights).argmin())
        chosen.append(pick)
        approach(units[pick])
        closeness[pick] = np.inf
    return np.array(chosen, np.int32)


def nearest_counts(units: Floats, kept: npt.NDArray[np.integer]) -> Floats:
    """Count for each kept token those that are nearest to it, itself included: f32 [k].

    `units`: f32 [n, d]; `kept`: int [k], k >= 1, ascending. Ties go to the lowest index.
    """
    counts = np.ones(len(kept), np.float32)
    for i in np.delete(np.arange(len(units)), kept):
        counts[dot(units[i], units[kept]).argmax()] += 1
    return counts
