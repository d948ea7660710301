"""From a decoded frame to the picture that a person sees: whole lines, upright, square pixels.

Of what is not 8 bit RGB, swscale makes it, with the frame's own matrix and range. HLG and PQ get a
plain tone curve: reference white becomes white, colours go from BT.2020 to BT.709.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from retake_edge.video.frames import Shown
from retake_edge.video.stream import Film, Matrix

if TYPE_CHECKING:  # the worker is to start fast
    import numpy as np
    import numpy.typing as npt

    Pixels = npt.NDArray[np.uint8]

PQ, HLG = 16, 18
REFERENCE_WHITE_NITS = 203.0
MAX_PIXEL_ASPECT = 8.0


GLANCE = "glance"
"""In place of a filter: a very small picture, made in one step."""


def finished(shown: Shown, plan: dict[str, Any]) -> Pixels:
    """Return a picture as it is wanted: upright, square pixels, the size asked for."""
    import cv2

    pixels = rgb_of(shown)
    square = square_size(pixels.shape[1], pixels.shape[0], shown.film)
    if square != (pixels.shape[1], pixels.shape[0]):
        pixels = cv2.resize(pixels, square, interpolation=cv2.INTER_LINEAR)
    pixels = resize(
        pixels,
        plan["width_px"],
        plan["height_px"],
        plan["fit"],
        plan["resample"],
        plan["via_px"],
    )
    if is_high_range(shown.frame):
        pixels = tone_mapped(pixels, int(shown.frame.color_trc))
    return pixels


def glanced(shown: Shown, plan: dict[str, Any]) -> Pixels:
    """Return a very small picture, quickly: not turned, and with no regard for fine print."""
    size = plan["width_px"], plan["height_px"]
    small = _reformatter().reformat(shown.frame, *size, format="rgb24", interpolation="AREA")
    pixels: Pixels = small.to_ndarray()
    return pixels


@lru_cache(maxsize=1)
def _reformatter() -> Any:
    """One for all frames: making its tables takes longer than using them."""
    from av.video.reformatter import VideoReformatter

    return VideoReformatter()


def resize(
    rgb: Pixels, width: int, height: int, fit: str, resample: str, via_px: int | None = None
) -> Pixels:
    """Scale an RGB picture to (height, width, 3); `pad` keeps its shape and centres it.

    `via_px`: with a filter, the longer side of a first step that keeps its shape.
    """
    import cv2
    import numpy as np

    from retake_edge.video.resample import long_side_size
    from retake_edge.video.resample import resample as filtered

    if via_px is not None and resample != "area":
        rgb = filtered(rgb, *long_side_size(rgb.shape[1], rgb.shape[0], via_px), resample)
    scale = min(width / rgb.shape[1], height / rgb.shape[0])
    inner_w, inner_h = width, height
    if fit == "pad":
        inner_w = min(width, max(1, round(rgb.shape[1] * scale)))
        inner_h = min(height, max(1, round(rgb.shape[0] * scale)))
    if resample != "area":
        rgb = filtered(rgb, inner_w, inner_h, resample)
    elif (inner_w, inner_h) != (rgb.shape[1], rgb.shape[0]):
        # Area averaging has no aliasing, but turns into pixel repetition when enlarging.
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        rgb = cv2.resize(rgb, (inner_w, inner_h), interpolation=method)
    if (inner_w, inner_h) == (width, height):
        return rgb
    canvas = np.zeros((height, width, 3), np.uint8)
    top, left = (height - inner_h) // 2, (width - inner_w) // 2
    canvas[top : top + inner_h, left : left + inner_w] = rgb
    return canvas


def rgb_of(shown: Shown) -> Pixels:
    """Return the picture as uint8 (H, W, 3) RGB: deinterlaced and turned, pixels as stored."""
    frame = deinterlaced(shown) if shown.has_two_fields else shown.frame
    return turned(frame.to_ndarray(format="rgb24"), shown.film.matrix)


def deinterlaced(shown: Shown) -> Any:
    """Return the frame with both fields' lines of one moment, with help of its neighbours."""
    import av

    frame = shown.frame
    kin = [f for f in (shown.before, frame, shown.after) if f is not None and alike(f, frame)]
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 1000)
    )
    filters = graph.add("bwdif", "mode=send_frame:deint=all"), graph.add("buffersink")
    for one, other in zip((source, *filters), filters, strict=False):
        one.link_to(other)
    graph.configure()
    wanted = 0
    for number, one in enumerate(kin):
        one.pts, one.time_base = number, Fraction(1, 1000)
        graph.push(one)
        wanted = number if one is frame else wanted
    graph.push(None)
    for _ in range(wanted + 1):
        try:
            made = graph.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return frame
    return made


def alike(a: Any, b: Any) -> bool:
    """Return whether two frames have one size and format."""
    return (a.width, a.height, a.format.name) == (b.width, b.height, b.format.name)


def turned(pixels: Pixels, matrix: Matrix) -> Pixels:
    """Turn and mirror a picture as its matrix says."""
    import numpy as np

    a, b, c, d = matrix
    if a == 0:
        pixels = pixels.swapaxes(0, 1)
    if (a or c) < 0:
        pixels = pixels[:, ::-1]
    if (d or b) < 0:
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def rotation_deg(matrix: Matrix) -> int:
    """Return the clockwise turn in a matrix; a mirror beside it is not counted."""
    a, b, _, d = matrix
    if a == 0:
        return 90 if b > 0 else 270
    return 180 if a < 0 and d < 0 else 0


def square_size(width: int, height: int, film: Film) -> tuple[int, int]:
    """Return the (width, height) at which pixels are square: the short way is stretched.

    `width`, `height`: after the film's turn.
    """
    aspect = film.pixel_aspect
    if not 1 / MAX_PIXEL_ASPECT <= aspect <= MAX_PIXEL_ASPECT:
        return width, height
    aspect = 1 / aspect if film.is_turned else aspect
    return (round(width * aspect), height) if aspect > 1 else (width, round(height / aspect))


def is_high_range(frame: Any) -> bool:
    """Return whether a frame is in PQ or HLG."""
    return int(frame.color_trc) in (PQ, HLG)


def tone_mapped(pixels: Pixels, transfer: int) -> Pixels:
    """Bring a BT.2020 picture in PQ or HLG, uint8 (H, W, 3), to BT.709.

    Source: ITU-R BT.2100 (both curves), BT.2087 (the matrix, inverted).
    """
    import numpy as np

    signal = pixels.astype(np.float32) / np.float32(255)
    light = pq_light(signal) if transfer == PQ else hlg_light(signal)
    matrix = np.array(
        [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]],
        np.float32,
    )
    light = np.clip(light @ matrix.T, 0, None)
    # Up to 0.8 of white as it is, what is brighter bends towards 1.
    bright = np.maximum(light - 0.8, 0)
    light = np.where(light > 0.8, 0.8 + 0.2 * bright / (bright + 0.2), light)
    return np.asarray(np.clip(light, 0, 1) ** (1 / 2.2) * 255 + 0.5, np.uint8)


def pq_light(signal: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return light, 1 at reference white."""
    import numpy as np

    m1, m2, c1, c2, c3 = 0.1593017578, 78.84375, 0.8359375, 18.8515625, 18.6875
    power = signal ** (1 / m2)
    nits = 10_000 * (np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1)
    return np.asarray(nits / REFERENCE_WHITE_NITS, np.float32)


def hlg_light(signal: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return light, 1 at reference white (75 % of the signal)."""
    import numpy as np

    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    luma = scene @ np.array([0.2627, 0.6780, 0.0593], np.float32)
    nits = 1000 * scene * np.maximum(luma, 1e-6)[..., None] ** 0.2
    return np.asarray(nits / REFERENCE_WHITE_NITS, np.float32)
