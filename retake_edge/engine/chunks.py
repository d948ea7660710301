"""From vision features to chunks of tokens: embeddings, positions, clock text and pivots.

A pivot needs the frame after it, so one grid frame is read ahead; nothing else is held back. Each
grid frame is copied once, into the array of its chunk; where text stands between frames, once more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from retake_edge.compress.coverage import farthest_points, nearest_counts
from retake_edge.compress.dpselect import PivotStream
from retake_edge.engine import positions
from retake_edge.errors import ModelError
from retake_edge.llama.model import Floats, Ints, Model
from retake_edge.models.manifest import PositionRule
from retake_edge.vision.encoder import VisionFeatures

Bools = npt.NDArray[np.bool_]

STILL_TOKENS = 8
"""Of how many tokens of a frame that stands still one is shown to the language model."""

_NO_ROWS = np.zeros((0, 0, 0), np.float32)


@dataclass(frozen=True)
class FrameBlock:
    """The grid frames of one chunk, with what DPSelect says of them.

    `features` of T grid frames of N tokens; `distances` f32 [T, N] to the frame before, `pivots`
    bool [T, N]; `first_frame`: index in the video of the first of them.
    """

    features: VisionFeatures
    distances: Floats
    pivots: Bools
    first_frame: int


@dataclass(frozen=True)
class PrefillChunk:
    """The tokens prefilled between two compressions, n in all.

    `embeddings` f32 [n, n_embd_inp]; `positions` int32 [4, n] or [n]; `frame` int32 [n], the
    video's grid frame of each token (of the one it precedes, for clock text); `is_text`, `pivots`
    bool [n]; `distances` f32 [n], 0 for text; `tokens` int32 [n]: ids of text tokens, -1 for
    others (needed where images are decoded alone). `counts` f32 [n]: how many tokens each stands
    for (None: itself alone); `n_left_out`: those of frames that stand still for which others do.
    """

    embeddings: Floats
    positions: Ints
    frame: Ints
    is_text: Bools
    pivots: Bools
    distances: Floats
    tokens: Ints = field(default_factory=lambda: np.zeros(0, np.int32))
    counts: Floats | None = None
    n_left_out: int = 0


@dataclass(frozen=True)
class StreamState:
    """The end of the blocks that are finished, from which a later run goes on.

    `n_frames`: grid frames in them; `last_frame` f32 [N, C]: features of the newest; `distances`
    f32 [1 or 2, N]: of the newest frames, to the ones before them.
    """

    n_frames: int
    last_frame: Floats
    distances: Floats

    @classmethod
    def after(cls, block: FrameBlock, n_embd: int, before: StreamState | None) -> StreamState:
        """Return the state after a block, `before` being the one before it."""
        distances = block.distances[-2:]
        if len(distances) < 2 and before is not None:
            distances = np.concatenate([before.distances[-1:], distances])
        last_frame = block.features.embeddings[-1, :, :n_embd]
        n_frames = block.first_frame + len(block.pivots)
        return cls(n_frames, last_frame.copy(), distances.copy())


def frame_blocks(
    features: Iterator[VisionFeatures],
    steps_per_chunk: int,
    *,
    per_patch: bool,
    n_embd: int,
    after: StreamState | None = None,
) -> Iterator[FrameBlock]:
    """Regroup features into blocks of `steps_per_chunk` grid frames, and find their pivots.

    DPSelect compares the first `n_embd` columns: deepstack appends others. `after`: the blocks
    that an earlier run finished; `features` goes on where they end.
    """
    stream, n_decided = PivotStream(per_patch), 0
    filling = _Filling(steps_per_chunk, 0 if after is None else after.n_frames)
    if after is not None:
        stream = PivotStream.resumed(after.last_frame, after.distances, per_patch=per_patch)
        n_decided = 1
    for part in features:
        distances, pivots = stream.push(part.embeddings[..., :n_embd])
        filling.decide(distances[n_decided:], pivots[n_decided:])
        n_decided = 0
        rest = filling.fill(part)
        while filling.is_ready:
            yield filling.taken()
            rest = filling.fill(rest)
    filling.decide(*stream.finish())
    if filling.n_frames:
        yield filling.taken()


class _Filling:
    """The block that is being filled: one array of its own, into which each frame is copied once.

    What is decided of frames lags behind them by one. So a full block may still wait, but then no
    frame has come that has no place in it.
    """

    def __init__(self, n_steps: int, first_frame: int) -> None:
        self._n_steps = n_steps
        self._begin(first_frame)

    def _begin(self, first_frame: int) -> None:
        self._first_frame = first_frame
        self._embeddings: Floats | None = None
        self._distances, self._pivots = list[Floats](), list[Bools]()
        self._times = list[VisionFeatures]()
        self.n_frames = self._n_decided = 0

    @property
    def is_ready(self) -> bool:
        """True if the block is full, and all of it decided."""
        return self.n_frames == self._n_steps and self._n_decided >= self._n_steps

    def decide(self, distances: Floats, pivots: Bools) -> None:
        """Add what was decided of the next frames, also of frames that are to come."""
        self._distances.append(distances)
        self._pivots.append(pivots)
        self._n_decided += len(pivots)

    def fill(self, part: VisionFeatures) -> VisionFeatures:
        """Copy the frames of a part that have a place in the block; return the others."""
        n = min(self._n_steps - self.n_frames, len(part.times_s))
        if n:
            if self._embeddings is None:
                shape = self._n_steps, *part.embeddings.shape[1:]
                self._embeddings = np.empty(shape, np.float32)
            self._embeddings[self.n_frames : self.n_frames + n] = part.embeddings[:n]
            self._times.append(replace(part[:n], embeddings=_NO_ROWS))
            self.n_frames += n
        return part[n:]

    def taken(self) -> FrameBlock:
        """Return the block as far as it is full, and begin the next one."""
        assert self._embeddings is not None
        n, first_frame, some = self.n_frames, self._first_frame, self._times[0]
        distances, pivots = np.concatenate(self._distances), np.concatenate(self._pivots)
        features = VisionFeatures(
            self._embeddings[:n],
            np.concatenate([part.times_s for part in self._times]),
            np.concatenate([part.middle_s for part in self._times]),
            *(some.rows, some.cols, some.step_s),
            np.concatenate([part.news for part in self._times]),
        )
        self._begin(first_frame + n)
        self.decide(distances[n:], pivots[n:])
        return FrameBlock(features, distances[:n], pivots[:n], first_frame)


class VideoPlaces:
    """Positions of a video's tokens, chunk after chunk, as one model's rule has them.

    `base`: the position after the text before the video; `origin_s`: the time of the video's first
    grid frame (None: that of the first chunk laid out).
    """

    def __init__(self, rule: PositionRule, base: int, origin_s: float | None = None) -> None:
        self._rule, self._base, self._origin_s = rule, base, origin_s
        self._last_step: int | None = None

    def lay_out(
        self,
        times_s: positions.Doubles,
        step_s: float,
        rows: int,
        cols: int,
        first_frame: int,
        n_text: list[int],
        start: int,
    ) -> positions.SpanPositions:
        """Lay out grid frames of `rows` x `cols` tokens at `times_s`, the first `first_frame`.

        `step_s`: seconds between two sampled frames; `n_text`: tokens of text before each grid
        frame; `start`: where rules without a clock of their own go on.
        """
        if self._origin_s is None:
            self._origin_s = float(times_s[0])
        kind, rate = self._rule.kind, self._rule.positions_per_second
        if kind == "mrope-clock":
            span = positions.timed_span(
                times_s,
                rows,
                cols,
                self._base,
                first_s=self._origin_s,
                positions_per_second=rate,
                last_step=self._last_step,
            )
            self._last_step = int(positions.time_axis(span.ids)[-1]) - self._base - 1
            return span
        if kind == "mrope-time":
            since_start = np.concatenate([[self._origin_s], times_s])
            steps = positions.frame_steps_by_time(since_start, rate, step_s)[1:]
            steps = positions.separated(steps, self._last_step)
            self._last_step = int(steps[-1])
            return positions.mrope_span(steps, rows, cols, self._base)
        if kind == "mrope":
            steps = first_frame + positions.frame_steps(len(times_s))
            return positions.mrope_span(steps, rows, cols, self._base)
        if kind == "timestamps":
            return positions.interleaved_span(n_text, rows, cols, start)
        n_newlines = self._rule.newlines_per_step
        return positions.linear_span(n_text, rows * cols, start, n_newlines)


class ChunkBuilder:
    """Turns frame blocks into chunks as one model's rule has them.

    `base`: the position after the text before the video. `origin_s`: the time of the video's first
    grid frame, where the first block built here is a later one. `newline` f32 [n_embd_inp]: the
    learned row that the rule asks for. `whole`: frames that stand still are built whole, too.
    """

    def __init__(
        self,
        model: Model,
        rule: PositionRule,
        base: int,
        origin_s: float | None = None,
        newline: Floats | None = None,
        *,
        whole: bool = False,
    ) -> None:
        self._model, self._rule, self._newline = model, rule, newline
        self._whole = whole
        self._places = VideoPlaces(rule, base, origin_s)

    def build(
        self, block: FrameBlock, start: int, *, time_start: int | None = None
    ) -> PrefillChunk:
        """Build a chunk. Of frames that stand still only some tokens are in it.

        `start`: the next free position, where rules without a clock of their own go on.
        `time_start`: where time positions go on, whatever the clock says (re-forging).

        Raises:
            ModelError: the model has no word for a time.
        """
        features = block.features
        texts = [
            clock_tokens(self._model, self._rule, block.first_frame + i, *times)
            for i, times in enumerate(zip(features.times_s, features.middle_s, strict=True))
        ]
        video = self._places.lay_out(
            features.times_s,
            features.step_s,
            features.rows,
            features.cols,
            block.first_frame,
            [len(text) for text in texts],
            start,
        )
        ids = video.ids.copy()
        if time_start is not None:
            positions.start_at(ids, time_start)
        is_text = video.is_text
        frame = _frames_of_text(video.frame) + block.first_frame
        rows = features.embeddings.reshape(-1, self._model.n_embd_inp)
        tokens = np.full(len(is_text), -1, np.int32)
        if is_text.any():
            tokens[is_text & ~video.is_newline] = [token for text in texts for token in text]
            rows = self._with_text(rows, is_text, tokens)
        pivots, distances = np.zeros(len(is_text), np.bool_), np.zeros(len(is_text), np.float32)
        pivots[~is_text], distances[~is_text] = block.pivots.ravel(), block.distances.ravel()
        chunk = PrefillChunk(rows, ids, frame, is_text, pivots, distances, tokens)
        is_whole = self._whole or features.news.all()
        return chunk if is_whole else self._thinned(chunk, features)

    def _thinned(self, chunk: PrefillChunk, features: VisionFeatures) -> PrefillChunk:
        """Leave out the tokens of frames that stand still for which others of the frame stand."""
        stand_for = tokens_shown(features, self._model.n_embd).ravel()
        counts = np.ones(len(chunk.frame), np.float32)
        counts[~chunk.is_text] = stand_for
        stays = counts > 0
        n = int(stays.sum())
        ids = chunk.positions[..., stays]
        if ids.ndim == 1:  # these must run on
            ids = chunk.positions[:n]
        return PrefillChunk(
            chunk.embeddings[stays],
            ids,
            chunk.frame[stays],
            chunk.is_text[stays],
            chunk.pivots[stays],
            chunk.distances[stays],
            chunk.tokens[stays],
            counts[stays],
            len(stays) - n,
        )

    def _with_text(self, vision: Floats, is_text: Bools, tokens: Ints) -> Floats:
        """Rows of all tokens, f32 [n, n_embd_inp], of `vision` those that are no text.

        Text without a token is the learned row.
        """
        rows = np.empty((len(is_text), vision.shape[1]), np.float32)
        rows[~is_text] = vision
        is_word = tokens >= 0
        if is_word.any():
            rows[is_word] = self._model.embed_tokens(tokens[is_word].tolist())
        if self._newline is not None:
            rows[is_text & ~is_word] = self._newline
        return rows


def tokens_shown(features: VisionFeatures, n_embd: int) -> Floats:
    """Return how many tokens each token of T grid frames stands for, f32 [T, N]; 0: it is left out.

    All stay of a frame that shows something new. Of one that stands still those stay that differ
    most in their first `n_embd` columns, one of STILL_TOKENS: enough to say at its time what is
    shown then. The others count for the one that they are most like.
    """
    n_frames, n_tokens = features.embeddings.shape[:2]
    stand_for = np.ones((n_frames, n_tokens), np.float32)
    for i in np.flatnonzero(~features.news):
        if i and not features.news[i - 1]:
            stand_for[i] = stand_for[i - 1]
            continue
        rows = features.embeddings[i, :, :n_embd]
        n_shown = -(-n_tokens // STILL_TOKENS)
        first = np.zeros((1, 1), np.int32)
        shown = np.sort(farthest_points(rows[None], n_shown, first, None)[0])
        stand_for[i] = 0
        stand_for[i, shown] = nearest_counts(rows, shown)
    return stand_for


def clock_tokens(
    model: Model, rule: PositionRule, index: int, first_s: float, middle_s: float
) -> list[int]:
    """Return the tokens between grid frame `index` and the one before it, [] if there are none.

    Raises:
        ModelError: the model has no single word for the time.
    """
    tokens = model.tokenize(rule.frame_text(index, float(first_s), float(middle_s)))
    if rule.kind == "mrope-clock" and len(tokens) != 1:
        raise ModelError(
            f"This model has no word for the time {int(first_s)} s; it knows the first "
            f"{rule.max_clock_s or 0:g} s of a video: choose a part with --start and --end, or "
            "another model with -m."
        )
    return tokens


def n_text_per_step(
    model: Model, rule: PositionRule, index: int, first_s: float, middle_s: float
) -> int:
    """Return the cells of grid frame `index` that are no vision tokens, and never evicted.

    Raises:
        ModelError: the model has no single word for the time.
    """
    text = clock_tokens(model, rule, index, first_s, middle_s)
    return len(text) + rule.newlines_per_step


def _frames_of_text(frame: Ints) -> Ints:
    """Give clock text the frame that follows it, a learned row the one before it."""
    filled = frame.copy()
    for i in range(1, len(filled)):
        if filled[i] == positions.NEWLINE:
            filled[i] = filled[i - 1]
    for i in range(len(filled) - 2, -1, -1):
        if filled[i] == positions.TEXT:
            filled[i] = filled[i + 1]
    return filled
