"""What counts as change: small things do, noise, flicker and coding artefacts do not."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from retake_edge.bench.scenes.footage import make_footage
from retake_edge.bench.scenes.overlays import Cursor, Flicker, Noise, Typing
from retake_edge.bench.scenes.render import render_frame
from retake_edge.config import SamplingConfig
from retake_edge.errors import ConfigError
from retake_edge.vision.still import THRESHOLD, StillFilter, differences, is_alike

SIZES = (112, 224, 448)


def picture(size: int, seed: int = 3) -> np.ndarray:
    return render_frame(make_footage("slides", seed, 60), 2.0, size)


def encoded(still: StillFilter, frames: list[np.ndarray]) -> list[bool]:
    """Which of some grid frames are encoded."""
    return [still.is_new(frame) for frame in frames]


def pair(frame: np.ndarray) -> np.ndarray:
    return np.stack([frame, frame])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("overlay", [Noise(1, 2.5), Flicker(1, 0.03)], ids=["noise", "flicker"])
def test_noise_and_flicker_are_no_change(size: int, overlay: Noise | Flicker) -> None:
    first, second = picture(size).copy(), picture(size).copy()
    overlay.draw(first, 1.0)
    overlay.draw(second, 2.0)
    assert not np.array_equal(first, second)
    assert is_alike(first, second, THRESHOLD)


@pytest.mark.parametrize("size", SIZES)
def test_coding_artefacts_are_no_change(size: int) -> None:
    frame = picture(size)
    for quality in (60, 85):
        _, data = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, quality])
        assert is_alike(cv2.imdecode(data, cv2.IMREAD_COLOR), frame, 2 * THRESHOLD)
    _, data = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 92])
    assert is_alike(cv2.imdecode(data, cv2.IMREAD_COLOR), frame, THRESHOLD)


@pytest.mark.parametrize("size", SIZES)
def test_a_cursor_that_moved_is_a_change_also_under_noise(size: int) -> None:
    for seed in range(6):
        first, second = (picture(448, seed).copy() for _ in range(2))
        Cursor(seed).draw(first, 1.0)
        Cursor(seed).draw(second, 13.0)
        Noise(seed, 2.5).draw(first, 1.0)
        Noise(seed, 2.5).draw(second, 13.0)
        small = [cv2.resize(f, (size, size), interpolation=cv2.INTER_AREA) for f in (first, second)]
        assert not is_alike(small[0], small[1], THRESHOLD)


@pytest.mark.parametrize("size", SIZES)
def test_one_typed_letter_is_a_change(size: int) -> None:
    for n in range(1, 10):
        first, second = (picture(448).copy() for _ in range(2))
        typing = Typing(4)
        typing.draw(first, n / 3 + 0.01)
        typing.draw(second, (n + 1) / 3 + 0.01)
        if typing._line(0)[n] == " ":
            continue
        small = [cv2.resize(f, (size, size), interpolation=cv2.INTER_AREA) for f in (first, second)]
        assert not is_alike(small[0], small[1], THRESHOLD), typing._line(0)[n]


def test_a_slow_drift_adds_up_until_it_is_a_change() -> None:
    frame = picture(112).astype(np.float64)
    drift = [pair(np.clip(frame + 0.5 * i, 0, 255).astype(np.uint8)) for i in range(200)]
    new = encoded(StillFilter(THRESHOLD), drift)
    assert new[0]
    steps = np.diff(np.flatnonzero(new))
    assert len(steps) >= 3
    assert (steps <= (2 * THRESHOLD + 1) / 0.5).all()


def test_frames_of_a_pair_are_compared_one_by_one() -> None:
    """A pair in which a slide changes is not what the next slide shows."""
    old, new = picture(112, 1), picture(112, 2)
    seen = [pair(old), np.stack([old, new]), pair(new), pair(new), np.stack([new, old])]
    assert encoded(StillFilter(THRESHOLD), seen) == [True, True, True, False, True]


def test_what_comes_back_is_compared_with_what_was_read_last() -> None:
    a, b = picture(112, 1), picture(112, 2)
    seen = [pair(frame) for frame in (a, b, a, a)]
    assert encoded(StillFilter(THRESHOLD), seen) == [True, True, True, False]


def test_off_means_that_every_frame_is_read() -> None:
    assert SamplingConfig().still == 0
    assert encoded(StillFilter(0), [pair(picture(112))] * 3) == [True] * 3


def test_differences_are_grey_levels_of_squares() -> None:
    black, one = np.zeros((40, 40, 3), np.uint8), np.zeros((40, 40, 3), np.uint8)
    one[20, 20, 1] = 250
    levels = differences(one, black)
    assert levels.shape == (40, 40, 3)
    assert levels.max() == pytest.approx(250 / 25, abs=0.1)
    assert levels[..., 0].max() == 0


@pytest.mark.parametrize("value", [-1.0, 300.0])
def test_a_threshold_that_no_picture_has_is_refused(value: float) -> None:
    with pytest.raises(ConfigError, match="--still"):
        SamplingConfig(still=value)
