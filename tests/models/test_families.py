"""Real model families: every stage equals the family's own processor and model in transformers.

The goldens come from toys of the real architectures with random weights (`scripts/parity`); what
is compared with them passed through the code that `retake-edge ask` runs.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from families_support import FEATURE, FOLDER, Golden, Run, cases, files, golden, run

from retake_edge.models.families import manifest_of

PIXEL_LEVELS = 1
"""Of 255: decoders of other machines may round differently; here the difference is 0."""
FEATURE_TOLERANCE, MEAN_FEATURE_TOLERANCE = 1e-2, 1e-3
"""In standard deviations of the features. llama.cpp's first convolution and its GELU compute in
half precision, also with f32 weights: the same rounding in transformers makes these differences."""
LOGIT_TOLERANCE = 1e-4
"""Of logits up to 4, from the same features."""
LOGIT_TOLERANCE_IN_ALL = 5e-2
"""Of logits up to 4, from llama.cpp's own features."""


@pytest.fixture(scope="module", params=cases(), ids="-".join)
def both(request: pytest.FixtureRequest) -> tuple[Golden, Run]:
    return golden(*request.param), run(*request.param)


def assert_close(name: str, found: Any, expected: Any, worst: float, mean: float = np.inf) -> None:
    """Compare two arrays; a failure tells the greatest and the mean difference."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape, f"{name}: {found.shape} instead of {expected.shape}"
    off = np.abs(found - expected)
    message = f"{name}: differs by {off.max():.3g} at most, {off.mean():.3g} on average"
    print(message)
    assert off.max() <= worst and off.mean() <= mean, message


def test_the_prompt_has_the_tokens_of_the_processor(both):
    expected, seen = both
    ids = np.where(expected.stages["is_video"], FEATURE, expected.stages["input_ids"])
    assert seen.tokens == ids.tolist()


def test_every_token_has_the_position_of_the_model(both):
    expected, seen = both
    found = np.concatenate(seen.positions, axis=-1)
    assert_close("positions", found, expected.stages["positions"], 0)


def test_the_vision_tower_gets_the_pixels_of_the_processor(both):
    expected, seen = both
    stride = int(expected.stages["pixel_stride"])
    pixels = np.stack(seen.pixels)
    assert pixels.shape[:1:-1] == tuple(expected.stages["size"])
    pixels = pixels.transpose(0, 2, 3, 1)[:, ::stride, ::stride]
    levels = (pixels * expected.std + expected.mean) * 255
    wanted = expected.stages["pixels"]
    if len(levels) > len(wanted):  # the last frame once more, to fill its pair
        np.testing.assert_array_equal(levels[-1], levels[-2])
        levels = levels[: len(wanted)]
    assert_close("pixels, of 255", levels, wanted, PIXEL_LEVELS + 1e-3)


def test_the_projected_features_are_those_of_the_model(both):
    expected, seen = both
    wanted = expected.stages["features"]
    found = np.concatenate([part.embeddings for part in seen.features])
    unit = float(wanted.std())
    assert_close("features", found / unit, wanted / unit, FEATURE_TOLERANCE, MEAN_FEATURE_TOLERANCE)


def test_the_logits_after_the_question_are_those_of_the_model(both):
    expected, seen = both
    assert_close("logits", seen.logits, expected.stages["logits"], LOGIT_TOLERANCE_IN_ALL)
    alone = run(expected.family, expected.case, own_features=False)
    wanted = expected.stages["logits"]
    assert_close("logits from the same features", alone.logits, wanted, LOGIT_TOLERANCE)


def test_the_tokens_of_a_frame_are_known_without_loading_the_model(both):
    expected, _ = both
    frames = manifest_of(files(expected.family)).frames
    width, height = expected.stages["size"].tolist()
    n_steps, n_tokens = expected.stages["features"].shape[:2]
    assert frames.n_vision_tokens(width, height) == n_tokens
    assert -(-len(expected.stages["pixels"]) // frames.frames_per_step) == n_steps


@pytest.mark.parametrize("family", sorted({family for family, _ in cases()}))
def test_frames_get_the_size_that_the_processor_gives_them(family):
    sizes = json.loads((FOLDER / family / "cases.json").read_text()).get("sizes", [])
    frames = manifest_of(files(family)).frames
    for width, height, n_frames, *size in sizes:
        found = frames.frame_size(width, height, n_frames, long_side_px=1 << 20)
        assert list(found) == size, f"{width}x{height}, {n_frames} frames"
