"""From a decoded frame to the picture that a person sees: whole lines, upright, square pixels.

Of what is not 8 bit RGB, swscale makes it, with the frame's own matrix and range. HLG and PQ get a
plain tone curve: reference white becomes white, colours go from BT.2020 to BT.709.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache, partial
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

_FULL_CHROMA = 0x2000
"""libswscale's SWS_FULL_CHR_H_INT, which PyAV names from its version 18 on."""

MIN_FIELDS_SHARE = 1 / 8
"""A picture that is shown with less than this share of its lines is not deinterlaced."""


def finished(shown: Shown, plan: dict[str, Any]) -> Pixels:
    """Return a picture as it is wanted: upright, square pixels, the size and the filter asked for.

    `pad` keeps its shape, between black bars. `via_px`: with a filter, the longer side of a first
    step that keeps its shape.
    """
    from retake_edge.video.resample import long_side_size, resample

    film, kernel = shown.film, plan["resample"]
    wanted: tuple[int, int] = plan["width_px"], plan["height_px"]
    frame = progressive(shown, max(wanted))
    square = shape = shown_size(frame, film)
    if kernel != "area" and plan["via_px"] is not None:
        shape = long_side_size(*square, plan["via_px"])
    inner = inside(shape, wanted) if plan["fit"] == "pad" else wanted
    if kernel == "area":
        pixels = rgb_of(frame, inner, film.matrix)
    else:
        pixels = rgb_of(frame, square, film.matrix)
        pixels = resample(resample(pixels, *shape, kernel), *inner, kernel)
    pixels = padded(pixels, *wanted)
    return tone_mapped(pixels, int(frame.color_trc)) if is_high_range(frame) else pixels


def rgb_of(frame: Any, size: tuple[int, int], matrix: Matrix) -> Pixels:
    """Return a frame as uint8 (H, W, 3) RGB, turned, with that (width, height).

    A side that shrinks is averaged, for one that grows neighbours are mixed.
    """
    from av.video.reformatter import Interpolation

    width, height = size[::-1] if matrix[0] == 0 else size
    how = int(Interpolation.BILINEAR)
    if (width, height) != (frame.width, frame.height):
        how = int(Interpolation.AREA) | _FULL_CHROMA
    scaled = _reformat_to(width, height)(frame, interpolation=how)
    return turned(scaled.to_ndarray(), matrix)


@lru_cache(maxsize=2)
def _reformat_to(width: int, height: int) -> Callable[..., Any]:
    """One reformatter for all frames of a size: making its tables takes longer than using them."""
    from av.video.reformatter import VideoReformatter

    return partial(
        VideoReformatter().reformat, width=width, height=height, format="rgb24", threads=1
    )


def inside(size: tuple[int, int], room: tuple[int, int]) -> tuple[int, int]:
    """Return the largest (width, height) of the shape of `size` within `room`."""
    scale = min(room[0] / size[0], room[1] / size[1])
    return min(room[0], max(1, round(size[0] * scale))), min(
        room[1], max(1, round(size[1] * scale))
    )


def padded(pixels: Pixels, width: int, height: int) -> Pixels:
    """Return a picture in the middle of (height, width, 3), black around it."""
    import numpy as np

    inner_h, inner_w, _ = pixels.shape
    if (inner_w, inner_h) == (width, height):
        return pixels
    canvas = np.zeros((height, width, 3), np.uint8)
    top, left = (height - inner_h) // 2, (width - inner_w) // 2
    canvas[top : top + inner_h, left : left + inner_w] = pixels
    return canvas


def progressive(shown: Shown, n_lines: int) -> Any:
    """Return the frame as one whole picture, of which `n_lines` will be shown.

    Lines of two moments become lines of one, with help of the neighbours. Also a whole picture may
    be marked as interlaced: swscale would scale its halves one by one.
    """
    import av

    frame, kin, name, how = shown.frame, [shown.frame], "setfield", "mode=prog"
    if not frame.interlaced_frame:
        return frame
    if shown.has_two_fields and n_lines >= MIN_FIELDS_SHARE * frame.height:
        name, how = "bwdif", "mode=send_frame:deint=all"
        near = shown.before, frame, shown.after
        kin = [f for f in near if f is not None and alike(f, frame)]
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 1000)
    )
    filters = graph.add(name, how), graph.add("buffersink")
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


def shown_size(frame: Any, film: Film) -> tuple[int, int]:
    """Return the (width, height) at which a frame is upright and its pixels are square.

    The short way is stretched.
    """
    width, height, aspect = frame.width, frame.height, film.pixel_aspect
    if film.is_turned:
        width, height, aspect = height, width, 1 / aspect
    if not 1 / MAX_PIXEL_ASPECT <= aspect <= MAX_PIXEL_ASPECT:
        return width, height
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
