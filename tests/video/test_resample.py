"""Resizing equals torchvision's, byte for byte (goldens: scripts/parity/resample.py)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from retake_edge.video.resample import FILTERS, long_side_size, resample

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "resample.npz")
CASES = [name for name in GOLDEN.files if not name.startswith("picture")]


@pytest.mark.parametrize("case", CASES)
def test_a_resized_picture_equals_torchvisions(case):
    kernel, picture, size = case.split("_")
    width, height = map(int, size.split("x"))
    found = resample(GOLDEN[f"picture{picture}"], width, height, kernel)
    off = np.abs(found.astype(int) - GOLDEN[case])
    assert off.max() == 0, f"{off.max()} levels at most, {off.mean():.3g} on average"


def test_all_filters_have_goldens():
    assert {case.partition("_")[0] for case in CASES} == set(FILTERS)


def test_large_pictures_are_resized_in_bands_without_a_seam():
    slope = np.repeat(np.linspace(0, 255, 1000).astype(np.uint8)[:, None, None], 3, axis=2)
    found = resample(np.repeat(slope, 4, axis=1), 4, 100, "bicubic")[:, 0, 0].astype(int)
    assert (np.diff(found) >= 0).all()
    assert np.abs(found - np.linspace(1, 254, 100)).max() <= 1.5


@pytest.mark.parametrize(
    ("size", "long_side", "expected"),
    [
        ((1920, 1080), 512, (512, 288)),
        ((1080, 1920), 512, (288, 512)),
        ((854, 480), 384, (384, 216)),  # 215 is odd
        ((640, 640), 512, (512, 512)),
        ((4000, 2), 512, (512, 1)),
    ],
)
def test_the_longer_side_is_exact_and_the_other_one_even(size, long_side, expected):
    width_px, height_px = size
    assert long_side_size(width_px, height_px, long_side) == expected
