"""Save the second looks of a session: features of frames, and what a glance at the video found.

One file a session beside it, removed with it; the newest looks stay, up to a limit. A file that is
damaged, or cannot be written, is ignored.
"""

from __future__ import annotations

import io
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retake_edge.files import write_atomically
from retake_edge.video.glance import Glanced, Moment
from retake_edge.vision.encoder import VisionFeatures

MOST_BYTES = 64 << 20
"""Of the features of one session's looks."""
_MOST_MOMENTS = 1024
_GLANCED = "moments", "seen_s", "seen"


class SavedLooks:
    """The looks at one video, kept in `file` (None: in memory alone)."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._arrays: dict[str, npt.NDArray[Any]] = {}
        if file is not None:
            # Whatever a damaged file makes NumPy or zipfile raise.
            with suppress(Exception), np.load(io.BytesIO(file.read_bytes())) as stored:
                self._arrays = dict(stored)

    def glanced(self) -> Glanced | None:
        """Return what a glance at the video found; None: there was none yet."""
        if not all(name in self._arrays for name in _GLANCED):
            return None
        moments, seen_s, seen = (self._arrays[name] for name in _GLANCED)
        return Glanced([Moment(*row) for row in moments.tolist()], seen_s, seen)

    def keep_glanced(self, glanced: Glanced) -> None:
        """Keep what a glance found: of the moments the most novel ones."""
        rows = [(moment.start_s, moment.novelty) for moment in glanced.moments[:_MOST_MOMENTS]]
        arrays = np.array(rows, np.float64).reshape(-1, 2), glanced.seen_s, glanced.seen
        self._arrays.update(zip(_GLANCED, arrays, strict=True))
        self._write()

    def features(self, name: str) -> VisionFeatures | None:
        """Return the features of a look, None if it is not there."""
        rows = self._arrays.get(name)
        if rows is None:
            return None
        times_s, middle_s, (n_rows, n_cols, step_s) = (
            self._arrays[f"{name}/{part}"] for part in ("times_s", "middle_s", "shape")
        )
        embeddings = rows.astype(np.float32)
        return VisionFeatures(
            embeddings,
            times_s,
            middle_s,
            int(n_rows),
            int(n_cols),
            float(step_s),
        )

    def keep(self, name: str, features: VisionFeatures) -> None:
        """Keep the features of a look, which are rounded to f16 (`VisionFeatures.rounded`)."""
        self._arrays[name] = features.embeddings.astype(np.float16)
        self._arrays[f"{name}/times_s"] = features.times_s
        self._arrays[f"{name}/middle_s"] = features.middle_s
        shape = (features.rows, features.cols, features.step_s)
        self._arrays[f"{name}/shape"] = np.array(shape, np.float64)
        while sum(self._arrays[key].nbytes for key in self._of_looks()) > MOST_BYTES:
            oldest = self._of_looks()[0].partition("/")[0]
            for key in [key for key in self._arrays if key.partition("/")[0] == oldest]:
                del self._arrays[key]
        self._write()

    def _of_looks(self) -> list[str]:
        """The arrays that are not the glance's."""
        return [key for key in self._arrays if key not in _GLANCED]

    def _write(self) -> None:
        if self._file is None:
            return
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **self._arrays)
        with suppress(OSError):
            write_atomically(self._file, buffer.getvalue())
