"""Record where in the video a question and its answer look, while they are decoded.

The rows that matter are those that predict the answer's tokens: the question's last one and the
answer's own but for its last, which predicts the end and looks at nothing in particular. Their
queries are kept, MOST_QUERIES at a time: when so many are there, their attention over the video's
cells is added up and the next ones take their place, so that a long answer needs no more memory
than a short one. The rest is added after the answer, so that no token of a short one waits.
Source: ReTaKe's score (paper section 3.3) with the answer's rows as queries.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from retake_edge.errors import RetakeError
from retake_edge.llama.capture import Capture, is_compressible
from retake_edge.llama.context import Context
from retake_edge.llama.model import Floats

MOST_QUERIES = 64
"""Most queries that are kept at once."""

_log = logging.getLogger(__name__)


class AnswerAttention:
    """The attention of one answer over `n_cells` cells of the video from `first_cell` on.

    `weights` f32 [n_layer, n_cells], each layer's mean over heads and rows, adding up to 1; None
    before the answer is complete, for models whose cache cannot be captured, and where memory for
    it is lacking: an answer never fails because of it.
    """

    def __init__(self, first_cell: int, n_cells: int) -> None:
        self.first_cell, self.n_cells = first_cell, n_cells
        self.weights: Floats | None = None
        self._capture: Capture | None = None
        self._sum: Floats | None = None
        self._n_rows = self._first_row = self._n_max = 0

    @contextmanager
    def recorded(self, context: Context, n_prompt: int, n_answer_max: int) -> Iterator[None]:
        """Record what is decoded in this block: `n_prompt` tokens, then the answer's.

        Call `before_token` before each token of the answer is decoded. A block left by an exception
        records nothing.
        """
        self.weights = self._sum = None
        self._n_rows = 0
        self._context, self._n_queries = context, max(1, min(MOST_QUERIES, n_answer_max))
        if is_compressible(context):
            self._begin(n_prompt)
        try:
            yield
            self._finish()
        finally:
            self._release()

    def before_token(self) -> None:
        """Make room for the query of the next token: those before it predicted tokens."""
        if self._capture is not None and self._capture.n_tokens == self._n_max:
            self._fold(self._n_max - self._first_row)
            if self._capture is not None:
                self._release()
                self._begin(1)

    def _begin(self, n_before: int) -> None:
        """Keep the queries from the last of `n_before` tokens on."""
        self._first_row, self._n_max = n_before - 1, n_before - 1 + self._n_queries
        try:
            self._capture = Capture(self._context, n_max=self._n_max, q_first=self._first_row)
        except RetakeError as error:
            self._give_up(error)

    def _fold(self, n_rows: int) -> None:
        """Add up the attention of the first `n_rows` kept queries."""
        if self._capture is None or n_rows < 1:
            return
        window = (self.first_cell, self.n_cells)
        try:
            attention = self._capture.attention(self._first_row, n_rows, *window)
        except RetakeError as error:
            self._give_up(error)
            return
        self._sum = attention if self._sum is None else self._sum + attention
        self._n_rows += n_rows

    def _finish(self) -> None:
        if self._capture is not None:
            n_rows = self._capture.n_tokens - self._first_row - 1
            self._fold(n_rows if self._n_rows else max(1, n_rows))
        if self._capture is not None and self._sum is not None:
            self.weights = self._sum / np.float32(self._n_rows)

    def _release(self) -> None:
        """Stop keeping queries; what was decoded meanwhile stays."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None

    def _give_up(self, error: RetakeError) -> None:
        _log.warning("Where the answer looked is not known: %s", error)
        self._release()


def idle_attention(context: Context, position: int, token: int, window: tuple[int, int]) -> Floats:
    """Return where a token at `position` looks that knows no question, f32 [n_layer, n_cells].

    What it looks at draws attention whatever is asked. `window`: the first of the video's cells and
    their number; each layer adds up to 1. The token is removed again.

    Raises:
        RetakeError: the attention cannot be computed.
    """
    with Capture(context, n_max=1) as capture:
        context.decode_tokens([token], position)
        return capture.attention(0, 1, *window)
