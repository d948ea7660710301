"""From a frame to a picture: size, turn and filter in one step, as a slower way makes it."""

from __future__ import annotations

from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
import pytest

from retake_edge.video.frames import Shown
from retake_edge.video.picture import finished, rgb_of, turned
from retake_edge.video.resample import resample
from retake_edge.video.stream import UPRIGHT, Matrix

WIDTH, HEIGHT = 160, 96
LEFT, MIRRORED = (0, -1, 1, 0), (-1, 0, 0, 1)


def pattern(width: int = WIDTH, height: int = HEIGHT) -> npt.NDArray[np.uint8]:
    """A picture of smooth waves, the same from both sides and from above and below."""
    y, x = np.mgrid[:height, :width]
    x, y = np.abs(x - (width - 1) / 2), np.abs(y - (height - 1) / 2)
    waves = [np.cos(x / 7) + np.cos(y / 5), np.cos(x / 11), np.cos(y / 9 + 1)]
    return np.stack([128 + 50 * wave for wave in waves], axis=-1).astype(np.uint8)


def frame_of(picture: npt.NDArray[np.uint8], pixels: str = "yuv444p") -> Any:
    return av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pixels)


def marked_interlaced(frame: Any) -> Any:
    graph = av.filter.Graph()
    size = {"width": frame.width, "height": frame.height}
    source = graph.add_buffer(**size, format=frame.format, time_base=Fraction(1, 25))
    filters = graph.add("setfield", "mode=tff"), graph.add("buffersink")
    source.link_to(filters[0])
    filters[0].link_to(filters[1])
    graph.configure()
    graph.push(frame)
    return graph.pull()


def film(codec: str = "h264", pixel_aspect: float = 1.0, matrix: Matrix = UPRIGHT) -> Any:
    return SimpleNamespace(
        codec=codec, pixel_aspect=pixel_aspect, matrix=matrix, is_turned=matrix[0] == 0
    )


def plan(width: int, height: int, **other: Any) -> dict[str, Any]:
    usual = {"fit": "stretch", "resample": "area", "via_px": None}
    return {"width_px": width, "height_px": height, **usual, **other}


def difference(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> float:
    """The mean distance of two pictures in grey levels."""
    assert a.shape == b.shape
    return float(np.abs(a.astype(int) - b).mean())


@pytest.mark.parametrize("size", [(64, 40), (80, 48), (150, 90), (37, 23), (5, 3), (1, 1)])
@pytest.mark.parametrize("pixels", ["yuv444p", "yuv420p", "rgb24", "gray", "yuv420p10le"])
def test_a_smaller_picture_is_the_mean_over_areas(size: tuple[int, int], pixels: str) -> None:
    frame = frame_of(pattern(), pixels)
    slowly = cv2.resize(frame.to_ndarray(format="rgb24"), size, interpolation=cv2.INTER_AREA)
    assert difference(rgb_of(frame, size, UPRIGHT), slowly) < 2


@pytest.mark.parametrize("size", [(64, 40), (200, 120), (160, 192), (320, 48), (161, 95)])
@pytest.mark.parametrize("pixels", ["yuv444p", "yuv420p"])
def test_a_picture_stays_the_same_from_all_sides(size: tuple[int, int], pixels: str) -> None:
    """What is off by half a pixel, where a side grows or shrinks, is not."""
    made = rgb_of(frame_of(pattern(), pixels), size, UPRIGHT)
    assert difference(made, made[:, ::-1]) < 1.5
    assert difference(made, made[::-1]) < 1.5


@pytest.mark.parametrize("matrix", [UPRIGHT, LEFT, MIRRORED, (0, 1, 1, 0)])
def test_the_size_is_that_of_the_turned_picture(matrix: Matrix) -> None:
    picture = pattern()
    picture[:30, :50] = (250, 10, 10)
    slowly = cv2.resize(turned(picture, matrix), (40, 60), interpolation=cv2.INTER_AREA)
    assert difference(rgb_of(frame_of(picture), (40, 60), matrix), slowly) < 2


def test_a_filter_gets_all_pixels_as_they_are() -> None:
    picture = pattern()
    made = finished(Shown(film(), frame_of(picture, "rgb24")), plan(60, 40, resample="bicubic"))
    assert np.array_equal(made, resample(picture, 60, 40, "bicubic"))
    first = resample(picture, 100, 60, "bicubic")
    asked = plan(60, 60, resample="bicubic", via_px=100, fit="pad")
    made = finished(Shown(film(), frame_of(picture, "rgb24")), asked)
    assert np.array_equal(made[12:48], resample(first, 60, 36, "bicubic"))
    assert not made[:12].any() and not made[48:].any()


def test_wide_pixels_become_square_in_the_one_step() -> None:
    shown = Shown(film(pixel_aspect=2.0, matrix=LEFT), frame_of(pattern()))
    made = finished(shown, plan(80, 80, fit="pad"))
    # 160x96 of two to one is 320x96; on its side 96x320, and within 80x80 that is 24x80.
    assert made[:, 28:52].min() > 20
    assert not made[:, :28].any() and not made[:, 52:].any()


@pytest.mark.parametrize("codec", ["hevc", "h264"])
def test_a_picture_that_is_marked_as_interlaced_is_scaled_whole(codec: str) -> None:
    """Its fields are not scaled one by one, which would leave a comb on a slanting edge."""
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for row in range(HEIGHT):
        picture[row, : 30 + row] = 255
    frame = frame_of(picture)
    plain = finished(Shown(film(codec), frame), plan(200, 150))
    marked = marked_interlaced(frame)
    assert marked.interlaced_frame
    assert (
        difference(finished(Shown(film(codec), marked, marked, marked), plan(200, 150)), plain) < 1
    )
