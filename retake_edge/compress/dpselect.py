"""DPSelect: keyframes are the local peaks of the distance between neighbouring frames.

A peak is decided by one frame before and one after, so pivots can be computed while the video
still streams (`PivotStream`). Every frame has a well-defined answer: one frame, one patch and
NaN features work, where the reference code stops.

Source: ReTaKe (arXiv 2412.20504), section 3.2; the reference's rules are spelled out below.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retake_edge.errors import ConfigError

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]
Bools = npt.NDArray[np.bool_]

_MIN_NORM = np.float32(1e-8)
_FIRST_DISTANCE = np.float32(1.0)
# Cosine distance is at most 2, so a raised peak outranks every frame that is none.
_PEAK_RAISE = np.float32(2.0)


@dataclass(frozen=True)
class Keyframes:
    """The results of DPSelect for T frames of N patches.

    `selected`: int32 [R, n_keep], frame indices in ascending order; R is 1, or N with `per_patch`.
    `mask`: bool [T, N], the pivots: (frame, patch) at a peak.
    `distances`: f32 [R, T], to the frame before; 1 for the first.
    """

    selected: Ints
    mask: Bools
    distances: Floats

    def selected_mask(self) -> Bools:
        """Return the pivot flags of the selected (frame, patch) only, bool [n_keep, N]."""
        n_patches = self.mask.shape[1]
        frames = np.broadcast_to(self.selected, (n_patches, self.selected.shape[1]))
        return self.mask[frames, np.arange(n_patches)[:, None]].T


def frame_distances(features: Floats, per_patch: bool) -> Floats:
    """Return how much each frame differs from the one before it.

    `features`: f32 [T, N, C]. The distance is 1 - cosine, its norms clamped at 1e-8 (an all-zero
    vector is at distance 1 from everything); the first frame has distance 1. Returns f32 [N, T]
    with `per_patch`, else the mean over patches, f32 [T].

    Raises:
        ConfigError: `features` is not three-dimensional, or one of its sides is 0.
    Source: ReTaKe section 3.2; video-ReTaKe, memory_bank_compress_keyframe.
    """
    return _reduce(_patch_distances(_checked(features), None), per_patch)


def local_peaks(distances: Floats) -> Bools:
    """Return which entries along the last axis are local maxima of a window of three.

    Of a plateau the first entry may be a peak. The ends are compared with their one neighbour.
    A NaN is above everything (of neighbouring NaNs the last is the peak), as in the reference.
    Shape and order are those of `distances`.
    """
    below = np.full((*distances.shape[:-1], 1), -np.inf, np.float32)
    return _inner_peaks(np.concatenate([below, distances, below], axis=-1))


def keyframes_from_distances(distances: Floats, n_patches: int, n_keep: int) -> Keyframes:
    """Select the `n_keep` frames of each row: peaks first, then by distance; ties to the lowest.

    `distances`: f32 [T] for all patches together, or [N, T]. `n_keep` above T keeps all.

    Raises:
        ConfigError: `n_keep` is negative.
    """
    if n_keep < 0:
        raise ConfigError(f"n_keep is {n_keep}, but the number of keyframes must be at least 0.")
    rows = np.atleast_2d(np.asarray(distances, np.float32))
    peaks = local_peaks(rows)
    rank = np.where(peaks, rows + _PEAK_RAISE, rows)
    rank[np.isnan(rank)] = np.inf
    order = np.argsort(-rank, axis=1, kind="stable")[:, :n_keep]
    mask = np.broadcast_to(peaks, (n_patches, rows.shape[1])).T
    return Keyframes(np.sort(order, axis=1).astype(np.int32), mask, rows)


def select_keyframes(features: Floats, n_keep: int | float, per_patch: bool) -> Keyframes:
    """Select keyframes of a whole video.

    `features`: f32 [T, N, C]. `n_keep`: a number of frames (int), or the share of frames to keep
    (float in (0, 1]), which becomes max(1, round(share * T)), halves to even.

    Raises:
        ConfigError: the features have a wrong shape, or `n_keep` is out of range.
    Source: ReTaKe section 3.2; video-ReTaKe, memory_bank_compress_keyframe.
    """
    distances = frame_distances(features, per_patch)
    n_frames, n_patches = features.shape[:2]
    if isinstance(n_keep, float):
        if not 0 < n_keep <= 1:
            raise ConfigError(f"The share of keyframes is {n_keep}, but it must be in (0, 1].")
        n_keep = max(1, round(n_keep * n_frames))
    return keyframes_from_distances(distances, n_patches, int(n_keep))


class PivotStream:
    """Pivots of a video that arrives in parts, equal to those of the whole.

    Each `push` returns what is decided by then: every frame but the newest, whose peak needs the
    frame after it. `finish` decides that last one. Memory does not grow with the video.
    """

    def __init__(self, per_patch: bool = True) -> None:
        self.per_patch = per_patch
        self._last_frame: Floats | None = None
        # The two newest distances per row, [R, 2]; -inf stands before the first frame.
        self._tail: Floats | None = None
        self._n_patches = 0

    @classmethod
    def resumed(cls, last_frame: Floats, distances: Floats, *, per_patch: bool) -> PivotStream:
        """Return a stream that has taken frames already, to go on after them.

        `last_frame`: f32 [N, C], the newest; `distances`: f32 [1 or 2, N], as `push` returned
        them for the newest frame and the one before it (if there is one).
        """
        stream = cls(per_patch)
        rows = distances.T if per_patch else distances[:, :1].T
        if rows.shape[1] == 1:
            rows = np.concatenate([np.full((len(rows), 1), -np.inf, np.float32), rows], axis=1)
        stream._last_frame, stream._tail = last_frame, np.ascontiguousarray(rows[:, -2:])
        stream._n_patches = len(last_frame)
        return stream

    def push(self, features: Floats) -> tuple[Floats, Bools]:
        """Add frames f32 [t, N, C]; return distances f32 [d, N] and pivots bool [d, N].

        d is t - 1 at the first call and t afterwards. With one series for all patches, its
        values are repeated for each patch.

        Raises:
            ConfigError: wrong shape, or another number of patches or channels than before.
        """
        features = _checked(features)
        last = self._last_frame
        if last is not None and features.shape[1:] != last.shape:
            raise ConfigError(
                f"These frames have {features.shape[1]} patches of {features.shape[2]} channels, "
                f"but the ones before {last.shape[0]} of {last.shape[1]}; all must be alike."
            )
        new = np.atleast_2d(_reduce(_patch_distances(features, last), self.per_patch))
        if self._tail is None:
            before = np.full((new.shape[0], 1), -np.inf, np.float32)
        else:
            before = self._tail
        known = np.concatenate([before, new], axis=1)
        self._last_frame, self._tail = features[-1].copy(), known[:, -2:].copy()
        self._n_patches = features.shape[1]
        return self._decided(known)

    def finish(self) -> tuple[Floats, Bools]:
        """Return distances f32 [1, N] and pivots bool [1, N] of the last frame ([0, N] if none)."""
        if self._tail is None:
            return np.zeros((0, 0), np.float32), np.zeros((0, 0), np.bool_)
        end = np.full((self._tail.shape[0], 1), -np.inf, np.float32)
        tail, self._tail, self._last_frame = self._tail, None, None
        return self._decided(np.concatenate([tail, end], axis=1))

    def _decided(self, known: Floats) -> tuple[Floats, Bools]:
        """Peaks of all but the outer two columns of [R, d + 2], as [d, N]."""
        shape = (self._n_patches, known.shape[1] - 2)
        distances = np.broadcast_to(known[:, 1:-1], shape).T
        return distances, np.broadcast_to(_inner_peaks(known), shape).T


def _checked(features: Floats) -> Floats:
    features = np.asarray(features, np.float32)
    if features.ndim != 3 or 0 in features.shape:
        raise ConfigError(
            f"Features have shape {list(features.shape)}, but must be [frames, patches, channels] "
            "with at least one of each."
        )
    return features


def _patch_distances(features: Floats, before: Floats | None) -> Floats:
    """[N, T] distances; the first frame's is to `before` [N, C], or 1."""
    norms = np.sqrt(np.einsum("tnc,tnc->tn", features, features))
    unit = features / np.maximum(norms, _MIN_NORM)[..., None]
    distances = np.empty(features.shape[:2], np.float32)
    distances[1:] = 1 - np.einsum("tnc,tnc->tn", unit[1:], unit[:-1])
    distances[0] = _FIRST_DISTANCE
    if before is not None:
        distances[0] = _patch_distances(np.stack([before, features[0]]), None)[:, 1]
    return distances.T


def _reduce(distances: Floats, per_patch: bool) -> Floats:
    return distances if per_patch else distances.mean(axis=0, dtype=np.float32)


def _inner_peaks(padded: Floats) -> Bools:
    """Peaks of all but the outer two entries of the last axis."""
    nan = np.isnan(padded)
    level = np.where(nan, np.inf, padded)
    here, before, after = level[..., 1:-1], level[..., :-2], level[..., 2:]
    peaks = (here > before) & (here >= after)
    return np.where(nan[..., 1:-1], ~nan[..., 2:], peaks)
