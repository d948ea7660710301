"""Prefill, compress, generate: one model context and the rule by which its cache shrinks.

After each chunk the policy gets what it needs of it (attention scores, values), says which tokens
each layer keeps, and the native library moves those to the front and frees the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cached_property
from itertools import pairwise

import numpy as np

from retake_edge.compress import coverage, policies
from retake_edge.compress.budgets import Ledger
from retake_edge.compress.policies import kept_vision
from retake_edge.config import WHOLE_POLICIES, GenerationConfig, RetakeConfig
from retake_edge.engine import positions
from retake_edge.engine.attention import AnswerAttention
from retake_edge.engine.chunks import PrefillChunk
from retake_edge.engine.positions import time_axis
from retake_edge.engine.state import ChunkResult, EngineState, ImageRule, Mark
from retake_edge.engine.trained_context import position_mode, require_trained
from retake_edge.errors import MemoryBudgetError, RetakeError
from retake_edge.llama.capture import Capture, is_compressible, n_cache_layers, require_compressible
from retake_edge.llama.context import Context
from retake_edge.llama.model import Floats, Ints
from retake_edge.llama.sampler import Sampler, SamplerSettings, settings_of_run
from retake_edge.stages import StageTimes

__all__ = ["ChunkResult", "Engine", "EngineState", "ImageRule", "Mark"]

_FEWER = "lower --keep-ratio, take fewer frames with --max-frames, or a shorter part"

STAGES = ("prefill", "score", "select", "compact")
"""Stages of a chunk, in the clock that an engine gets."""

MEMORY_CELLS = 256
"""Most earlier cells a layer remembers for coverage."""


class Engine:
    """A context being filled with one video, and then asked.

    `n_text_reserve`: cells reserved for a question with its answer. `next_position`: the lowest
    position above all others; `next_time`: the same on the time axis alone; `n_cells`: cells in
    use. `n_positions`: the lowest position that no token of the video ever had; `answer_end`: that
    after the latest answer. `log_probs`: of the latest answer's tokens, its end included where it
    came to one. `reforges`: whether what is kept moves together. `images`: how they are decoded.
    `times` gets the seconds by stage.

    `guide`: the tokens of the one question that the video is read for; after each chunk they are
    decoded, score its cells in the place of its own queries, and are removed again.
    `ledger`: the cells of all chunks together, where chunks with more that is new get more of them.
    """

    def __init__(
        self,
        context: Context,
        config: RetakeConfig,
        *,
        n_text_reserve: int,
        images: ImageRule | None = None,
        times: StageTimes | None = None,
        guide: Sequence[int] = (),
        ledger: Ledger | None = None,
    ) -> None:
        self.model = context.model
        self.images = images or ImageRule()
        self.log_probs = list[float]()
        self.next_position = self.next_time = self.n_cells = self.n_positions = 0
        self.answer_end = 0
        self.reforges = position_mode(config.compression.positions, context.model) == "reforge"
        self._context, self._config, self._n_text_reserve = context, config, n_text_reserve
        self._guide, self._ledger = list(guide), ledger
        self._compresses = config.compression.policy not in WHOLE_POLICIES
        self._rng = np.random.default_rng(config.compression.seed)
        self._projection: Floats | None = None
        self._kept_values: Floats | None = None
        self._times = times or StageTimes()

    @cached_property
    def _n_layer(self) -> int:
        return n_cache_layers(self._context)

    @property
    def context(self) -> Context:
        """The context that holds the cells."""
        return self._context

    @cached_property
    def sampler_settings(self) -> SamplerSettings:
        """The settings for drawing answers, every value known."""
        return settings_of_run(self.model, self._config.generation)

    def draw_by(self, generation: GenerationConfig) -> None:
        """Draw answers in this way from now on; the cells kept for them stay as many as before."""
        self._config = replace(self._config, generation=generation)
        self.__dict__.pop("sampler_settings", None)

    def state(self) -> EngineState:
        """Return what `restore` needs, besides the cells, to go on from here."""
        rng = self._rng.bit_generator.state
        return EngineState(
            self.next_position,
            self.next_time,
            dict(rng),
            self._kept_values,
            self.n_cells,
            self.n_positions,
            self._ledger,
        )

    def restore(self, state: EngineState) -> None:
        """Go on where another engine was; its cells must be in the context already."""
        self.next_position, self.next_time = state.next_position, state.next_time
        self._kept_values, self.n_cells = state.memory, state.n_cells
        self.n_positions = max(state.n_positions, state.next_position)
        self._ledger = Ledger(*state.ledger) if state.ledger else self._ledger
        if state.rng is not None:
            self._rng.bit_generator.state = state.rng

    def mark(self, position: int | None = None) -> Mark:
        """Return the end of the sequence, `position` (None: that of the video), to go back to."""
        position = self.next_position if position is None else position
        return Mark(position, self._context.save_states(), self.n_cells)

    def rewind(self, mark: Mark) -> None:
        """Remove what was decoded since `mark`."""
        self._context.rewind(mark.position, mark.states)
        self.n_cells = mark.n_cells

    def prefill_text(self, text: str) -> None:
        """Decode text; it is never evicted."""
        tokens = self.model.tokenize(text, add_special=self.next_position == 0)
        if tokens:
            self._context.decode_tokens(tokens, self.next_position)
            self.next_position += len(tokens)
            self.n_cells += len(tokens)
        self.next_time = self.next_position
        self.n_positions = max(self.n_positions, self.next_position)

    def prefill_rows(self, rows: Floats) -> None:
        """Decode rows f32 [n, n_embd_inp] of no token, at positions that run on; they stay."""
        start, n = self.next_position, len(rows)
        ids = np.arange(start, start + n, dtype=np.int32)
        if self.model.n_pos_per_embd == 4:
            ids = positions.text_positions(n, start)
        self._context.decode_embeddings(rows, ids)
        self.next_position = self.next_time = start + n
        self.n_cells += n

    def prefill_chunk(self, chunk: PrefillChunk, keep_ratio: float) -> ChunkResult:
        """Decode a chunk and compress it to `keep_ratio` of its vision tokens (text stays).

        Raises:
            MemoryBudgetError: no cells are left, or the model was not trained for the positions.
            ModelError: the cache cannot be compressed. NativeError: llama.cpp failed; the chunk is
            removed.
        """
        highest = positions.next_position(chunk.positions) - 1
        require_trained(highest + len(self._guide), self.model, "The video", _FEWER)
        self.n_positions = max(self.n_positions, highest + 1)
        states = self._context.save_states()
        try:
            return self._prefill_chunk(chunk, keep_ratio)
        except RetakeError:
            self._context.rewind(int(time_axis(chunk.positions).min()), states)
            raise

    def _prefill_chunk(self, chunk: PrefillChunk, keep_ratio: float) -> ChunkResult:
        before = dict(self._times.seconds)
        n, n_keep = len(chunk.frame), self._n_keep(chunk, keep_ratio)
        is_whole = n_keep >= n and not (chunk.n_left_out and is_compressible(self._context))
        if not self._compresses or is_whole:
            with self._times.measure("prefill"):
                self.decode(chunk)
            self._advance(chunk.positions, time_axis(chunk.positions))
            return self._result(chunk, np.arange(n, dtype=np.int32)[None], before)
        require_compressible(self._context)
        with self._capture(n, scores=n_keep < n) as capture:
            with self._times.measure("prefill"):
                self.decode(chunk)
            if n_keep < n:
                kept, weights = self._selected(chunk, capture, n_keep)
            else:
                kept = np.tile(np.arange(n, dtype=np.int32), (capture.n_layer, 1))
                weights = self._weights_of_all(chunk)
            with self._times.measure("compact"):
                self._commit(capture, chunk, kept, weights, n_keep)
        return self._result(chunk, kept, before)

    def _weights_of_all(self, chunk: PrefillChunk) -> Floats | None:
        """What the tokens of a chunk weigh of which all stay: as much as they stand for."""
        weighs = policies.POLICIES[self._config.compression.policy].weighs
        return policies.limited(chunk.counts) if weighs and chunk.counts is not None else None

    def _selected(
        self, chunk: PrefillChunk, capture: Capture, n_keep: int
    ) -> tuple[Ints, Floats | None]:
        """Each layer's tokens that stay, and what they weigh."""
        signals, policy = self._signals(chunk, capture), self._config.compression.policy
        with self._times.measure("select"):
            kept = self._select(signals, n_keep)
            return kept, policies.cell_weights(policy, signals, kept, chunk.counts)

    def _n_keep(self, chunk: PrefillChunk, keep_ratio: float) -> int:
        """The tokens that may stay of a chunk, text included, by all that it stands for."""
        n_text = int(chunk.is_text.sum())
        n = len(chunk.frame) + chunk.n_left_out - n_text
        if keep_ratio >= 1:
            return n + n_text
        if self._ledger is None:
            return n_text + kept_vision(n, keep_ratio)
        compared = ~chunk.is_text & (chunk.frame > 0)  # the first frame has none before it
        n_compared = int(compared.sum()) + chunk.n_left_out
        novelty = float(chunk.distances[compared].sum(dtype=np.float64)) / max(1, n_compared)
        n_kept, self._ledger = self._ledger.spend(n, novelty)
        return n_text + n_kept

    def decode(self, chunk: PrefillChunk, *, seq: int = 0) -> None:
        """Decode a chunk as it is.

        Raises:
            MemoryBudgetError: no cells are left. NativeError: llama.cpp failed.
        """
        if self.images.one_by_one:
            self._decode_images(chunk, seq)
        else:
            self._context.decode_embeddings(chunk.embeddings, chunk.positions, seq=seq)
        self._context.synchronize()

    def _decode_images(self, chunk: PrefillChunk, seq: int) -> None:
        """Decode each image of a chunk on its own, and the text between them as tokens."""
        edges = np.flatnonzero(np.diff(chunk.frame) | np.diff(chunk.is_text)) + 1
        for start, end in pairwise([0, *edges.tolist(), len(chunk.frame)]):
            ids = chunk.positions[..., start:end]
            if chunk.is_text[start]:
                first = int(time_axis(ids)[0])
                self._context.decode_tokens(chunk.tokens[start:end].tolist(), first, seq=seq)
            else:
                rows = chunk.embeddings[start:end]
                non_causal = self.images.non_causal
                self._context.decode_embeddings(rows, ids, seq=seq, non_causal=non_causal)

    def _capture(self, n: int, *, scores: bool) -> Capture:
        """Capture a chunk of n tokens with the queries of the guide, some of its own, or none."""
        compression = self._config.compression
        if not scores or not policies.POLICIES[compression.policy].needs_scores:
            return Capture(self._context, n_max=n, q_stride=0)
        if self._guide:
            return Capture(self._context, n_max=n + len(self._guide), q_first=n)
        stride = max(1, n // compression.n_queries) if compression.n_queries else 1
        return Capture(self._context, n_max=n, q_stride=stride)

    def _signals(self, chunk: PrefillChunk, capture: Capture) -> policies.ChunkSignals:
        policy = policies.POLICIES[self._config.compression.policy]
        scores = values = None
        n, n_windows = len(chunk.frame), policy.query_windows
        with self._times.measure("score"):
            states = self._context.save_states() if self._guide else b""
            if self._guide:
                self._context.decode_tokens(self._guide, positions.next_position(chunk.positions))
            if policy.needs_scores and policy.needs_values:
                projection = self._value_projection(capture.n_embd_v)
                scores, values = capture.scores_and_values(
                    projection, n=n, unrotate=self.reforges, n_windows=n_windows
                )
            elif policy.needs_scores:
                scores = capture.scores(n=n, unrotate=self.reforges, n_windows=n_windows)
            elif policy.needs_values:
                values = capture.values(self._value_projection(capture.n_embd_v))
            self._context.load_states(states)  # its cells go when the chunk is compacted
        if self._guide and scores is not None:
            scores *= np.float32(n / len(self._guide))  # as a chunk's own: 1 is the mean
        return policies.ChunkSignals(
            n_layer=capture.n_layer,
            pivots=chunk.pivots,
            changes=chunk.distances,
            frame_index=chunk.frame,
            forced=chunk.is_text,
            scores=scores,
            values=values,
            memory=self._kept_values,
        )

    def _value_projection(self, n_embd_v: int) -> Floats | None:
        """A fixed random projection [the policy's width, n_embd_v]; None where none is needed."""
        width = policies.POLICIES[self._config.compression.policy].value_dim
        if n_embd_v <= width:
            return None
        if self._projection is None:
            rng = np.random.default_rng(0)  # the same for all: a seed is for random policies
            self._projection = rng.standard_normal((width, n_embd_v)).astype(np.float32)
        return self._projection

    def _select(self, signals: policies.ChunkSignals, n_keep: int) -> Ints:
        compression = self._config.compression
        kept = policies.select_cells(
            compression.policy, signals, n_keep, self._rng, pivot=compression.pivot
        )
        if signals.values is not None and policies.POLICIES[compression.policy].remembers:
            self._kept_values = coverage.remember(
                self._kept_values, signals.values, kept, MEMORY_CELLS
            )
        return kept

    def _commit(
        self,
        capture: Capture,
        chunk: PrefillChunk,
        kept: Ints,
        weights: Floats | None,
        n_keep: int,
    ) -> None:
        times = time_axis(chunk.positions)
        moved, deltas = times, None
        if self.reforges:
            moved, _ = positions.reforge(times, n_keep, len(times) + chunk.n_left_out)
            deltas = (moved - times)[kept]
        # The cells of a column differ between layers; what counts is that they stay in order and
        # that the last one stands where the chunk ends, since 1-D positions must run on.
        cells = moved[kept[0]].copy()
        cells[-1] = moved.max()
        capture.commit(kept, cells, deltas, None if weights is None else np.log(weights))
        self._advance(chunk.positions, moved)

    def _advance(self, ids: Ints, times: Ints) -> None:
        self.next_time = int(times.max()) + 1
        others = positions.next_position(ids[1:]) if ids.ndim == 2 else 0
        self.next_position = max(self.next_time, others)

    def _result(self, chunk: PrefillChunk, kept: Ints, before: Mapping[str, float]) -> ChunkResult:
        seen = ~chunk.is_text
        frame = chunk.frame - chunk.frame.min()
        n_pivots = np.bincount(frame[seen], weights=chunk.pivots[seen])
        pivot_share = (n_pivots / np.bincount(frame[seen])).astype(np.float32)
        token_frames = np.where(seen, chunk.frame, -1 - chunk.frame)
        cell_frames = np.broadcast_to(token_frames[kept], (self._n_layer, kept.shape[1]))
        self.n_cells += kept.shape[1]
        spent = self._times.seconds
        seconds = {
            stage: spent[stage] - before.get(stage, 0.0) for stage in STAGES if stage in spent
        }
        n_left_out = chunk.n_left_out
        n_cells = len(frame) + n_left_out
        return ChunkResult(n_cells, cell_frames, pivot_share, n_left_out, seconds)

    def generate(self, prompt: str, attention: AnswerAttention | None = None) -> Iterator[int]:
        """Yield the tokens of an answer to `prompt`, and leave the cache as it was before.

        `attention` records which cells of the video the answer looks at.

        Raises:
            MemoryBudgetError: prompt and answer need more cells than were reserved, or positions
            than the model was trained for.
        """
        max_tokens = self._config.generation.max_tokens
        tokens = self.model.tokenize(prompt)
        if len(tokens) + max_tokens > self._n_text_reserve:
            raise MemoryBudgetError(
                f"The question has {len(tokens)} tokens, and with {max_tokens} for the "
                f"answer needs more than the {self._n_text_reserve} tokens of room for it; "
                "shorten it or lower -n."
            )
        require_trained(
            self.next_position + len(tokens) + max_tokens - 1,
            self.model,
            f"The video with a question of {len(tokens)} tokens and {max_tokens} for the answer",
            "lower -n or --keep-ratio, or shorten the question",
        )
        mark = self.mark()
        try:
            yield from self.answer(tokens, self.next_position, attention)
        finally:
            self.rewind(mark)

    def reply(
        self,
        prompt: str,
        position: int,
        attention: AnswerAttention | None = None,
        known: list[int] | None = None,
    ) -> Iterator[int]:
        """Yield the tokens of an answer whose turn starts at `position`, and keep both.

        `known`: the answer as it was given before, in place of a new one.

        All of the turn is removed again if the answer is not read to its end. Its cells take one
        position each: the prompt's tokens, and the answer's.

        Raises:
            MemoryBudgetError: prompt and answer do not fit into the cells that are left, or into
            the positions that the model was trained for.
        """
        max_tokens = self._config.generation.max_tokens if known is None else len(known)
        tokens = self.model.tokenize(prompt)
        n_free = self._context.n_ctx - self.n_cells
        if len(tokens) + max_tokens > n_free:
            raise MemoryBudgetError(
                f"The next turn needs room for up to {len(tokens) + max_tokens} tokens, but this "
                f"conversation has left room for {n_free}; start a new one, or lower -n."
            )
        require_trained(
            position + len(tokens) + max_tokens - 1,
            self.model,
            f"The conversation with a turn of up to {len(tokens) + max_tokens} tokens more",
            "start a new one, or lower -n",
        )
        is_complete, mark = False, self.mark(position)
        try:
            yield from self.answer(tokens, position, attention, known)
            is_complete = True
        finally:
            if not is_complete:
                self.rewind(mark)

    def answer(
        self,
        tokens: list[int],
        position: int,
        attention: AnswerAttention | None = None,
        known: list[int] | None = None,
        *,
        seq: int = 0,
    ) -> Iterator[int]:
        """Decode a prompt and its answer, drawn or `known`, from `position` on; both stay."""
        generation = self._config.generation
        n_most = generation.max_tokens if known is None else len(known)
        n_most = min(n_most, self._context.n_ctx - self.n_cells - len(tokens))
        recorded = (
            attention.recorded(self._context, len(tokens), n_most) if attention else nullcontext()
        )
        drawn = Sampler(self.model, self.sampler_settings, generation.seed, generation.grammar)
        with drawn as sampler, recorded:
            sampler.remember(tokens)
            self.log_probs.clear()
            self._context.decode_tokens(tokens, position, seq=seq)
            position += len(tokens)
            self.n_cells += len(tokens)
            self.answer_end = position
            for i in range(n_most):
                if known is None:
                    token = sampler.draw(self._context)
                    self.log_probs.append(sampler.log_probability)
                else:
                    token = known[i]
                if self.model.is_end(token):
                    return
                yield token
                if attention:
                    attention.before_token()
                self._context.decode_tokens([token], position, seq=seq)
                position += 1
                self.answer_end = position
                self.n_cells += 1
