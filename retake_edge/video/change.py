"""Where a film changes, told from the sizes of its packets alone: nothing is decoded for it.

An encoder spends bytes on what it cannot take from earlier pictures: a thing that appears costs
many times what the pictures around it cost. How much they cost depends on noise, movement, the
encoder and its rate control, so a picture is only compared with its own neighbourhood.

- Pictures between key frames are compared with the largest picture that is usual around: the
  median, over blocks on both sides, of each block's largest. Encoders give some pictures of a group
  many more bytes than the others (P and B, golden frames, pyramids); each block has such ones.
- Key frames are compared with key frames. One that comes before its turn was put there by the
  encoder since the scene changed: it is compared with the pictures between key frames.
- Where every picture is a key frame (MJPEG, ProRes), the difference to the size of the picture
  before takes the place of the size.
"""

from __future__ import annotations

import bisect
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from retake_edge.video.packets import Packets

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

BLOCK = 32
"""Pictures of a block: no less than a group of pictures of the usual encoders."""
AROUND = 15
"""Blocks on each side that say what is usual."""
KEYS_AROUND = 4
LEAST_SHARE = 0.02
"""Of a usual key frame: bytes that are no change, however still the picture is."""
LEAST_STRENGTH = float(np.log(1.1))
"""A picture of less than 1.1 times the usual size does not stand out."""
_ALL_INTRA = 0.5  # share of key frames from which on each picture stands for itself


@lru_cache(maxsize=1)
def change_strengths(packets: Packets) -> Floats:
    """Return how far each picture stands out, f64 [n]: the logarithm of its size over the usual.

    0 is usual; below 0 is less. The first picture shows no change, and has 0.
    """
    n, sizes, is_key = len(packets.times_s), packets.n_bytes, packets.is_key
    if n < 3:
        return np.zeros(n)
    least = LEAST_SHARE * float(np.median(sizes[is_key]) if is_key.any() else sizes.max()) + 1.0
    if is_key.mean() > _ALL_INTRA:
        steps = np.abs(np.diff(sizes, prepend=sizes[0]))
        found = _log_ratio(steps, _usual_largest(steps), least)
    else:
        found = np.zeros(n)
        between, keys = np.flatnonzero(~is_key), np.flatnonzero(is_key)
        usual = np.interp(np.arange(n), between, _usual_largest(sizes[between]))
        early = keys[comes_early(keys, packets.times_s)]
        compared = np.concatenate([between, early])
        found[compared] = _log_ratio(sizes[compared], usual[compared], least)
        others = np.setdiff1d(keys, early)
        usual_keys = _running_median(sizes[keys], KEYS_AROUND)[np.searchsorted(keys, others)]
        found[others] = _log_ratio(sizes[others], usual_keys, least)
    found[0] = 0.0
    return found


def comes_early(keys: npt.NDArray[np.intp], times_s: Floats) -> Bools:
    """Return which key frames (indices `keys` of pictures at `times_s`) come before their turn.

    The turn is the distance that nine of ten stay below, in pictures and in seconds: an encoder
    counts one or the other.
    """
    early = np.zeros(len(keys), np.bool_)
    if len(keys) > 2:
        for gaps in (np.diff(keys).astype(np.float64), np.diff(times_s[keys])):
            early[1:] |= gaps > np.quantile(gaps, 0.9) * 0.95
        early[1:] = ~early[1:]
    return early


def changing_moments(
    packets: Packets,
    strengths: Floats,
    n: int,
    *,
    after_s: float,
    until_s: float,
    apart_s: float,
) -> list[float]:
    """Return the times of the `n` pictures that stand out most, sorted; fewer where fewer do.

    Between `after_s` and `until_s`, both left out, and at least `apart_s` from one another. Of
    equally strong ones, those are taken first that spread over the whole film.
    """
    times_s = packets.times_s
    inside = (strengths >= LEAST_STRENGTH) & (times_s > after_s) & (times_s < until_s)
    candidates = np.flatnonzero(inside)
    spread = (candidates * _GOLDEN) % 1.0
    order = np.lexsort((spread, -np.round(strengths[candidates], 2)))
    chosen: list[float] = []
    for time_s in times_s[candidates[order]].tolist():
        if len(chosen) == n:
            break
        at = bisect.bisect_left(chosen, time_s)
        if all(abs(time_s - other) >= apart_s for other in chosen[max(0, at - 1) : at + 1]):
            chosen.insert(at, time_s)
    return chosen


_GOLDEN = (5**0.5 - 1) / 2  # multiples of it, without their whole part, lie as evenly as any


def _log_ratio(sizes: Floats, usual: Floats, least: float) -> Floats:
    return np.asarray(np.log((sizes + least) / (usual + least)))


def _usual_largest(sizes: Floats) -> Floats:
    """The median of the largest of each block around, for each picture."""
    n_blocks = max(1, len(sizes) // BLOCK)
    block = np.minimum(np.arange(len(sizes)) // BLOCK, n_blocks - 1)
    largest = np.zeros(n_blocks)
    np.maximum.at(largest, block, sizes)
    return _running_median(largest, AROUND)[block]


def _running_median(values: Floats, around: int) -> Floats:
    """The median of up to `around` values on both sides and the value itself."""
    n = len(values)
    if n <= 2 * around:
        return np.full(n, np.median(values)) if n else values
    windows = np.lib.stride_tricks.sliding_window_view(values, 2 * around + 1)
    inner = np.median(windows, axis=1)
    return np.concatenate([np.full(around, inner[0]), inner, np.full(around, inner[-1])])
