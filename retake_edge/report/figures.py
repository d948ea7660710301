"""The figures of a report: numbers over time to SVG paths and PNG pictures."""

from __future__ import annotations

import base64
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retake_edge.formats import clock

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]

WIDTH, HEIGHT = 1000, 100
"""Size of the SVG's own units; the page stretches them."""

_HEAT_COLUMNS = 960
_HEAT_BGR = (246, 130, 59)  # --kept of style.css
_TICK_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 36000)
_MOST_TICKS = 10


@dataclass(frozen=True)
class TimeAxis:
    """What the figures' left and right edges stand for, and when each grid frame is shown.

    `times_s` f64 [T], ascending; a frame is shown until the next one begins.
    """

    times_s: Doubles
    start_s: float
    end_s: float

    def x(self, time_s: float, width: float = WIDTH) -> float:
        """Return a time's distance from the left edge."""
        share = (time_s - self.start_s) / (self.end_s - self.start_s)
        return width * min(max(share, 0.0), 1.0)

    def ticks(self) -> list[tuple[float, str]]:
        """Return (percent from the left, label) of round times."""
        span = self.end_s - self.start_s
        step = next((s for s in _TICK_STEPS if span / s <= _MOST_TICKS), _TICK_STEPS[-1])
        first = -(-self.start_s // step) * step
        ticks = [(self.x(t, 100.0), clock(t)) for t in np.arange(first, self.end_s, step)]
        return [(round(left, 2), label) for left, label in ticks if left < 97]

    def frames_at(self, times_s: Doubles) -> Ints:
        """Return the grid frame shown at each time, int32."""
        after = np.searchsorted(self.times_s, times_s, side="right")
        return np.maximum(after - 1, 0).astype(np.int32)


def kept_share(cell_frames: Ints, n_frames: int, n_cells_before: int) -> Floats:
    """Return the share of each grid frame's vision tokens that each layer keeps, f32 [n_layer, T].

    `cell_frames` int32 [n_layer, n_kept], -1 - frame for clock text, which always stays.
    """
    n_text = int((cell_frames[0] < 0).sum())
    per_frame = max(1.0, (n_cells_before - n_text) / n_frames)
    counts = [np.bincount(layer[layer >= 0], minlength=n_frames) for layer in cell_frames]
    return (np.stack(counts) / per_frame).astype(np.float32)


def step_path(axis: TimeAxis, values: Floats, most: float | None = None) -> str:
    """Return an SVG path of one step per grid frame, as high as its value's share of `most`."""
    top = float(most or values.max() or 1.0)
    rights = [axis.x(t) for t in [*axis.times_s[1:].tolist(), axis.end_s]]
    parts = [f"M{axis.x(float(axis.times_s[0])):.4g} {HEIGHT}"]
    for value, right in zip(values.tolist(), rights, strict=True):
        y = HEIGHT * (1 - min(value / top, 1.0))
        parts.append(f"V{y:.4g}H{right:.5g}")
    return "".join(parts) + f"V{HEIGHT}Z"


def heat_map(axis: TimeAxis, share: Floats) -> str:
    """Return a PNG data address of `share` f32 [n_layer, T] over time: more is more opaque."""
    import cv2

    # Four samples a column: a picture narrower than the video has frames shows their mean.
    edges = np.linspace(axis.start_s, axis.end_s, 4 * _HEAT_COLUMNS + 1)
    frames = axis.frames_at((edges[:-1] + edges[1:]) / 2)
    columns = share[:, frames].reshape(len(share), _HEAT_COLUMNS, 4).mean(axis=2)
    image = np.empty((*columns.shape, 4), np.uint8)
    image[..., :3] = _HEAT_BGR
    image[..., 3] = np.rint(255 * columns / max(float(columns.max()), 1e-9))
    ok, data = cv2.imencode(".png", image)
    assert ok
    return "data:image/png;base64," + base64.b64encode(bytes(data)).decode("ascii")
