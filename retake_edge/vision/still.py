"""Which grid frames show what the last encoded one showed: they need not be encoded again.

Pictures are compared as the tower gets them. Noise, coding artefacts and flicker change every pixel
a little, a cursor or a letter changes a few by much. So differences are averaged over squares of
`BOX_PX` pixels, which takes noise down and leaves a letter, and the largest of them decides: a mean
over the picture would miss what is small. What is compared with is always the last encoded frame,
so that a slow drift adds up until it counts.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Pictures = npt.NDArray[np.uint8]

THRESHOLD = 12.0
"""Grey levels above noise, coding artefacts and flicker, below a letter (docs/still.md)."""

BOX_PX = 5
"""Side of the squares over which differences are averaged."""

UNREST = 6.0
"""How much the limit rises with the median difference: about four deviations of even noise."""

MOST_UNREST = 2.0
"""Times the threshold: the limit rises no higher."""

_SCALE = 16  # differences are whole numbers: of a sixteenth of a grey level


class StillFilter:
    """Says of a video's grid frames, one after another, whether they show something new.

    The first one does. `threshold`: grey levels by which a square must differ, more (up to twice as
    many) where all of the picture is restless; 0: every frame is new.
    """

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._pictures: Pictures | None = None

    def is_new(self, frames: Pictures) -> bool:
        """Whether a grid frame uint8 [n, H, W, 3] shows what the last new one did not.

        The frames of a grid frame that moves are compared one by one: it is shown again only by one
        that moves alike.
        """
        if not self._threshold:
            return True
        if self._pictures is not None and self._pictures.shape == frames.shape:
            pairs = zip(frames, self._pictures, strict=True)
            if all(is_alike(frame, other, self._threshold) for frame, other in pairs):
                return False
        self._pictures = frames.copy()
        return True


def is_alike(frame: Pictures, other: Pictures, threshold: float) -> bool:
    """Return whether no square of two pictures uint8 [H, W, 3] differs by more than the limit."""
    levels = _differences(frame, other)
    low, high, _, _ = cv2.minMaxLoc(levels.reshape(len(levels), -1))
    most = max(-low, high) / _SCALE
    if threshold < most <= MOST_UNREST * threshold:
        unrest = float(np.median(np.abs(levels[::2, ::2]))) / _SCALE
        threshold = min(threshold + UNREST * unrest, MOST_UNREST * threshold)
    return bool(most <= threshold)


def differences(frame: Pictures, other: Pictures) -> npt.NDArray[np.float32]:
    """Return by how much each square of two pictures differs, f32 [H, W, 3] grey levels."""
    return np.asarray(np.abs(_differences(frame, other)) / np.float32(_SCALE), np.float32)


def _differences(frame: Pictures, other: Pictures) -> npt.NDArray[np.int16]:
    """The same, signed, in parts of a grey level."""
    signed: Any = cv2.subtract(frame, other, dtype=cv2.CV_16S)
    return np.asarray(cv2.blur(signed * _SCALE, (BOX_PX, BOX_PX)), np.int16)
