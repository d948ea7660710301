"""From vision features to chunks of tokens: embeddings, positions, clock text and pivots.

A pivot needs the frame after it, so one grid frame is read ahead; nothing else is held back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from retake_edge import positions
from retake_edge.dpselect import PivotStream
from retake_edge.errors import ModelError
from retake_edge.llama import Floats, Ints, Model
from retake_edge.models import Layout
from retake_edge.vision import VisionFeatures

Bools = npt.NDArray[np.bool_]


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
    others (needed where images are decoded alone).
    """

    embeddings: Floats
    positions: Ints
    frame: Ints
    is_text: Bools
    pivots: Bools
    distances: Floats
    tokens: Ints = field(default_factory=lambda: np.zeros(0, np.int32))


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
        return cls(n_frames, np.ascontiguousarray(last_frame), np.ascontiguousarray(distances))


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
    stream = PivotStream(per_patch)
    first_frame, n_decided = 0, 0
    if after is not None:
        stream = PivotStream.resumed(after.last_frame, after.distances, per_patch=per_patch)
        first_frame, n_decided = after.n_frames, 1
    waiting: FrameBlock | None = None
    for part in features:
        distances, pivots = stream.push(part.embeddings[..., :n_embd])
        new, n_decided = slice(n_decided, None), 0
        waiting = _appended(waiting, part, distances[new], pivots[new], first_frame)
        while len(waiting.pivots) >= steps_per_chunk:
            block, waiting = _split(waiting, steps_per_chunk)
            yield block
    if waiting is None:
        return
    distances, pivots = stream.finish()
    waiting = _appended(waiting, None, distances, pivots, first_frame)
    while len(waiting.pivots):
        block, waiting = _split(waiting, steps_per_chunk)
        yield block


def _appended(
    block: FrameBlock | None,
    part: VisionFeatures | None,
    distances: Floats,
    pivots: Bools,
    first_frame: int,
) -> FrameBlock:
    """Add frames, and what has been decided since, to a block whose decisions may lag behind."""
    if block is None:
        assert part is not None
        return FrameBlock(part, distances, pivots, first_frame)
    return FrameBlock(
        block.features if part is None else block.features.joined(part),
        np.concatenate([block.distances, distances]),
        np.concatenate([block.pivots, pivots]),
        block.first_frame,
    )


def _split(block: FrameBlock, n: int) -> tuple[FrameBlock, FrameBlock]:
    def part(frames: slice, first_frame: int) -> FrameBlock:
        features = block.features[frames]
        return FrameBlock(features, block.distances[frames], block.pivots[frames], first_frame)

    n = min(n, len(block.pivots))
    return part(slice(0, n), block.first_frame), part(slice(n, None), block.first_frame + n)


class VideoPlaces:
    """Positions of a video's tokens, chunk after chunk, as one model's layout wants them.

    `base`: the position after the text before the video; `origin_s`: the time of the video's first
    grid frame (None: that of the first chunk laid out).
    """

    def __init__(self, layout: Layout, base: int, origin_s: float | None = None) -> None:
        self._layout, self._base, self._origin_s = layout, base, origin_s
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
    ) -> positions.VideoLayout:
        """Lay out grid frames of `rows` x `cols` tokens at `times_s`, the first `first_frame`.

        `step_s`: seconds between two sampled frames; `n_text`: tokens of text before each grid
        frame; `start`: where layouts without a clock of their own go on.
        """
        if self._origin_s is None:
            self._origin_s = float(times_s[0])
        kind, rate = self._layout.kind, self._layout.positions_per_second
        if kind == "mrope-clock":
            return positions.timed_layout(
                times_s,
                rows,
                cols,
                self._base,
                first_s=self._origin_s,
                positions_per_second=rate,
            )
        if kind == "mrope-time":
            since_start = np.concatenate([[self._origin_s], times_s])
            steps = positions.frame_steps_by_time(since_start, rate, step_s)[1:]
            steps = positions.separated(steps, self._last_step)
            self._last_step = int(steps[-1])
            return positions.mrope_layout(steps, rows, cols, self._base)
        if kind == "mrope":
            steps = first_frame + positions.frame_steps(len(times_s))
            return positions.mrope_layout(steps, rows, cols, self._base)
        if kind == "timestamps":
            return positions.interleaved_layout(n_text, rows, cols, start)
        return positions.linear_layout(n_text, rows * cols, start)


class ChunkBuilder:
    """Turns frame blocks into chunks as one model's layout wants them.

    `base`: the position after the text before the video. `origin_s`: the time of the video's first
    grid frame, where the first block built here is a later one.
    """

    def __init__(
        self, model: Model, layout: Layout, base: int, origin_s: float | None = None
    ) -> None:
        self._model, self._layout = model, layout
        self._places = VideoPlaces(layout, base, origin_s)

    def build(
        self, block: FrameBlock, start: int, *, time_start: int | None = None
    ) -> PrefillChunk:
        """Build a chunk.

        `start`: the next free position, where layouts without a clock of their own go on.
        `time_start`: where time positions go on, whatever the clock says (re-forging).

        Raises:
            ModelError: the model has no word for a time.
        """
        features = block.features
        texts = [
            clock_tokens(self._model, self._layout, block.first_frame + i, *times)
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
        frame = _fill_backwards(video.frame) + block.first_frame
        rows = np.empty((len(is_text), self._model.n_embd_inp), np.float32)
        rows[~is_text] = features.embeddings.reshape(-1, self._model.n_embd_inp)
        tokens = np.full(len(is_text), -1, np.int32)
        if is_text.any():
            tokens[is_text] = [token for text in texts for token in text]
            rows[is_text] = self._model.embed_tokens(tokens[is_text].tolist())
        pivots, distances = np.zeros(len(is_text), np.bool_), np.zeros(len(is_text), np.float32)
        pivots[~is_text], distances[~is_text] = block.pivots.ravel(), block.distances.ravel()
        return PrefillChunk(rows, ids, frame, is_text, pivots, distances, tokens)


def clock_tokens(
    model: Model, layout: Layout, index: int, first_s: float, middle_s: float
) -> list[int]:
    """Return the tokens between grid frame `index` and the one before it, [] if there are none.

    Raises:
        ModelError: the model has no single word for the time.
    """
    tokens = model.tokenize(layout.frame_text(index, float(first_s), float(middle_s)))
    if layout.kind == "mrope-clock" and len(tokens) != 1:
        raise ModelError(
            f"This model has no word for the time {int(first_s)} s; it knows the first "
            f"{layout.max_clock_s or 0:g} s of a video: choose a part with --start and --end."
        )
    return tokens


def _fill_backwards(frame: Ints) -> Ints:
    """Give clock text the frame that follows it."""
    filled = frame.copy()
    for i in range(len(filled) - 2, -1, -1):
        if filled[i] == positions.TEXT:
            filled[i] = filled[i + 1]
    return filled
