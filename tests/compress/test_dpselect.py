"""DPSelect: distances, peaks, selection, and the stream that finds the same pivots."""

from __future__ import annotations

import numpy as np
import pytest

from retake_edge.compress.dpselect import (
    PivotStream,
    frame_distances,
    keyframes_from_distances,
    local_peaks,
    select_keyframes,
)
from retake_edge.errors import ConfigError


def walk(seed: int, n_frames: int, n_patches: int) -> np.ndarray:
    """Features that change slowly, with exact repeats: plateaus of distance 0."""
    rng = np.random.default_rng(seed)
    features = np.cumsum(rng.standard_normal((n_frames, n_patches, 6)), axis=0)
    for t in rng.choice(n_frames, n_frames // 3):
        features[t] = features[max(t - 1, 0)]
    return features.astype(np.float32)


def test_the_distance_of_a_turned_vector_is_one_minus_its_cosine() -> None:
    features = np.array([[[1, 0]], [[0, 2]], [[0, -3]], [[0, 0]]], np.float32)
    np.testing.assert_allclose(frame_distances(features, True), [[1, 1, 2, 1]], atol=1e-6)


def test_without_per_patch_the_distance_is_the_mean_over_patches() -> None:
    features = walk(0, 9, 5)
    each, mean = frame_distances(features, True), frame_distances(features, False)
    assert mean.shape == (9,) and each.shape == (5, 9)
    np.testing.assert_allclose(mean, each.mean(axis=0), atol=1e-7)


@pytest.mark.parametrize(
    ("distances", "peaks"),
    [
        ([1.0], [0]),
        ([1.0, 0.5], [0]),
        ([1.0, 1.5], [1]),
        ([1.0, 0.2, 0.6, 0.6, 0.1], [0, 2]),  # of a plateau the first
        ([1.0, 0.6, 0.6, 0.9], [0, 3]),  # but not on the way up
        ([0.5, 0.5, 0.5], [0]),
        ([1.0, 0.1, np.nan, np.nan, 0.3], [0, 3]),  # as the reference's max-pooling has it
    ],
)
def test_peaks_are_local_maxima_of_a_window_of_three(
    distances: list[float], peaks: list[int]
) -> None:
    assert np.flatnonzero(local_peaks(np.array(distances, np.float32))).tolist() == peaks


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("per_patch", [True, False])
def test_every_peak_is_selected_before_any_other_frame(seed: int, per_patch: bool) -> None:
    features = walk(seed, 4 + seed, 1 + seed % 5)
    for n_keep in range(1, len(features) + 1):
        keyframes = select_keyframes(features, n_keep, per_patch)
        peaks = local_peaks(keyframes.distances)
        for row, chosen in zip(peaks, keyframes.selected, strict=True):
            assert len(chosen) == n_keep and (np.diff(chosen) > 0).all()
            assert row[chosen].sum() == min(n_keep, row.sum())


def test_among_equals_the_lowest_frame_is_selected() -> None:
    distances = np.array([1, 0.5, 0.5, 0.5, 0.5], np.float32)
    assert keyframes_from_distances(distances, 1, 3).selected.tolist() == [[0, 1, 2]]


def test_a_share_of_frames_rounds_halves_to_even_and_keeps_at_least_one() -> None:
    features = walk(1, 5, 2)
    n_kept = {r: select_keyframes(features, r, False).selected.shape[1] for r in (0.01, 0.5, 1.0)}
    assert n_kept == {0.01: 1, 0.5: 2, 1.0: 5}


@pytest.mark.parametrize("per_patch", [True, False])
@pytest.mark.parametrize("shape", [(1, 1, 4), (1, 3, 4), (2, 1, 4), (8, 1, 4)])
def test_one_frame_and_one_patch_work_where_the_reference_stops(
    shape: tuple[int, int, int], per_patch: bool
) -> None:
    features = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    keyframes = select_keyframes(features, shape[0] + 1, per_patch)
    assert keyframes.selected.tolist() == [list(range(shape[0]))] * (shape[1] if per_patch else 1)
    assert keyframes.mask.shape == shape[:2]
    assert keyframes.mask.any()


@pytest.mark.parametrize("bad", [np.zeros((3, 4)), np.zeros((0, 4, 2)), np.zeros((3, 0, 2))])
def test_features_of_a_wrong_shape_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(ConfigError, match="shape"):
        frame_distances(bad.astype(np.float32), True)


def test_shares_and_counts_out_of_range_are_refused() -> None:
    for n_keep in (0.0, 1.5, -1):
        with pytest.raises(ConfigError):
            select_keyframes(walk(0, 4, 2), n_keep, True)


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("per_patch", [True, False])
def test_a_stream_finds_the_pivots_of_the_whole(seed: int, per_patch: bool) -> None:
    features = walk(seed, 1 + seed, 3)
    whole = select_keyframes(features, len(features), per_patch)
    rng, stream, at = np.random.default_rng(seed), PivotStream(per_patch), 0
    parts = []
    while at < len(features):
        n = int(rng.integers(1, 5))
        parts.append(stream.push(features[at : at + n]))
        at += n
        n_decided = sum(len(distances) for distances, _ in parts)
        assert n_decided == min(at, len(features)) - 1, "only the newest frame may wait"
    parts.append(stream.finish())
    distances, pivots = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
    np.testing.assert_array_equal(pivots, whole.mask)
    expected = np.broadcast_to(whole.distances, (3, len(features))).T
    np.testing.assert_array_equal(distances, expected)


@pytest.mark.parametrize("per_patch", [True, False])
@pytest.mark.parametrize("n_before", [1, 2, 7])
def test_a_stream_resumes_after_what_it_has_seen(per_patch: bool, n_before: int) -> None:
    features = walk(3, 12, 4)
    whole = select_keyframes(features, 12, per_patch)
    seen = np.broadcast_to(whole.distances, (4, 12)).T[:n_before]
    stream = PivotStream.resumed(features[n_before - 1], seen[-2:], per_patch=per_patch)
    pivots = np.concatenate([stream.push(features[n_before:])[1], stream.finish()[1]])
    np.testing.assert_array_equal(pivots, whole.mask[n_before - 1 :])


def test_an_empty_stream_has_no_pivots_and_a_changed_grid_is_refused() -> None:
    assert PivotStream().finish()[1].shape == (0, 0)
    stream = PivotStream()
    stream.push(walk(0, 2, 3))
    with pytest.raises(ConfigError, match="patches"):
        stream.push(walk(0, 2, 4))
