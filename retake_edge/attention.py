"""Record where in the video a question and its answer look, while they are decoded.

The rows that matter are those that predict the answer's tokens: the question's last one and the
answer's own but for its last, which predicts the end and looks at nothing in particular. The
attention, over the video's cells alone, is taken after the answer, so that no token of it waits.
Source: ReTaKe's score (paper section 3.3) with the answer's rows as queries.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from retake_edge.kvc import Capture, is_compressible
from retake_edge.llama import Context, Floats


@dataclass
class AnswerAttention:
    """The attention of one answer over `n_cells` cells of the video from `first_cell` on.

    `weights` f32 [n_layer, n_cells], each layer's mean over heads and rows, adding up to 1; None
    before the answer is complete, and for models whose cache cannot be captured.
    """

    first_cell: int
    n_cells: int
    weights: Floats | None = None

    @contextmanager
    def recorded(self, context: Context, n_prompt: int, n_answer_max: int) -> Iterator[None]:
        """Record what is decoded in this block: `n_prompt` tokens, then the answer's.

        A block left by an exception records nothing.

        Raises:
            NativeError: the attention cannot be computed.
        """
        if not is_compressible(context):
            yield
            return
        with Capture(context, n_max=n_prompt + n_answer_max) as capture:
            yield
            n_rows = max(1, capture.n_tokens - n_prompt)
            window = (self.first_cell, self.n_cells)
            self.weights = capture.attention(n_prompt - 1, n_rows, *window)
            self.weights /= n_rows
            capture.release()
