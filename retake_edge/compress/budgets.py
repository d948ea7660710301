"""Shares of a fixed sum of cells for chunks, by how new each is beside those before it.

A chunk's share is settled when the chunk is read, since nothing is ever put back. What is left is
shared by the tokens to come, so that the sum stays what it would be with even shares.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from retake_edge.compress.policies import kept_vision

FLOOR, CAP = 0.5, 2.0
"""Least and most of its even share that a chunk gets, but for the last one, which gets the rest."""


class Ledger(NamedTuple):
    """The cells left for the vision tokens to come.

    `n_cells` may still be kept of `n_tokens`; `even`: cells a token where all shares are alike.
    `novelty`: sum over the `n_chunks` that were read.
    """

    n_cells: int
    n_tokens: int
    even: float
    novelty: float = 0.0
    n_chunks: int = 0

    @classmethod
    def of(cls, sizes: Sequence[int], keep_ratio: float) -> Ledger:
        """Return the ledger of chunks of `sizes` vision tokens, before any of them."""
        n_cells, n_tokens = sum(kept_vision(n, keep_ratio) for n in sizes), sum(sizes)
        return cls(n_cells, n_tokens, n_cells / n_tokens)

    def spend(self, n: int, novelty: float) -> tuple[int, Ledger]:
        """Return the cells of the next chunk, of `n` vision tokens, and what is left after it.

        `novelty`: how new the chunk is, at least 0, in any unit: it is compared with the mean so
        far. From 1 to `n` cells; what is left suffices for the floor of all chunks to come.
        """
        total, n_chunks = self.novelty + novelty, self.n_chunks + 1
        n_rest = max(0, self.n_tokens - n)
        wanted = self.n_cells
        if n_rest:
            factor = novelty * n_chunks / total if total > 0 else 1.0
            wanted = round(self.n_cells / self.n_tokens * n * min(max(factor, FLOOR), CAP))
            wanted = min(wanted, int(CAP * self.even * n), self.n_cells - self._floor(n_rest))
            wanted = max(wanted, self._floor(n))
        n_chunks_rest = -(-n_rest // n)  # each of them keeps a cell at least
        kept = max(1, min(wanted, n, self.n_cells - n_chunks_rest))
        left = max(0, self.n_cells - kept)
        return kept, Ledger(left, n_rest, self.even, total, n_chunks)

    def most_before(self, n_rest: int) -> int:
        """Return the most cells that are kept before the last `n_rest` tokens, of a new ledger."""
        capped = math.ceil(CAP * self.even * (self.n_tokens - n_rest))
        return min(capped, self.n_cells - self._floor(n_rest))

    def _floor(self, n: int) -> int:
        """The least cells of `n` tokens."""
        return int(FLOOR * self.even * n)
