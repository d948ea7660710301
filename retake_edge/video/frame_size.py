"""To which size a frame is brought before it goes into a vision tower.

A vision tower takes pixels in squares (a patch, or as many patches as become one token), so both
sides are multiples of one number. How large a frame may be is a matter of the model's processor,
and of how much this machine can hold: `long_side_px` caps it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from retake_edge.errors import ConfigError

SizeRule = Callable[[int, int, int], tuple[int, int]]
"""From a video's width and height in pixels, and its number of sampled frames, to (width, height)
of the frames."""

MAX_ASPECT = 200


@dataclass(frozen=True)
class PixelLimits:
    """The numbers of pixels that a model's processor lets a video have.

    A frame has `min_px` to `max_px`, but all of them together at most `total_px`; that share never
    falls below 1.05 `min_px`. `of_video`: `min_px` is what the frames have together.

    Source: transformers, Qwen2VLVideoProcessor and Qwen3VLVideoProcessor, `cap_pixels_per_frame`.
    """

    min_px: int
    max_px: int
    total_px: int
    of_video: bool = False

    def for_frames(self, n_frames: int) -> tuple[float, float]:
        """Return the least and the most pixels of one of `n_frames` frames."""
        most = max(min(self.max_px, self.total_px // n_frames), int(self.min_px * 1.05))
        return (self.min_px / n_frames if self.of_video else self.min_px), most


def smart_size(
    width: float, height: float, multiple: int, min_px: float, max_px: float
) -> tuple[int, int]:
    """Return (width, height) in whole multiples, within the limits, of about the same shape.

    Raises:
        ConfigError: one side is more than 200 times the other.
    Source: transformers, smart_resize of the Qwen processors.
    """
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ConfigError(
            f"A picture of {width:g}x{height:g} px is too long for this model: one side may be "
            f"{MAX_ASPECT} times the other; crop the video."
        )
    size = round(width / multiple) * multiple, round(height / multiple) * multiple
    if size[0] * size[1] > max_px:
        shrink = math.sqrt(width * height / max_px)
        return tuple(  # type: ignore[return-value]
            max(multiple, math.floor(side / shrink / multiple) * multiple)
            for side in (width, height)
        )
    if size[0] * size[1] < min_px:
        grow = math.sqrt(min_px / (width * height))
        return tuple(  # type: ignore[return-value]
            math.ceil(side * grow / multiple) * multiple for side in (width, height)
        )
    return size


def limited_rule(limits: PixelLimits, multiple: int, long_side_px: int) -> SizeRule:
    """Return the rule of a processor with pixel limits, with the longer side capped.

    The cap comes before the processor's least number of pixels.

    Raises:
        ConfigError: `long_side_px` is too short.
    """
    cap = _checked_cap(long_side_px, multiple)

    def rule(width_px: int, height_px: int, n_frames: int) -> tuple[int, int]:
        scale = min(1.0, cap / max(width_px, height_px))
        width, height = width_px * scale, height_px * scale
        if limits.of_video and min(width, height) < multiple:
            grow = multiple / min(width, height)
            width, height = int(width * grow), int(height * grow)
        min_px, max_px = limits.for_frames(n_frames)
        size = smart_size(width, height, multiple, min_px, max_px)
        if max(size) > cap:
            size = smart_size(width, height, multiple, multiple**2, max_px)
        return size

    return rule


def long_side_rule(long_side_px: int, multiple: int = 1) -> SizeRule:
    """Return a size rule: longer side at most `long_side_px`, both sides multiples of `multiple`.

    The aspect ratio is kept up to that rounding; pictures are never enlarged (but for rounding up
    to one multiple).

    Raises:
        ConfigError: `multiple` is below 1 or above `long_side_px`.
    """
    cap = _checked_cap(long_side_px, multiple) // multiple

    def rule(width_px: int, height_px: int, n_frames: int) -> tuple[int, int]:
        scale = min(1.0, long_side_px / max(width_px, height_px))

        def fit(side_px: int) -> int:
            return multiple * min(cap, max(1, round(side_px * scale / multiple)))

        return fit(width_px), fit(height_px)

    return rule


def _checked_cap(long_side_px: int, multiple: int) -> int:
    if not 1 <= multiple <= long_side_px:
        raise ConfigError(
            f"The long side of {long_side_px} px holds no multiple of {multiple} px; "
            "choose a longer side."
        )
    return long_side_px
