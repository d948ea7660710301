"""Order groups of jobs by their expected time, so that the longest begin first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from retake_edge.errors import MemoryBudgetError, RetakeError, VideoError
from retake_edge.evaluate.jobs import Group
from retake_edge.evaluate.opening import Opener
from retake_edge.plan.cells import text_reserve
from retake_edge.plan.run import RunPlanner
from retake_edge.plan.seconds import Calibration
from retake_edge.progress import ProgressCallback, no_progress
from retake_edge.session.store.folder import SessionStore
from retake_edge.video.read import VideoInfo, probe_video


def longest_first(
    groups: Sequence[Group], opener: Opener, progress: ProgressCallback = no_progress
) -> list[Group]:
    """Return the groups by planned seconds; by operations where some were never measured.

    What cannot be planned (a damaged video) comes last, and fails when its turn comes. `progress`
    is called with ("planning", videos, all videos).
    """
    calibration = Calibration(
        SessionStore(opener.cache_dir).cache_dir if opener.use_cache else None
    )
    costs: list[tuple[float | None, float]] = []
    infos = _infos(list(dict.fromkeys(group.file for group in groups)), progress)
    with ExitStack() as stack:
        planners: dict[str, RunPlanner] = {}
        for group in groups:
            config, info = opener.config_of(group), infos[group.file]
            if group.variant not in planners:
                planner = RunPlanner(opener.source, text_reserve(config))
                planners[group.variant] = stack.enter_context(planner)
            planner = planners[group.variant]
            try:
                plan = planner.plan(info, config) if info else None
            except (VideoError, MemoryBudgetError):
                plan = None
            seconds = plan.seconds(calibration) if plan else {"read": 0.0}
            work = plan.estimate.work.encode + plan.estimate.work.prefill if plan else 0.0
            costs.append((sum(seconds.values()) if seconds else None, work))
    is_measured = all(seconds is not None for seconds, _ in costs)
    order = sorted(
        range(len(groups)), key=lambda n: -(costs[n][0] or 0.0 if is_measured else costs[n][1])
    )
    return [groups[n] for n in order]


def _infos(files: Sequence[Path], progress: ProgressCallback) -> dict[Path, VideoInfo | None]:
    """Return what each file holds, None if it is no video; each is probed in its own process."""

    def info(file: Path) -> VideoInfo | None:
        try:
            return replace(probe_video(file), packets=None)  # of all videos, they are much
        except RetakeError:
            return None

    def told(found: Iterator[VideoInfo | None]) -> Iterator[VideoInfo | None]:
        for n, one in enumerate(found, 1):
            progress("planning", n, len(files))
            yield one

    with ThreadPoolExecutor() as pool:
        return dict(zip(files, told(pool.map(info, files)), strict=True))
