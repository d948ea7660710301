"""A session's files: a video's cells chunk by chunk, and where to go on after a stop.

`KEY.part` is a journal that grows by one chunk at a time: the chunk's cells as llama.cpp's own
blob, then arrays about it. `KEY.resume` is small and replaced after each chunk: it holds what the
rest of the work depends on, and how much of the journal was safe by then. A finished journal gets
a last record and its final name; it needs no resume file any more.

A chunk is written by a thread while the next one is computed; one at most is on its way. What it
holds is taken from the context before, and the resume file names it only when it is safe: a run
that ends at any moment goes on after the last chunk that was written.

The newest cells wait in the resume file: the next chunk may begin at their position, and cells
can only be told apart by position. So do the states of recurrent layers, which the next chunk
replaces; a finished journal holds the last ones.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retake_edge.engine.chunks import StreamState
from retake_edge.engine.engine import ChunkResult, Engine, EngineState
from retake_edge.errors import NativeError
from retake_edge.files import write_atomically
from retake_edge.llama.context import Context
from retake_edge.session.store.journal import (
    ARRAYS,
    CELLS,
    STATES,
    Journal,
    JournalWriter,
    read_arrays,
)
from retake_edge.vision.reader import Done, Thumbnail, VideoReader

FORMAT = 1


@dataclass
class Chunks:
    """Facts of the finished chunks besides their cells."""

    frame_times_s: list[float] = field(default_factory=list)
    results: list[ChunkResult] = field(default_factory=list)
    thumbnails: list[Thumbnail] = field(default_factory=list)
    is_new: list[bool] = field(default_factory=list)

    def add(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Add a chunk from its arrays."""
        self.frame_times_s.extend(arrays["frame_times_s"].tolist())
        n_frames = len(arrays["pivot_share"])
        self.is_new.extend(arrays.get("is_new", np.ones(n_frames, np.bool_)).tolist())
        self.results.append(
            ChunkResult(
                int(arrays["n_cells"]),
                arrays["cell_frames"],
                arrays["pivot_share"],
                int(arrays.get("n_left_out", 0)),
            )
        )
        at = 0
        for time_s, size in zip(arrays["jpeg_times_s"], arrays["jpeg_sizes"], strict=True):
            self.thumbnails.append((float(time_s), arrays["jpegs"][at : at + size].tobytes()))
            at += int(size)

    def done(self, frames_per_step: int, *, skips_still: bool) -> Done:
        """Return what was read, for a reader that goes on.

        `skips_still`: the last picture may stand still, and is read again.
        """
        n_before = len(self.frame_times_s)
        if skips_still:
            n_before = int(np.flatnonzero(self.is_new)[-1]) * frames_per_step
        return Done(self.frame_times_s, self.is_new, n_before)

    def joined(self) -> ChunkResult:
        """Return the results of all chunks as one."""
        return ChunkResult(
            sum(result.n_cells for result in self.results),
            np.concatenate([result.cell_frames for result in self.results], axis=1),
            np.concatenate([result.pivot_share for result in self.results]),
            sum(result.n_left_out for result in self.results),
        )


@dataclass(frozen=True)
class Resume:
    """The point at which an interrupted run stopped: after the first `n_bytes` of its journal.

    `next_cell`: the lowest position of the cells that the journal does not hold yet.
    `n_feature_bytes`: length of the file of features by then, 0 where none are kept.
    """

    n_bytes: int
    next_cell: int
    engine: EngineState
    stream: StreamState
    seconds: dict[str, float]
    n_feature_bytes: int = 0


@dataclass(frozen=True)
class _ChunkParts:
    """A chunk on its way to the disk: its cells, arrays about it, and where to go on after it."""

    cells: npt.NDArray[np.uint8]
    arrays: dict[str, npt.NDArray[Any]]
    resume: Resume
    newest_cells: npt.NDArray[np.uint8]
    states: bytes


class Recorder:
    """Writes a session while it is made.

    What fails in the background is raised by the next call: OSError. `write_s`: seconds that the
    thread has written.
    """

    def __init__(self, context: Context, part: Path, resume: Path) -> None:
        self._context, self._part, self._resume = context, part, resume
        self._journal: JournalWriter | None = None
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="session-writer")
        self._on_its_way: Future[None] | None = None
        self._next_cell = self._n_frames = self._n_thumbnails = 0
        self.write_s = 0.0

    def begin(self, head: Mapping[str, Any]) -> None:
        """Start anew."""
        self._resume.unlink(missing_ok=True)
        self._part.parent.mkdir(parents=True, exist_ok=True)
        self._journal = JournalWriter(self._part)
        self._journal.append_json({"format": FORMAT, **head})
        self._journal.sync()

    def resume(self, resume: Resume, chunks: Chunks) -> None:
        """Go on after what is safe."""
        self._journal = JournalWriter(self._part, resume.n_bytes)
        self._next_cell = resume.next_cell
        self._n_frames = len(chunks.frame_times_s)

    def close(self) -> None:
        """Close the file, once a chunk on its way is in it; that can be gone on with."""
        self._writer.shutdown(wait=True)
        if self._journal is not None:
            self._journal.__exit__()
            self._journal = None

    def give_up(self) -> None:
        """Close the file, and remove it where nothing in it can be gone on with."""
        self.close()
        with suppress(OSError):
            if not self._resume.exists():
                self._part.unlink(missing_ok=True)

    def add(
        self,
        engine: Engine,
        stream: StreamState,
        reader: VideoReader,
        result: ChunkResult,
        seconds: Mapping[str, float],
        n_feature_bytes: int = 0,
    ) -> None:
        """Save a chunk that has just been compressed; it is written while the caller goes on."""
        self._settle()
        newest = self._context.position_max()
        n_frames = min(stream.n_frames * reader.frames_per_step, reader.n_frames)
        parts = _ChunkParts(
            self._context.save_cells(self._next_cell, newest),
            self._arrays(reader, result, n_frames),
            Resume(0, newest, engine.state(), stream, dict(seconds), n_feature_bytes),
            self._context.save_cells(newest),
            self._context.save_states(),
        )
        self._next_cell, self._n_frames = newest, n_frames
        self._on_its_way = self._writer.submit(self._write, parts)

    def _settle(self) -> None:
        """Wait until no chunk is on its way; raise what its writing raised."""
        if self._on_its_way is not None:
            self._on_its_way.result()
            self._on_its_way = None

    def _write(self, parts: _ChunkParts) -> None:
        assert self._journal is not None
        began = time.perf_counter()
        self._journal.append(CELLS, parts.cells)
        self._journal.append_arrays(parts.arrays)
        resume = replace(parts.resume, n_bytes=self._journal.sync())
        write_atomically(self._resume, _packed(resume, parts.newest_cells, parts.states))
        self.write_s += time.perf_counter() - began

    def add_whole(self, reader: VideoReader, result: ChunkResult) -> None:
        """Save what is known of a video whose cells `finish` saves all at once."""
        assert self._journal is not None
        self._journal.append_arrays(self._arrays(reader, result, reader.n_frames))

    def finish(
        self, engine: Engine, video: Mapping[str, Any], seconds: Mapping[str, float]
    ) -> None:
        """Save the cells that are not saved yet, and the figures of the whole."""
        self._settle()
        assert self._journal is not None
        self._journal.append(CELLS, self._context.save_cells(self._next_cell))
        states = self._context.save_states()
        if states:
            self._journal.append(STATES, states)
        state = engine.state()
        self._journal.append_json(
            {
                "video": dict(video),
                "seconds": dict(seconds),
                "next_position": state.next_position,
                "next_time": state.next_time,
                "n_cells": state.n_cells,
            }
        )
        self._journal.sync()
        self.close()

    def _arrays(
        self, reader: VideoReader, result: ChunkResult, n_frames: int
    ) -> dict[str, npt.NDArray[Any]]:
        until_s = reader.frame_times_s[n_frames - 1]
        pictures = [t for t in reader.thumbnails[self._n_thumbnails :] if t[0] <= until_s]
        self._n_thumbnails += len(pictures)
        jpegs = [np.frombuffer(jpeg, np.uint8) for _, jpeg in pictures]
        first, n_steps = self._n_frames // reader.frames_per_step, len(result.pivot_share)
        return {
            "frame_times_s": np.array(reader.frame_times_s[self._n_frames : n_frames]),
            "n_cells": np.array(result.n_cells),
            "n_left_out": np.array(result.n_left_out),
            "cell_frames": result.cell_frames,
            "pivot_share": result.pivot_share,
            "is_new": np.array(reader.is_new[first : first + n_steps], np.bool_),
            "jpeg_times_s": np.array([time_s for time_s, _ in pictures]),
            "jpeg_sizes": np.array([len(jpeg) for jpeg in jpegs], np.int64),
            "jpegs": np.concatenate([np.zeros(0, np.uint8), *jpegs]),
        }


def _packed(state: Resume, cells: npt.NDArray[np.uint8], states: bytes) -> bytes:
    values = asdict(state)
    arrays: dict[str, npt.NDArray[Any]] = {
        "cells": cells,
        "states": np.frombuffer(states, np.uint8),
        "last_frame": values["stream"].pop("last_frame"),
        "distances": values["stream"].pop("distances"),
    }
    memory = values["engine"].pop("memory")
    if memory is not None:
        arrays["memory"] = memory
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, values=np.array(json.dumps(values)), **arrays)
    return buffer.getvalue()


def read_resume(path: Path) -> tuple[Resume, npt.NDArray[np.uint8], bytes] | None:
    """Return where an interrupted run stopped, its newest cells and its recurrent states.

    None if there is nothing.

    A damaged file counts as none (a zip archive has checksums): the work then starts anew.
    """
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            arrays = dict(file)
        values = json.loads(str(arrays["values"]))
        stream = StreamState(
            last_frame=arrays["last_frame"], distances=arrays["distances"], **values.pop("stream")
        )
        engine = EngineState(memory=arrays.get("memory"), **values.pop("engine"))
        states = arrays["states"].tobytes()
        return Resume(engine=engine, stream=stream, **values), arrays["cells"], states
    except FileNotFoundError:
        return None
    except Exception:
        # Whatever a damaged file makes NumPy, zipfile or json raise.
        return None


def open_journal(path: Path, key: str, n_bytes: int | None = None) -> Journal:
    """Open a session's journal and check that it is what its name says.

    Raises:
        SessionError: it is damaged, another session's, or of another version.
    """
    journal = Journal(path, n_bytes)
    head = journal.head()
    if head.get("format") != FORMAT:
        newer = " (made by a newer retake-edge)" if head.get("format", 0) > FORMAT else ""
        raise journal.error(f"its format is {head.get('format')}, not {FORMAT}{newer}")
    if head.get("key") != key:
        raise journal.error("it belongs to another video, model or setting")
    return journal


def load_chunks(journal: Journal, context: Context) -> Chunks:
    """Load all cells of a journal into a context, and return what is known of its chunks.

    Raises:
        SessionError: a record is damaged, or does not fit the context.
    """
    chunks = Chunks()
    try:
        for record in journal.checked():
            if record.tag == CELLS:
                context.load_cells(record.content)
            elif record.tag == STATES:
                context.load_states(bytes(record.content))
            elif record.tag == ARRAYS:
                chunks.add(read_arrays(record))
    except (NativeError, KeyError, ValueError) as error:
        raise journal.error(f"its records do not fit ({error})") from None
    return chunks
