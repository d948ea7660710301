"""The one loop of the engine: block after block is prefilled, compressed, and then final."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from retake_edge.engine.chunks import ChunkBuilder, FrameBlock
from retake_edge.engine.engine import Engine
from retake_edge.engine.state import ChunkResult


def prefill(
    engine: Engine, builder: ChunkBuilder, blocks: Iterable[FrameBlock], keep_ratio: float
) -> Iterator[tuple[FrameBlock, ChunkResult]]:
    """Prefill and compress block after block; yield each as soon as its cells are final.

    A caller that lets go of a block before it asks for the next one has no two of them in memory.

    Raises:
        MemoryBudgetError: the context has too few cells.
    """
    for block in blocks:
        time_start = engine.next_time if engine.reforges else None
        chunk = builder.build(block, engine.next_position, time_start=time_start)
        result = engine.prefill_chunk(chunk, keep_ratio)
        yield block, result
        del block, chunk, result
