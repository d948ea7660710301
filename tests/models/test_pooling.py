"""Pooling of a frame's features: what torch makes of it, mode by mode."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from retake_edge.errors import ModelError
from retake_edge.models.pooling import Pooling

GOLDEN = dict(np.load(Path(__file__).parents[1] / "golden" / "pooling.npz"))
CASES = [name for name in GOLDEN if "_" in name]


@pytest.mark.parametrize("case", CASES)
def test_features_are_pooled_as_torch_pools_them(case):
    grid, mode, stride = case.split("_")
    features, expected = GOLDEN[grid], GOLDEN[case]
    pooling = Pooling(mode, int(stride))
    rows, cols, n = features.shape
    found = pooling.pooled(features.reshape(-1, n), rows, cols)
    assert (pooling.side(rows), pooling.side(cols)) == expected.shape[:2]
    off = np.abs(found.reshape(expected.shape) - expected)
    assert off.max() <= 5e-6, f"{off.max():.3g} at most, {off.mean():.3g} on average"


def test_a_published_frame_of_27_x_27_becomes_14_x_14_or_13_x_13():
    assert [Pooling(mode).side(27) for mode in ("bilinear", "average", "max")] == [14, 13, 13]


def test_a_pooling_that_is_not_known_is_refused():
    with pytest.raises(ModelError, match="'median', but must be one of bilinear, average, max"):
        Pooling("median")
    with pytest.raises(ModelError, match="at least 1"):
        Pooling("max", 0)
