"""Load a finished session: the cells go from the mapped file straight into the cache."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from retake_edge.engine.engine import Engine, EngineState
from retake_edge.models.manifest import ModelManifest
from retake_edge.plan.frames import kv_bytes_per_cell, padded
from retake_edge.plan.look import look_frames
from retake_edge.session.prefilled import (
    OpenRequest,
    PrefilledVideo,
    load_model,
    make_context,
    video_map_of,
)
from retake_edge.session.store.checkpoint import load_chunks, open_journal
from retake_edge.session.store.journal import Journal
from retake_edge.session.video_map import VideoStats


def read_session(request: OpenRequest, file: Path, key: str) -> PrefilledVideo:
    """Load a finished session; neither the video nor the vision tower is touched.

    Raises:
        SessionError: the session is damaged, foreign or of another version.
        FileNotFoundError: there is none. ModelError, MemoryBudgetError: as for a video.
    """
    times = request.times
    with times.measure("load"), ExitStack() as resources:
        journal = open_journal(file, key)
        head, end = journal.head(), journal.last()
        model, manifest = load_model(resources, request)
        stats = _video_stats(journal, end, request.path)
        n_needed = end["n_cells"] + request.n_text_reserve + _n_look(request, manifest, head)
        context = make_context(resources, model, request, _n_ctx(request, n_needed))
        chunks = load_chunks(journal, context)
        engine = Engine(context, request.config, n_text_reserve=request.n_text_reserve)
        engine.restore(EngineState(end["next_position"], end["next_time"], n_cells=end["n_cells"]))
        stats = replace(
            stats,
            n_ctx=context.n_ctx,
            kv_bytes=int(context.n_ctx * kv_bytes_per_cell(model, request.config.runtime)),
        )
        grid_times_s = chunks.frame_times_s[:: head["frames_per_step"]]
        return PrefilledVideo(
            engine,
            manifest,
            stats,
            video_map_of(grid_times_s, chunks),
            chunks.thumbnails,
            times,
            end["seconds"],
            resources.pop_all(),
            is_saved=True,
            n_before=int(head["n_before"]),
        )
    raise AssertionError("unreachable")


def _video_stats(journal: Journal, end: dict[str, Any], path: str | Path) -> VideoStats:
    try:
        return VideoStats.from_dict({**end["video"], "path": str(path)})
    except (KeyError, TypeError):
        raise journal.error("its last record is not that of a finished session") from None


def _n_look(request: OpenRequest, manifest: ModelManifest, head: dict[str, Any]) -> int:
    """Cells of a second look."""
    n_steps = look_frames(manifest, request.config) // manifest.frames.frames_per_step
    return n_steps * int(head["plan"]["shape"].get("look_per_step", 0))


def _n_ctx(request: OpenRequest, n_needed: int) -> int:
    return request.config.runtime.n_ctx or padded(n_needed)
