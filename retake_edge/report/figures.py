"""Draw what each layer keeps over time, as a picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]

_HEAT_COLUMNS = 960
_HEAT_BGR = (246, 130, 59)  # --kept of style.css


@dataclass(frozen=True)
class TimeAxis:
    """The times at a figure's left and right edges, and those at which grid frames are shown.

    `times_s` f64 [T], ascending; a frame is shown until the next one begins.
    """

    times_s: Doubles
    start_s: float
    end_s: float

    def frames_at(self, times_s: Doubles) -> Ints:
        """Return the grid frame shown at each time, int32."""
        after = np.searchsorted(self.times_s, times_s, side="right")
        return np.maximum(after - 1, 0).astype(np.int32)


def heat_map(axis: TimeAxis, share: Floats) -> bytes:
    """Return a PNG of `share` f32 [n_layer, T] over time: more is more opaque."""
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
    return bytes(data)
