"""Overlays of a scene: a cursor, typed text, a speaker, flicker, sensor noise.

An overlay draws itself into a frame at a time; the same seed and time draw the same pixels. Places
and lengths are in frame sides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np

_ARROW = np.array(
    [(0, 0), (0, 0.86), (0.2, 0.66), (0.36, 1.0), (0.5, 0.93), (0.34, 0.6), (0.6, 0.6)]
)
_SHIFT = 4
_LETTERS = "abcdefghijklmnopqrstuvwxyz     "
_FONT = cv2.FONT_HERSHEY_SIMPLEX


class Overlay(Protocol):
    """Something drawn over every frame, in place into uint8 [size, size, 3] RGB."""

    def draw(self, image: np.ndarray, time_s: float) -> None:
        """Draw what is seen at a time."""


@dataclass(frozen=True)
class Cursor:
    """An arrow that rests, and now and then goes to another place within a second."""

    seed: int
    size: float = 0.06
    rest_s: float = 12.0  # seconds from one move to the next

    def draw(self, image: np.ndarray, time_s: float) -> None:
        """Draw the arrow where it has got to."""
        step, phase_s = divmod(time_s, self.rest_s)
        x, y = self._place(int(step)) + (self._place(int(step) + 1) - self._place(int(step))) * max(
            0.0, phase_s - (self.rest_s - 1)
        )
        side = image.shape[0]
        corners = (_ARROW * self.size + (x, y)) * side * (1 << _SHIFT)
        points = [np.round(corners).astype(np.int32)]
        cv2.fillPoly(image, points, (255, 255, 255), cv2.LINE_AA, _SHIFT)
        cv2.polylines(image, points, True, (0, 0, 0), 1, cv2.LINE_AA, _SHIFT)

    def _place(self, step: int) -> np.ndarray:
        return np.random.default_rng((self.seed, step)).uniform(0.05, 0.9, 2)


@dataclass(frozen=True)
class Typing:
    """Lines of small letters at the lower edge: typed for a while, left alone for longer."""

    seed: int
    letters_a_second: float = 3.0
    typed_s: float = 5.0
    rest_s: float = 25.0
    height: float = 0.045
    n_columns: int = 34

    def draw(self, image: np.ndarray, time_s: float) -> None:
        """Draw what was typed until now; a full line begins a new one over the old."""
        size = image.shape[0]
        rounds, phase_s = divmod(time_s, self.typed_s + self.rest_s)
        typed_s = rounds * self.typed_s + min(phase_s, self.typed_s)
        n = int(typed_s * self.letters_a_second)
        line, column = divmod(n, self.n_columns)
        top = round(size * (1 - 2 * self.height))
        image[top:] = (236, 236, 232)
        scale = self.height * size / 30
        text = self._line(line)[:column]
        cv2.putText(
            image, text, (size // 50, size - size // 40), _FONT, scale, (25, 25, 25), 1, cv2.LINE_AA
        )

    def _line(self, line: int) -> str:
        letters = np.random.default_rng((self.seed, line)).integers(
            0, len(_LETTERS), self.n_columns
        )
        return "".join(_LETTERS[i] for i in letters)


@dataclass(frozen=True)
class Speaker:
    """A small figure in the lower right corner that never stands still."""

    seed: int
    size: float = 0.22

    def draw(self, image: np.ndarray, time_s: float) -> None:
        """Draw head and shoulders, swaying."""
        side = image.shape[0]
        phase = np.random.default_rng(self.seed).uniform(0, 6, 2)
        sway = 0.25 * self.size * np.sin(1.7 * time_s + phase[0])
        nod = 0.08 * self.size * np.sin(2.9 * time_s + phase[1])
        x, y = 1 - 0.6 * self.size + sway, 1 - 0.7 * self.size + nod
        _disc(image, x, 1.02, 0.4 * self.size, (60, 60, 95), side)
        _disc(image, x, y, 0.2 * self.size, (205, 160, 130), side)


@dataclass(frozen=True)
class Flicker:
    """A lamp: all of the picture brighter or darker by up to `share`, anew in every frame."""

    seed: int
    share: float = 0.03

    def draw(self, image: np.ndarray, time_s: float) -> None:
        """Scale the brightness."""
        rng = np.random.default_rng((self.seed, round(time_s * 1000)))
        image[...] = cv2.convertScaleAbs(image, alpha=1 + self.share * float(rng.uniform(-1, 1)))


@dataclass(frozen=True)
class Noise:
    """A sensor's noise: normal, `sigma` grey levels, anew in every frame and colour."""

    seed: int
    sigma: float = 3.0

    def draw(self, image: np.ndarray, time_s: float) -> None:
        """Add it."""
        rng = np.random.default_rng((self.seed, round(time_s * 1000)))
        noise = rng.standard_normal(image.shape, dtype=np.float32) * np.float32(self.sigma)
        image[...] = cv2.add(image, noise, dtype=cv2.CV_8U)


def _disc(
    image: np.ndarray, x: float, y: float, radius: float, colour: tuple[int, int, int], side: int
) -> None:
    centre = round(x * side * (1 << _SHIFT)), round(y * side * (1 << _SHIFT))
    cv2.circle(image, centre, round(radius * side * (1 << _SHIFT)), colour, -1, cv2.LINE_AA, _SHIFT)
