"""A second look: frames decoded beside a video that is read, asked once, and removed again.

The video's cells stay sequence 0's. A second sequence takes them over piece by piece (that copies
nothing), with the new frames between the pieces, so that each stands at its true time and sees what
came before it, as if it had been read so. What the second sequence alone holds is then removed, and
the first one is as it was, cell by cell.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import TracebackType

from retake_edge.engine import positions
from retake_edge.engine.chunks import ChunkBuilder, FrameBlock
from retake_edge.engine.engine import Engine
from retake_edge.engine.trained_context import require_trained
from retake_edge.llama.capture import is_compressible
from retake_edge.models.manifest import PositionRule

SEQUENCE = 1
_TIMED = ("mrope", "mrope-time", "mrope-clock")


def why_not_beside(engine: Engine) -> str:
    """Return why no frames can be decoded beside a video in this engine's context, '' if they can.

    A recurrent state cannot be taken over in pieces.
    """
    if engine.model.has_states:
        return "this model has layers whose state cannot be taken apart"
    if not is_compressible(engine.context):
        return "this model's cache is not made of plain cells"
    return ""


def has_time_axis(rule: PositionRule, engine: Engine) -> bool:
    """Return whether positions of frames follow the clock, so that they can stand at their time.

    Otherwise frames come after the video, and tell their time as the model's other frames do.
    """
    return rule.kind in _TIMED and not engine.reforges


class Beside:
    """The second sequence: made of frames by `add`, in order of time, then asked by `generate`.

    `builder`: as for the video itself; `end`: where text after the video would begin. `in_place`:
    frames stand in place of the video's cells of the same time, not with them. A context manager
    that leaves the first sequence and the engine as they were.
    """

    def __init__(
        self,
        engine: Engine,
        rule: PositionRule,
        builder: ChunkBuilder,
        end: int,
        *,
        in_place: bool = False,
    ) -> None:
        self._engine, self._builder, self._end = engine, builder, end
        self._is_timed = has_time_axis(rule, engine)
        self._in_place = in_place
        self._taken = -1  # the video's cells below this position are taken over
        self._n_cells_before = engine.n_cells

    def __enter__(self) -> Beside:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._engine.context.remove(seq=SEQUENCE)
        self._engine.n_cells = self._n_cells_before

    def add(self, block: FrameBlock) -> None:
        """Decode frames that come after those that were added before.

        Raises:
            MemoryBudgetError: no cells are left, or the model was not trained for the positions.
            NativeError: llama.cpp failed.
        """
        engine, context = self._engine, self._engine.context
        if not self._is_timed and self._taken < 0:
            self._take_over(self._end)
        last = context.position_max(SEQUENCE)
        start = max(self._end, last + 1)
        time_start = start if engine.reforges else None
        chunk = self._builder.build(block, start, time_start=time_start)
        if self._is_timed:
            ids = chunk.positions.copy()
            first = int(positions.time_axis(ids).min())
            if first < last:  # two frames may be rounded to one time
                positions.start_at(ids, last)
                chunk, first = replace(chunk, positions=ids), last
            self._take_over(first)
        highest = positions.next_position(chunk.positions)
        require_trained(highest - 1, engine.model, "A second look", "lower --look-again")
        self._end = max(self._end, highest)
        engine.decode(chunk, seq=SEQUENCE)
        engine.n_cells += len(chunk.frame)
        if self._is_timed and self._in_place:
            self._taken = max(self._taken, int(positions.time_axis(chunk.positions).max()) + 1)

    def _take_over(self, until: int) -> None:
        """Take over the first sequence's cells below a position."""
        self._engine.context.copy(0, SEQUENCE, self._taken, until)
        self._taken = until

    def finish(self) -> int:
        """Take over what is left of the video; return the position of text after everything."""
        self._take_over(-1)
        return max(self._end, self._engine.context.position_max(SEQUENCE) + 1)

    def generate(self, prompt: str) -> Iterator[int]:
        """Yield the tokens of an answer to `prompt`, which follows everything.

        Raises:
            MemoryBudgetError: no cells are left, or the model was not trained for the positions.
        """
        tokens = self._engine.model.tokenize(prompt)
        yield from self._engine.answer(tokens, self.finish(), seq=SEQUENCE)
