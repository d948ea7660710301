"""Bring pictures to another size with the filters that the models' own processors use.

Vision towers were trained on frames that Pillow or torchvision had resized, with a filter that
widens as the picture shrinks. OpenCV has no such filter, so here it is in numpy: two separable
passes in the fixed-point arithmetic of torchvision's tensors of bytes, which makes the result
equal to theirs, byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Doubles = npt.NDArray[np.float64]

_MAX_WEIGHT = 1 << 15
_MAX_PRECISION = 22
# Larger products OpenBLAS shares among threads, which a busy machine punishes.
_ONE_THREAD = 1 << 18
_BLOCK = 32


def _bilinear(x: Doubles) -> Doubles:
    return np.maximum(0.0, 1.0 - np.abs(x))


def _bicubic(x: Doubles) -> Doubles:
    """Keys' kernel with a = -1/2."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


def _lanczos(x: Doubles) -> Doubles:
    return np.where(np.abs(x) < 3.0, np.sinc(x) * np.sinc(x / 3.0), 0.0)


FILTERS: dict[str, tuple[Callable[[Doubles], Doubles], float]] = {
    "bilinear": (_bilinear, 1.0),
    "bicubic": (_bicubic, 2.0),
    "lanczos": (_lanczos, 3.0),
}
"""Name to kernel and its radius, in pixels of the larger picture."""


def resample(picture: Bytes, width: int, height: int, kernel: str) -> Bytes:
    """Return the picture uint8 [H, W, C] as uint8 [height, width, C].

    `kernel`: one of `FILTERS`. Columns are resized first, and rounded, then rows.

    Source: PyTorch, upsampling of bytes with antialiasing (after Pillow's).
    """
    rows, cols, n_channels = picture.shape
    if width != cols:
        picture = _resample_rows(picture.transpose(1, 0, 2).reshape(cols, -1), width, kernel)
        picture = picture.reshape(width, rows, n_channels).transpose(1, 0, 2)
    if height != rows:
        picture = _resample_rows(picture.reshape(rows, -1), height, kernel)
        picture = picture.reshape(height, width, n_channels)
    return np.ascontiguousarray(picture)


def long_side_size(width: int, height: int, long_side: int) -> tuple[int, int]:
    """Return (width, height) of the same shape with that longer side, the other one even.

    Source: transformers, SmolVLMVideoProcessor.
    """
    aspect = width / height
    if width >= height:
        side = int(long_side / aspect)
        return long_side, max(1, side + side % 2)
    side = int(long_side * aspect)
    return max(1, side + side % 2), long_side


def _resample_rows(lines: Bytes, n_out: int, kernel: str) -> Bytes:
    """Mix lines uint8 [n, m] to uint8 [n_out, m]; sums of integers below 2^53 are exact."""
    out = np.empty((n_out, lines.shape[1]), np.uint8)
    for first, start, weights, precision in _blocks(len(lines), n_out, kernel):
        n, span = weights.shape
        width = max(1, _ONE_THREAD // weights.size)
        for left in range(0, lines.shape[1], width):
            columns = slice(left, left + width)
            mixed = weights @ lines[start : start + span, columns].astype(np.float64)
            # Half up, as adding a half and shifting right does, also below 0.
            mixed = np.floor((mixed + (1 << precision - 1)) / (1 << precision))
            out[first : first + n, columns] = np.clip(mixed, 0, 255)
    return out


@lru_cache(maxsize=16)
def _blocks(n_in: int, n_out: int, kernel: str) -> list[tuple[int, int, Doubles, int]]:
    """Weights in bands: (first output, first input, whole numbers f64 [n, span], precision)."""
    function, radius = FILTERS[kernel]
    scale = n_in / n_out
    # Shrinking widens the kernel over `scale` inputs each way; enlarging leaves it as it is.
    support = radius * max(scale, 1.0)
    centers = scale * (np.arange(n_out) + 0.5)
    # Each output mixes inputs [low, high): those whose middles the kernel reaches.
    low = np.maximum(0, (centers - support + 0.5).astype(np.int64))
    high = np.minimum(n_in, (centers + support + 0.5).astype(np.int64))
    inputs = np.arange(n_in)
    blocks, largest = [], 0.0
    # Neighbouring outputs share most inputs, so a band of them is one small matrix product.
    for first in range(0, n_out, _BLOCK):
        part = slice(first, min(n_out, first + _BLOCK))
        start, stop = int(low[part][0]), int(high[part][-1])
        at = inputs[start:stop] - centers[part, None] + 0.5
        weights = function(at * (1.0 / max(scale, 1.0)))
        inside = (inputs[start:stop] >= low[part, None]) & (inputs[start:stop] < high[part, None])
        weights = np.where(inside, weights, 0.0)
        weights /= weights.sum(axis=1, keepdims=True)
        largest = max(largest, float(weights.max()))
        blocks.append((first, start, weights))
    # One precision for all bands, as in torchvision: that of their largest weight.
    precision = _precision(largest)
    return [
        (first, start, np.trunc(w * (1 << precision) + np.copysign(0.5, w)), precision)
        for first, start, w in blocks
    ]


def _precision(largest: float) -> int:
    """The bits after the point with which the largest weight still fits into 16 bits."""
    for bits in range(_MAX_PRECISION):
        if int(0.5 + largest * (1 << bits + 1)) >= _MAX_WEIGHT:
            return bits
    return _MAX_PRECISION
