"""Run one golden prefill case - text, video chunks with PivotKV, text, greedy tokens - anywhere.

The order of operations and the position rules stand here once; a `Runner` does the arithmetic:
numpy (`NumpyRunner`), the native library (`NativeRunner`), or llama.cpp's public API alone
(`retake_edge.golden.runners.oracle`).

Source: video-ReTaKe at e268c32, with transformers 4.48 Qwen2-VL.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import numpy.typing as npt

from retake_edge.compress.policies import ChunkSignals, select_cells
from retake_edge.engine import positions
from retake_edge.golden.reference.cache import chunk_scores, move_keys
from retake_edge.golden.reference.model import ReferenceModel

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]
Bools = npt.NDArray[np.bool_]

KEEP, PER_LAYER, SHARED = "keep", "per-layer", "shared"
"""Position rules: untouched; re-forged layer by layer as the reference does; re-forged by the one
rule of `positions.reforge` for all layers."""

N_GENERATED = 8

Select = Callable[[Floats], Ints]
Move = Callable[[Ints], Ints]


@dataclass(frozen=True)
class PrefillCase:
    """Input of a case: `tokens` int32 [L] with the video's placeholders, `video` f32 [n, n_embd],
    the model's own `positions` int32 [3, L], (length, kept) of each chunk from token `n_before`
    on, and the `pivots` bool [n].
    """

    name: str
    tokens: Ints
    video: Floats
    positions: Ints
    n_before: int
    chunks: tuple[tuple[int, int], ...]
    pivots: Bools | None


@dataclass(frozen=True)
class PrefillResult:
    """Output: per layer `scores` f32 and `kept` bool [layer, n], positions int32 of the chunks
    [layer, 3, n], of the kept cells [layer, 3, K], of the text after [layer, 3, m] and of the
    generated tokens [layer, 7, 3]; `logits` f32 [8, vocab]; greedy `tokens` int32 [8].
    """

    scores: Floats
    kept: Bools
    pos: Ints
    comp_pos: Ints
    post_pos: Ints
    dec_pos: Ints
    logits: Floats
    tokens: Ints


class Runner(Protocol):
    """The operations that a case needs; positions are int32 [layer, 3, n] throughout."""

    n_layer: int

    def reset(self) -> None:
        """Empty the cache."""

    def text(self, tokens: Ints, ids: Ints) -> Floats:
        """Decode tokens; return the last one's logits f32 [vocab]."""

    def chunk(
        self, rows: Floats, ids: Ints, select: Select, move: Move, *, unrotate: bool
    ) -> tuple[Floats, Ints, Ints]:
        """Decode and compress a chunk.

        `select` turns scores f32 [layer, n] into kept sets int32 [layer, k]; `move` turns kept
        sets into the cells' positions int32 [layer, 3, k]. Returns scores and both results.
        """


class _Positions:
    """Positions of each layer's tokens under a rule; `last_t` is the t of its last cache entry."""

    def __init__(self, rule: str, n_layer: int) -> None:
        self.rule = rule
        self._last_t = np.full(n_layer, -1, np.int32)

    def place(self, ids: Ints, *, is_generated: bool = False) -> Ints:
        """Positions int32 [layer, 3, n] of tokens whose original ones are [3, n]."""
        placed = np.repeat(ids[None], len(self._last_t), axis=0)
        if self.rule != KEEP:
            shift = self._last_t + 1 - ids[0, 0]
            placed[:, 0] += shift[:, None]
            if is_generated:  # the reference shifts all three axes of an expanded view at once
                placed[:, 1:] = placed[:, :1]
        self._last_t = placed[:, 0, -1].copy()
        return placed

    def move(self, ids: Ints, kept: Ints) -> Ints:
        """Positions int32 [layer, 3, k] of kept cells; the next token starts after them."""
        moved = np.take_along_axis(ids, kept[:, None, :].astype(np.int64), axis=2)
        n = ids.shape[2]
        if self.rule == PER_LAYER:
            for layer in range(len(moved)):
                moved[layer, 0] = positions.reforge_per_layer(moved[layer, 0], n)
        elif self.rule == SHARED:
            times, _ = positions.reforge(ids[0, 0], kept.shape[1])
            moved[:, 0] = times[kept]
            self._last_t[:] = times.max()
            return moved
        self._last_t = moved[:, 0, -1].copy()
        return moved


def run_case(case: PrefillCase, runner: Runner, rule: str) -> PrefillResult:
    """Run a case under a position rule (KEEP, PER_LAYER or SHARED)."""
    runner.reset()
    counter = _Positions(rule, runner.n_layer)
    scores, kept, pos, comp_pos = [], [], [], []
    runner.text(case.tokens[: case.n_before], counter.place(case.positions[:, : case.n_before]))
    start = case.n_before
    for n, n_keep in case.chunks:
        ids = counter.place(case.positions[:, start : start + n])
        part = slice(start - case.n_before, start - case.n_before + n)
        select = partial(
            select_as_reference,
            pivots=None if case.pivots is None else case.pivots[part],
            n_keep=n_keep,
        )
        chunk_score, tokens, moved = runner.chunk(
            case.video[part], ids, select, partial(counter.move, ids), unrotate=rule != KEEP
        )
        flags = np.zeros((runner.n_layer, n), np.bool_)
        np.put_along_axis(flags, tokens.astype(np.int64), True, axis=1)
        scores.append(chunk_score)
        kept.append(flags)
        pos.append(ids)
        comp_pos.append(moved)
        start += n
    post_pos = counter.place(case.positions[:, start:])
    logits = [runner.text(case.tokens[start:], post_pos)]
    after = positions.next_position(case.positions)
    dec_pos = []
    for i in range(N_GENERATED - 1):
        ids = counter.place(np.full((3, 1), after + i, np.int32), is_generated=True)
        logits.append(runner.text(np.array([logits[-1].argmax()], np.int32), ids))
        dec_pos.append(ids[:, :, 0])
    return PrefillResult(
        scores=np.concatenate(scores, axis=1),
        kept=np.concatenate(kept, axis=1),
        pos=np.concatenate(pos, axis=2),
        comp_pos=np.concatenate(comp_pos, axis=2),
        post_pos=post_pos,
        dec_pos=np.stack(dec_pos, axis=1),
        logits=np.stack(logits),
        tokens=np.array([row.argmax() for row in logits], np.int32),
    )


def select_as_reference(scores: Floats, pivots: Bools | None, n_keep: int) -> Ints:
    """Return the kept sets int32 [layer, n_keep] of the reference code: pivots score 1.0."""
    n_layer, n = scores.shape
    nothing = np.zeros(n, np.bool_)
    signals = ChunkSignals(
        n_layer=n_layer,
        pivots=nothing if pivots is None else pivots,
        changes=np.zeros(n, np.float32),
        frame_index=np.zeros(n, np.int32),
        forced=nothing,
        scores=scores,
    )
    rng = np.random.default_rng(0)
    return select_cells("pivotkv", signals, n_keep, rng, pivot="reference")


class NumpyRunner:
    """Runs a case in numpy; able to follow every rule, per-layer positions included."""

    def __init__(self, model: ReferenceModel) -> None:
        self.model, self.n_layer = model, model.n_layer

    def reset(self) -> None:
        """Empty the cache."""
        self.model.clear()

    def text(self, tokens: Ints, ids: Ints) -> Floats:
        """Decode tokens; return the last one's logits."""
        return self.model.forward(self.model.embed_tokens(tokens), ids).logits

    def chunk(
        self, rows: Floats, ids: Ints, select: Select, move: Move, *, unrotate: bool
    ) -> tuple[Floats, Ints, Ints]:
        """Decode a chunk, score it, and rewrite each layer's cells."""
        n, rope, cache = len(rows), self.model.rope, self.model.cache
        queries = self.model.forward(rows, ids).q
        scores = np.empty((self.n_layer, n), np.float32)
        for layer in range(self.n_layer):
            q, k = queries[layer], cache[layer].k[:, -n:]
            if unrotate:
                q, k = (rope.rotate(x, ids[layer], back=True) for x in (q, k))
            scores[layer] = chunk_scores(q, k)
        kept = select(scores)
        moved = move(kept)
        for layer in range(self.n_layer):
            row = kept[layer]
            k, v = cache[layer].k[:, -n:][:, row], cache[layer].v[:, -n:][:, row]
            old = ids[layer][:, row]
            if unrotate:
                k = move_keys(k, rope, old, moved[layer])
            self.model.replace_tail(layer, n, k, v, moved[layer])
        return scores, kept, moved
