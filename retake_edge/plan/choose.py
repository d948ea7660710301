"""Whole frames in place of single cells: what a video is reduced to where its cells cannot be.

Of all frames those are used that differ most from one another: while the video streams by, one of
the two most alike goes whenever there is one too many. An eighth is spaced evenly instead, so
that no long stretch is missed whatever happens in it. Memory is that of the frames that are used.

Measured with the bundled model, this answers more than evenly spaced frames, than DPSelect's
largest changes, and than half of each (docs/models.md): what changes much may come back often.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from retake_edge.compress.coverage import evenly_spaced
from retake_edge.compress.dpselect import Bools, Floats, Ints, PivotStream
from retake_edge.config import DEFAULT_KV_BUDGET, CompressionConfig
from retake_edge.errors import MemoryBudgetError
from retake_edge.plan.frames import VideoShape
from retake_edge.vision.encoder import VisionFeatures

EVEN_SHARE = 0.125
"""Share of the frames that are spaced evenly."""

TIME_WEIGHT = 0.05
"""Weight of the whole length of the video beside a cosine distance: frames that look alike are
told apart by their time, so that of a still video evenly spaced ones stay."""

_MIN_NORM = np.float32(1e-8)


@dataclass(frozen=True)
class ChosenFrames:
    """Grid frames chosen from T of a video.

    `features` of the chosen; `index` int32 [n], ascending: which they are; `pivot_share` f32 [T]:
    the share of each frame's tokens that are local peaks of change.
    """

    features: VisionFeatures
    index: Ints
    pivot_share: Floats


def frames_that_fit(
    shape: VideoShape,
    compression: CompressionConfig,
    n_ctx: int | None,
    n_ctx_train: int | None = None,
) -> int:
    """Return how many grid frames can be used whole.

    As many as take together the cells that `keep_ratio`, `kv_budget` (default 32,000), `-c` and,
    where each cell takes a position of its own, the model's training allow.

    Raises:
        MemoryBudgetError: not even one fits.
    """
    n_frame = shape.vision_per_step + shape.text_per_step
    n_text = shape.n_before + shape.n_text_reserve
    budget = compression.kv_budget or DEFAULT_KV_BUDGET
    if compression.keep_ratio is not None:
        budget = max(n_frame, int(compression.keep_ratio * shape.n_video_cells))
    limits = [limit - n_text for limit in (n_ctx, n_ctx_train) if limit]
    n = min([budget, *limits]) // n_frame
    if n < 1:
        raise MemoryBudgetError(
            f"Not one frame fits: it takes {n_frame} tokens, the text around the video "
            f"{n_text}; raise -c or --kv-budget, or lower --long-side or -n."
        )
    return min(n, shape.n_steps)


def choose_frames(
    features: Iterable[VisionFeatures], n_planned: int, n_keep: int, n_embd: int
) -> ChosenFrames:
    """Choose `n_keep` of about `n_planned` grid frames that arrive in parts; there must be one.

    The first `n_embd` columns are compared. Where fewer frames come than were planned, the evenly
    spaced ones after the end are missing.
    """
    chooser = _Chooser(n_planned, n_keep, n_embd)
    for part in features:
        chooser.push(part)
    return chooser.finish()


def in_whole_video(cell_frames: Ints, index: Ints) -> Ints:
    """Return int32 frames of cells, -1 - frame for text, counted in the whole video again."""
    whole = np.where(
        cell_frames >= 0,
        index[np.maximum(cell_frames, 0)],
        -1 - index[np.maximum(-1 - cell_frames, 0)],
    )
    return whole.astype(np.int32)


class _Chooser:
    """The frames that stay so far, and how far each is from each other one."""

    def __init__(self, n_planned: int, n_keep: int, n_embd: int) -> None:
        n_keep = max(1, min(n_keep, n_planned))
        n_even = max(1, round(EVEN_SHARE * n_keep))
        self._even = set(evenly_spaced(n_planned, n_even).tolist())
        self._n_planned, self._n_keep, self._n_embd = n_planned, n_keep, n_embd
        self._frames: list[VisionFeatures] = []
        self._scales: list[Floats] = []  # 1 / norm of each of their tokens
        self._index: list[int] = []
        # [n, n] between the frames held; inf on the diagonal, so that none is its own pair.
        self._distances = np.zeros((0, 0), np.float32)
        self._stream, self._pivots = PivotStream(), list[Bools]()
        self._n_seen = 0

    def push(self, part: VisionFeatures) -> None:
        """Add grid frames."""
        self._pivots.append(self._stream.push(part.embeddings[..., : self._n_embd])[1])
        for i in range(len(part.times_s)):
            self._add(_copy(part[i : i + 1]))
            if len(self._frames) > self._n_keep:
                self._drop(self._most_alike())

    def finish(self) -> ChosenFrames:
        """Return the frames chosen of all that came."""
        self._pivots.append(self._stream.finish()[1])
        frames = self._frames
        features = VisionFeatures(
            np.concatenate([frame.embeddings for frame in frames]),
            np.concatenate([frame.times_s for frame in frames]),
            np.concatenate([frame.middle_s for frame in frames]),
            *(frames[0].rows, frames[0].cols, frames[0].step_s),
        )
        pivot_share = np.concatenate(self._pivots).mean(axis=1, dtype=np.float32)
        return ChosenFrames(features, np.array(self._index, np.int32), pivot_share)

    def _add(self, frame: VisionFeatures) -> None:
        rows = frame.embeddings[0, :, : self._n_embd]
        scale = 1 / np.maximum(np.linalg.norm(rows, axis=1), _MIN_NORM)
        unit, cosines = rows * scale[:, None], np.zeros(len(self._frames), np.float32)
        # One frame at a time: a product with all of them at once would copy every frame held.
        for i, other in enumerate(self._frames):
            products = np.einsum("nc,nc->n", other.embeddings[0, :, : self._n_embd], unit)
            cosines[i] = np.mean(products * self._scales[i])
        gaps = (self._n_seen - np.array(self._index, np.float32)) / self._n_planned
        distances = 1 - cosines + TIME_WEIGHT * gaps
        # A new last row and column. NaN features count as opposite (2): they are never most alike.
        self._distances = np.pad(self._distances, (0, 1), constant_values=np.inf)
        self._distances[-1, :-1] = self._distances[:-1, -1] = np.nan_to_num(distances, nan=2.0)
        self._frames.append(frame)
        self._scales.append(scale)
        self._index.append(self._n_seen)
        self._n_seen += 1

    def _most_alike(self) -> int:
        """One of the two frames that are most alike: the one nearer to a third, if it may go.

        The newest is spared until the next: it is like the one before it in most videos, and would
        take its place again and again, so that all that is slow were forgotten.
        """
        may_go = np.array([index not in self._even for index in self._index])
        if self._n_keep == 1:
            return 1 if may_go[1] else 0
        # Pairs of which at least one may go, without the newest frame, which is the last.
        pairs = np.where(may_go[:, None] | may_go[None], self._distances, np.inf)[:-1, :-1]
        first, second = np.unravel_index(pairs.argmin(), pairs.shape)
        if not (may_go[first] and may_go[second]):
            return int(first if may_go[first] else second)
        # The smallest distance of each is to the other one of the pair, the next one to a third.
        others = np.sort(self._distances[[first, second]], axis=1)[:, 1]
        return int(first if others[0] < others[1] else second)

    def _drop(self, i: int) -> None:
        del self._frames[i], self._scales[i], self._index[i]
        self._distances = np.delete(np.delete(self._distances, i, 0), i, 1)


def _copy(frame: VisionFeatures) -> VisionFeatures:
    """A frame of its own, so that the batch it came in can go."""
    return VisionFeatures(
        frame.embeddings.copy(),
        frame.times_s.copy(),
        frame.middle_s.copy(),
        *(frame.rows, frame.cols, frame.step_s),
    )
