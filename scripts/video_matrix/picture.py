"""Frames that carry their own number and show which way up they are, and how to read them.

A frame has four coloured corners (strips at the top and bottom) and, between them, eight blocks
that are black or white: its number in Gray code, so that a mix of two neighbours reads as one of
the two. Blocks and strips are large: they survive every codec at any quality.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]

# Top left, top right, bottom left, bottom right; their luma differs, too, for gray videos.
CORNERS: dict[str, tuple[int, int, int]] = {
    "red": (200, 30, 30),
    "blue": (30, 30, 200),
    "green": (30, 160, 30),
    "yellow": (210, 200, 40),
}
UPRIGHT = (("red", "blue"), ("green", "yellow"))
LUMA = np.array([0.299, 0.587, 0.114])
COLUMNS, ROWS = 4, 2
STRIP = 1 / 6  # of the height, at the top and at the bottom


def draw(number: int, width: int, height: int) -> Picture:
    """Draw frame `number` (0 to 255) as uint8 (height, width, 3) RGB."""
    picture = np.zeros((height, width, 3), np.uint8)
    strip = round(height * STRIP)
    for rows, names in zip((slice(0, strip), slice(height - strip, height)), UPRIGHT, strict=True):
        picture[rows, : width // 2] = CORNERS[names[0]]
        picture[rows, width // 2 :] = CORNERS[names[1]]
    code = number ^ (number >> 1)
    for bit in range(COLUMNS * ROWS):
        if code >> bit & 1:
            rows, columns = block(bit, width, height)
            picture[rows, columns] = 255
    return picture


def block(bit: int, width: int, height: int, inset: float = 0.0) -> tuple[slice, slice]:
    """Return the rows and columns of a bit's block; `inset` is the share left out at each side."""
    row, column = divmod(bit, COLUMNS)
    tall, wide = height * (1 - 2 * STRIP) / ROWS, width / COLUMNS
    top, left = height * STRIP + row * tall, column * wide
    rows = slice(round(top + inset * tall), round(top + (1 - inset) * tall))
    return rows, slice(round(left + inset * wide), round(left + (1 - inset) * wide))


def read_number(picture: Picture) -> int:
    """Read the number that an upright picture carries."""
    height, width = picture.shape[:2]
    code = 0
    for bit in range(COLUMNS * ROWS):
        code |= int(picture[block(bit, width, height, 0.25)].mean() > 128) << bit
    number = 0
    while code:
        number ^= code
        code >>= 1
    return number


def read_corners(picture: Picture, gray: bool = False) -> tuple[tuple[str, str], tuple[str, str]]:
    """Name the colours of the four corners, as they lie in the picture."""
    height, width = picture.shape[:2]
    # The strips lie along the sides where the picture was turned: look into the very corners.
    dy, dx = max(2, round(height * STRIP * 0.6)), max(2, round(width * STRIP * 0.6))
    top, bottom = slice(1, dy), slice(height - dy, height - 1)
    left, right = slice(1, dx), slice(width - dx, width - 1)

    def name(rows: slice, columns: slice) -> str:
        seen = picture[rows, columns].reshape(-1, 3).mean(axis=0)
        weights = LUMA if gray else np.eye(3)
        return min(
            CORNERS, key=lambda n: float(np.abs((seen - np.array(CORNERS[n])) @ weights).sum())
        )

    return (name(top, left), name(top, right)), (name(bottom, left), name(bottom, right))


def upright(picture: Picture, corners: tuple[tuple[str, str], tuple[str, str]]) -> Picture:
    """Turn and flip `picture`, whose corners are as given, so that its number can be read."""
    for flip in (False, True):
        for turns in range(4):
            names = np.rot90(np.array(corners), turns)
            names = names[:, ::-1] if flip else names
            if tuple(map(tuple, names.tolist())) == UPRIGHT:
                turned = np.rot90(picture, turns)
                return np.ascontiguousarray(turned[:, ::-1] if flip else turned)
    return picture


def combing(picture: Picture) -> float:
    """Return how far lines differ from their neighbours inside a block: 0 to 255, worst block."""
    gray = picture.astype(np.float64) @ LUMA
    height, width = gray.shape
    worst = 0.0
    for bit in range(COLUMNS * ROWS):
        inner = gray[block(bit, width, height, 0.25)]
        worst = max(worst, float(np.abs(inner[1:-1] - (inner[:-2] + inner[2:]) / 2).mean()))
    return worst


def psnr(a: Picture, b: Picture) -> float:
    """Return the peak signal-to-noise ratio of two uint8 pictures of one size, in dB (max 99)."""
    error = float(np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2))
    return 99.0 if error < 1e-5 else float(min(99.0, 10 * np.log10(255**2 / error)))
