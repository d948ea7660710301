"""Save the vision features of a first reading, so that a second look can do without the file.

`KEY.features` is a journal: a head, a record for each chunk of grid frames, their rows in f16, and
an end that says how many frames there are. It is a file beside the session: a disk that is too full
for it costs nothing else, and whoever asks the session does not read it.
"""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import suppress
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retake_edge.errors import SessionError
from retake_edge.session.store.checkpoint import FORMAT, open_journal
from retake_edge.session.store.journal import JournalWriter, Record, read_arrays
from retake_edge.vision.encoder import VisionFeatures

_NO_ROWS = np.zeros((0, 0, 0), np.float32)


class FeatureRecorder:
    """Writes the features of a video while it is read, a record for `n_per_record` grid frames.

    `room_bytes` of the disk are left free, for the session itself. `finish` ends the file;
    `give_up` removes it; after `close` it can be gone on with.
    """

    def __init__(self, path: Path, n_per_record: int, room_bytes: int) -> None:
        self._path, self._n_per_record, self._room_bytes = path, n_per_record, room_bytes
        self._journal: JournalWriter | None = None
        self._rows: npt.NDArray[np.float16] | None = None  # the record that is being filled
        self._filled: list[VisionFeatures] = []
        self._n_steps = 0
        self._ends: dict[int, int] = {}

    def begin(self, key: str, *, non_causal: bool) -> None:
        """Start anew. `non_causal`: whether an image's tokens see each other, also later ones.

        Raises:
            OSError: the file cannot be written.
        """
        self._journal = JournalWriter(self._path)
        head = {"n_per_record": self._n_per_record, "non_causal": non_causal}
        self._journal.append_json({"format": FORMAT, "key": key, **head})

    def resume(self, n_steps: int, n_bytes: int) -> None:
        """Go on after `n_steps` grid frames, which the first `n_bytes` of the file hold.

        Raises:
            OSError: the file cannot be written, or is shorter.
        """
        if self._path.stat().st_size < n_bytes:
            raise OSError(errno.EIO, "it is cut short")
        self._journal = JournalWriter(self._path, n_bytes)
        self._n_steps, self._ends = n_steps, {n_steps: n_bytes}

    def n_bytes(self, n_steps: int) -> int:
        """Return the length of the file after `n_steps` grid frames, 0 if no record ends there."""
        return self._ends.get(n_steps, 0)

    def add(self, features: VisionFeatures) -> None:
        """Save the next grid frames; those that fill no record yet wait for others.

        Raises:
            OSError: the file cannot be written, or its room is the session's.
        """
        while len(features.times_s):
            features = self._fill(features)
            if sum(len(part.times_s) for part in self._filled) == self._n_per_record:
                self._write()

    def reach(self, n_steps: int) -> None:
        """Save all before grid frame `n_steps`, where a chunk ends.

        Raises:
            OSError: as `add`.
        """
        if n_steps > self._n_steps and self._filled:
            self._write()

    def finish(self) -> None:
        """Save what waits, and end the file.

        Raises:
            OSError: as `add`.
        """
        if self._filled:
            self._write()
        assert self._journal is not None
        self._journal.append_json({"n_steps": self._n_steps})
        self._journal.sync()
        self.close()

    def close(self) -> None:
        """Close the file."""
        if self._journal is not None:
            self._journal.__exit__()
            self._journal = None

    def give_up(self) -> None:
        """Close the file and remove it."""
        self.close()
        with suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _fill(self, part: VisionFeatures) -> VisionFeatures:
        """Copy the frames that the record has room for; return the others."""
        at = sum(len(filled.times_s) for filled in self._filled)
        if self._rows is None:
            self._rows = np.empty((self._n_per_record, *part.embeddings.shape[1:]), np.float16)
        n = min(self._n_per_record - at, len(part.times_s))
        self._rows[at : at + n] = part.embeddings[:n]
        self._filled.append(replace(part[:n], embeddings=_NO_ROWS))
        return part[n:]

    def _write(self) -> None:
        """Save the record as far as it is full, and begin the next one."""
        assert self._journal is not None and self._rows is not None
        is_stored = np.concatenate([part.news for part in self._filled])
        is_stored[0] = True  # what stands still shows what the frame before it does
        rows = self._rows[: len(is_stored)]
        rows = rows if is_stored.all() else rows[is_stored]
        if shutil.disk_usage(self._path.parent).free < rows.nbytes + self._room_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        some = self._filled[0]
        self._journal.append_arrays(
            {
                "rows": rows,
                "index": np.cumsum(is_stored) - 1,
                "times_s": np.concatenate([part.times_s for part in self._filled]),
                "middle_s": np.concatenate([part.middle_s for part in self._filled]),
                "shape": np.array((some.rows, some.cols, some.step_s), np.float64),
            }
        )
        self._n_steps += len(is_stored)
        self._ends[self._n_steps] = self._journal.sync()
        self._filled = []


class SavedFeatures:
    """The features of a first reading: `n_steps` grid frames of `n_tokens` each.

    `non_causal`: as in `FeatureRecorder`.

    Raises:
        SessionError: the file is damaged, another session's, or not whole. FileNotFoundError: there
        is none.
    """

    def __init__(self, path: Path, key: str) -> None:
        self._journal = open_journal(path, key)
        head, end = self._journal.head(), self._journal.last()
        if "n_steps" not in end:
            raise self._journal.error("the reading did not come to its end")
        self._n_per_record, self.non_causal = int(head["n_per_record"]), bool(head["non_causal"])
        self.n_steps = int(end["n_steps"])
        self.n_tokens = self.between(0, 1).embeddings.shape[1]

    def between(self, first: int, end: int) -> VisionFeatures:
        """Return the features of the grid frames `first` to `end` - 1, at least one.

        Raises:
            SessionError: a record is damaged.
        """
        n = self._n_per_record
        parts = []
        for i in range(first // n, -(-end // n)):
            record = _features(self._journal.record(1 + i))
            parts.append(record[max(0, first - i * n) : end - i * n])
        return reduce(VisionFeatures.joined, parts)


def saved_features(path: Path, key: str) -> SavedFeatures | None:
    """Return the features that were kept for a session; None where there are none, or damaged."""
    try:
        return SavedFeatures(path, key)
    except (FileNotFoundError, SessionError):
        return None


def _features(record: Record) -> VisionFeatures:
    arrays: dict[str, Any] = read_arrays(record)
    rows, cols, step_s = arrays["shape"]
    return VisionFeatures(
        arrays["rows"][arrays["index"]].astype(np.float32),
        arrays["times_s"],
        arrays["middle_s"],
        int(rows),
        int(cols),
        float(step_s),
    )
