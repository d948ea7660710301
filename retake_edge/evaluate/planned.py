"""How long each group of jobs is expected to take, so that the longest begin first."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from retake_edge.errors import RetakeError
from retake_edge.evaluate.jobs import Group
from retake_edge.evaluate.opening import Opener
from retake_edge.plan.cells import text_reserve
from retake_edge.plan.run import RunPlanner
from retake_edge.plan.seconds import Calibration
from retake_edge.session.store.folder import SessionStore
from retake_edge.video.read import probe_video


def longest_first(groups: Sequence[Group], opener: Opener) -> list[Group]:
    """Return the groups by planned seconds; before any were measured, by length of video.

    What cannot be planned (a damaged video) comes last, and fails when its turn comes.
    """
    calibration = Calibration(
        SessionStore(opener.cache_dir).cache_dir if opener.use_cache else None
    )
    with ExitStack() as stack:
        planners: dict[str, RunPlanner] = {}

        def cost(group: Group) -> float:
            config = opener.config_of(group)
            try:
                video = probe_video(group.file)
                if group.variant not in planners:
                    planner = RunPlanner(opener.source, text_reserve(config))
                    planners[group.variant] = stack.enter_context(planner)
                planner = planners[group.variant]
                seconds = planner.seconds(planner.plan(video, config), calibration)
            except RetakeError:
                return 0.0
            return sum(seconds.values()) if seconds else video.duration_s

        costs = {id(group): cost(group) for group in groups}
        return sorted(groups, key=lambda group: -costs[id(group)])
