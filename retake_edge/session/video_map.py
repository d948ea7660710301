"""Facts of a prefilled video: its figures, and where each KV cell comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from retake_edge.formats import clock

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]


@dataclass(frozen=True)
class VideoMap:
    """The place in the video that each KV cell comes from.

    `frame_times_s` f64 [T], of the grid frames; `pivot_share` f32 [T], the share of each one's
    tokens that DPSelect marked; `cell_frames` int32 [n_layer, n_kept]: the grid frame of each
    cell kept, in the cache's order, -1 - frame for clock text.
    """

    frame_times_s: Doubles
    pivot_share: Floats
    cell_frames: Ints


_OLD_FIELDS = {"why_whole": "not_compressible"}
"""Of the version before: still read, never written."""


@dataclass(frozen=True)
class VideoStats:
    """The result for the video: its length, frames and cells.

    A grid frame is what the vision tower makes of one or two frames; it is a keyframe if it has a
    pivot, and kept while any of its cells is left in any layer. `reduced_by`: 'cells' were evicted,
    'frames' left out, or 'nothing'; `not_compressible`: why no cells could be evicted ('': they
    could). `positions`: 'keep' or 'reforge'; `n_positions`: how many the video took, of the
    `n_positions_trained` that the model knows. `n_still` grid frames showed what the one
    before did, and were not encoded; `n_left_out` of their tokens were not prefilled either.
    `sampling`: how the frames were spread, `even` or closer where the video changes (`change`).
    `guide`: the one question that decided what was kept
    ('': none did, so that any can be asked).
    """

    path: str
    duration_s: float
    n_frames: int
    n_grid_frames: int
    n_keyframes: int
    n_frames_kept: int
    n_cells_before: int
    n_cells_kept: int
    keep_ratio: float
    n_ctx: int
    kv_bytes: int
    reduced_by: str = "cells"
    not_compressible: str = ""
    positions: str = "keep"
    n_positions: int = 0
    n_positions_trained: int = 0
    n_still: int = 0
    n_left_out: int = 0
    sampling: str = "even"
    guide: str = ""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> VideoStats:
        """Build from what a session's file says, also one of the version before.

        Raises:
            TypeError: a field is missing or unknown.
        """
        return cls(**{_OLD_FIELDS.get(name, name): value for name, value in values.items()})

    def summary(self) -> str:
        """Return one line about the video, its frames and cells."""
        ratio = f"keep ratio {self.keep_ratio:.4g}"
        kept = f"{self.n_cells_kept} of {self.n_cells_before} KV cells kept ({ratio})"
        if self.reduced_by == "frames":
            step = -(-self.n_frames // self.n_grid_frames)
            n_used = min(step * self.n_frames_kept, self.n_frames)
            kept = f"{n_used} of them used whole, {self.n_cells_kept} KV cells"
        if self.n_still:
            kept += f"; {self.n_still} of {self.n_grid_frames} pictures stood still"
        why = self.not_compressible and f"; its cache is not compressed: {self.not_compressible}"
        return f"{clock(self.duration_s)} video, {self.n_frames} frames, {kept}{why}"
