"""The clip that all goldens are made from, and its frames as OpenCV decodes them.

PYTHONPATH=scripts python -m parity.clip FILE     writes it anew
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np

from parity.toy import CLIP_FPS

WIDTH, HEIGHT, N_FRAMES = 320, 180, 60


def picture(index: int) -> np.ndarray:
    """Draw frame `index`, u8 [HEIGHT, WIDTH, 3] BGR: slopes of colour, a ball, a number."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    t = index / N_FRAMES
    channels = [
        127 + 100 * np.sin(x / 41 + 6 * t),
        255 * y / HEIGHT,
        127 + 100 * np.cos((x + y) / 57 - 4 * t),
    ]
    frame = np.stack(channels, axis=-1).astype(np.uint8)
    centre = int(30 + 250 * t), int(90 + 60 * np.sin(5 * t))
    cv2.circle(frame, centre, 22, (30, 30, 220), -1, cv2.LINE_AA)
    cv2.putText(frame, str(index), (200, 60), 0, 1.6, (250, 250, 250), 3, cv2.LINE_AA)
    return frame


def write(path: Path) -> None:
    """Write the clip."""
    codec = cv2.VideoWriter.fourcc(*"mp4v")
    writer = cv2.VideoWriter(str(path), codec, CLIP_FPS, (WIDTH, HEIGHT))
    assert writer.isOpened(), "this OpenCV cannot write mp4"
    for index in range(N_FRAMES):
        writer.write(picture(index))
    writer.release()


def read(path: Path) -> np.ndarray:
    """Return all frames of the clip, u8 [N_FRAMES, HEIGHT, WIDTH, 3] RGB."""
    capture = cv2.VideoCapture(str(path))
    frames: list[np.ndarray] = []
    while True:
        ok, frame = capture.read()
        if not ok:
            return np.stack(frames)
        frames.append(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
