"""DPSelect as a filter: only keyframes are prefilled, chosen over the whole video.

Which frames are among the largest changes is known at the end alone. Until then the features wait
in a temporary file, so that memory does not grow with the video.

Source: ReTaKe section 3.2, with all patches of a frame together (whole frames stay); unlike the
reference code's, kept frames keep the times at which they are shown.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import IO

import numpy as np

from retake_edge.compress.dpselect import (
    Bools,
    Floats,
    Ints,
    PivotStream,
    keyframes_from_distances,
)
from retake_edge.errors import ConfigError
from retake_edge.vision.encoder import Doubles, VisionFeatures

_PART_FRAMES = 16
_F32 = 4


@dataclass(frozen=True)
class Keyframes:
    """The grid frames that DPSelect keeps of T.

    `parts`: their features, in order of time; to be taken once. `index` int32 [n], ascending: which
    they are; `pivot_share` f32 [T]: the share of each frame's tokens that are local peaks of
    change; `times_s` f64 [n]: of the kept ones.
    """

    parts: Iterator[VisionFeatures]
    index: Ints
    pivot_share: Floats
    times_s: Doubles


def n_keyframes(n_frames: int, ratio: float) -> int:
    """Return how many of `n_frames` grid frames stay: the share, halves to even, at least one."""
    return max(1, round(ratio * n_frames))


def keyframes(features: Iterator[VisionFeatures], ratio: float, n_embd: int) -> Keyframes:
    """Read all grid frames, and keep the share `ratio` of them by DPSelect; there must be one.

    The first `n_embd` columns are compared. What comes back from the file is what went in.

    Raises:
        ConfigError: the temporary file cannot be written.
    """
    series, patches = PivotStream(per_patch=False), PivotStream()
    distances, pivots = list[Floats](), list[Bools]()
    times_s, middle_s = list[Doubles](), list[Doubles]()
    with ExitStack() as resources:
        with _told_if_full():
            file = resources.enter_context(tempfile.TemporaryFile())
        for part in features:
            seen = part.embeddings[..., :n_embd]
            distances.append(series.push(seen)[0])
            pivots.append(patches.push(seen)[1])
            times_s.append(part.times_s)
            middle_s.append(part.middle_s)
            with _told_if_full():
                file.write(np.ascontiguousarray(part.embeddings, np.float32).data)
                file.flush()
        distances.append(series.finish()[0])
        pivots.append(patches.finish()[1])
        changes = np.concatenate(distances)[:, 0]
        n_keep = n_keyframes(len(changes), ratio)
        n_patches = part.embeddings.shape[1]
        index = keyframes_from_distances(changes, n_patches, n_keep).selected[0]
        kept = np.concatenate(times_s)[index], np.concatenate(middle_s)[index]
        parts = _read_back(file, index, kept, part, resources.pop_all())
        pivot_share = np.concatenate(pivots).mean(axis=1, dtype=np.float32)
        return Keyframes(parts, index, pivot_share, kept[0])


@contextmanager
def _told_if_full() -> Iterator[None]:
    """Raise an error of ours where the temporary file cannot be written."""
    try:
        yield
    except OSError as error:
        folder = tempfile.tempdir or "the temporary folder"
        raise ConfigError(
            f"The frames among which --dpselect-ratio chooses wait in {folder}, which cannot be "
            f"written ({error.strerror}); let TMPDIR name a folder with more room."
        ) from None


def _read_back(
    file: IO[bytes],
    index: Ints,
    times: tuple[Doubles, Doubles],
    like: VisionFeatures,
    resources: ExitStack,
) -> Iterator[VisionFeatures]:
    """Yield the frames of the file with those numbers; it is closed at the end."""
    shape = like.embeddings.shape[1:]
    n_bytes = _F32 * math.prod(shape)
    with resources:
        for start in range(0, len(index), _PART_FRAMES):
            some = slice(start, start + _PART_FRAMES)
            rows = np.empty((len(index[some]), *shape), np.float32)
            for row, frame in zip(rows, index[some].tolist(), strict=True):
                file.seek(frame * n_bytes)
                row[:] = np.frombuffer(file.read(n_bytes), np.float32).reshape(shape)
            yield VisionFeatures(
                rows, times[0][some], times[1][some], like.rows, like.cols, like.step_s
            )
