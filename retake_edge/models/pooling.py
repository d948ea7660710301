"""Pooling of a frame's features after the projector, as LLaVA-OneVision and LLaVA-Video do it.

llama.cpp's encoder has no such step, and needs none: what the projector gives passes through here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retake_edge.errors import ModelError

Floats = npt.NDArray[np.float32]

MODES = ("bilinear", "average", "max")


@dataclass(frozen=True)
class Pooling:
    """The pooling of squares of `stride` x `stride` tokens.

    `mode`: 'average' or 'max' of each whole square (what is left over at the end of a row or column
    is dropped), or 'bilinear': the grid drawn anew at 1 / `stride` of its size, rounded up.

    Raises:
        ModelError: the mode is not known, or the stride is below 1.
    """

    mode: str
    stride: int = 2

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            modes = ", ".join(MODES)
            raise ModelError(f"The pooling of frames is {self.mode!r}, but must be one of {modes}.")
        if self.stride < 1:
            raise ModelError(f"The stride of pooling is {self.stride}, but must be at least 1.")

    def side(self, n: int) -> int:
        """Return how many of `n` tokens in a row or column are left."""
        return -(-n // self.stride) if self.mode == "bilinear" else n // self.stride

    def pooled(self, features: Floats, rows: int, cols: int) -> Floats:
        """Pool features f32 [rows * cols, C], row-major, to f32 [side(rows) * side(cols), C].

        Source: LLaVA-NeXT, get_2dPool; transformers, LlavaOnevisionModel.apply_pooling.
        """
        grid = features.reshape(rows, cols, -1)
        new_rows, new_cols, stride = self.side(rows), self.side(cols), self.stride
        if self.mode == "bilinear":
            down = _weights(rows, new_rows)
            across = _weights(cols, new_cols)
            out = np.einsum("ir,jc,rcd->ijd", down, across, grid, optimize=True)
        else:
            whole = grid[: new_rows * stride, : new_cols * stride]
            squares = whole.reshape(new_rows, stride, new_cols, stride, -1)
            out = squares.mean((1, 3)) if self.mode == "average" else squares.max((1, 3))
        return np.ascontiguousarray(out.reshape(new_rows * new_cols, -1), np.float32)


def _weights(n: int, n_new: int) -> Floats:
    """Return the shares of n old places in each of n_new, f32 [n_new, n], by linear interpolation.

    Places are middles of squares: that of the new one, in the old grid, lies between two old ones.
    """
    places = np.maximum((np.arange(n_new, dtype=np.float32) + 0.5) * (n / n_new) - 0.5, 0)
    before = places.astype(np.int64)
    after = np.minimum(before + 1, n - 1)
    share = (places - before).astype(np.float32)
    weights = np.zeros((n_new, n), np.float32)
    np.add.at(weights, (np.arange(n_new), before), 1 - share)
    np.add.at(weights, (np.arange(n_new), after), share)
    return weights
