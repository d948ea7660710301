"""Records of an engine: its input, its results, and where it stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from retake_edge.llama.model import Floats, Ints


@dataclass(frozen=True)
class ChunkResult:
    """The result of one chunk.

    `n_cells` before compression, with `n_left_out` of frames that stand still; `cell_frames` int32
    [n_layer, n_kept]: the video's grid frame of each cell kept, in the order of the cells (-1 -
    frame for clock text); `pivot_share` f32 [T]: share of pivots among each grid frame's tokens;
    `seconds` by stage.
    """

    n_cells: int
    cell_frames: Ints
    pivot_share: Floats
    n_left_out: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def n_kept(self) -> int:
        """Cells left of the chunk."""
        return int(self.cell_frames.shape[1])


@dataclass(frozen=True)
class EngineState:
    """All that an engine knows besides its cells.

    `rng`: state of the policy's random generator (None: no chunk will follow); `memory` f32
    [n_layer, m, dim] or None: what coverage remembers of earlier chunks; `n_cells` in use.
    `n_positions`: the lowest position that no token of the video ever had.
    `ledger`: the cells left for chunks to come (`compress.budgets.Ledger`), None without one.
    """

    next_position: int
    next_time: int
    rng: dict[str, Any] | None = None
    memory: Floats | None = None
    n_cells: int = 0
    n_positions: int = 0
    ledger: Sequence[Any] | None = None


@dataclass(frozen=True)
class Mark:
    """A place in the sequence to go back to: its end, the recurrent states and the cells there."""

    position: int
    states: bytes
    n_cells: int


@dataclass(frozen=True)
class ImageRule:
    """A model's rule for decoding images.

    `one_by_one`: each in a batch of its own, and text between them as tokens; `non_causal`: an
    image's tokens see each other, also those after them.
    """

    one_by_one: bool = False
    non_causal: bool = False
