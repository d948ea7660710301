"""Estimate the rest of a reading: as measured so far, and before that as planned.

Two kinds of work run through a video: frames are read (decoded and encoded), and a little later
prefilled. Each is measured for itself. What has not begun is expected to take what earlier runs
took, or else as long for each operation as the other kind does.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from retake_edge.plan.seconds import Work

_PREFILL = ("prefill", "score", "select", "compact", "save")
_NOTICEABLE_S = 0.5  # what was measured for less says little


@dataclass
class Pace:
    """The speed of one run, from `begun_share` of the video on.

    `expected`: seconds of the whole video by stage from earlier runs ({}: none).
    """

    work: Work
    expected: Mapping[str, float]
    begun_share: float = 0.0
    _begun_at: float = field(default_factory=time.monotonic)

    def left_s(
        self, read_share: float, prefilled_share: float, seconds: Mapping[str, float]
    ) -> float | None:
        """Return the seconds left, None if nothing is known.

        `seconds` by stage as this run spent them; shares of the whole video, earlier runs included.
        """
        prefill_s = sum(seconds.get(stage, 0.0) for stage in _PREFILL)
        read_s = time.monotonic() - self._begun_at - prefill_s
        whole_read = self._whole(read_s, read_share, ("decode", "encode"))
        whole_prefill = self._whole(prefill_s, prefilled_share, ("prefill",))
        if whole_read is None and whole_prefill is None:
            return None
        if whole_prefill is None:
            assert whole_read is not None
            whole_prefill = whole_read * self.work.prefill / max(self.work.encode, 1.0)
        if whole_read is None:
            whole_read = whole_prefill * self.work.encode / max(self.work.prefill, 1.0)
        return (1 - read_share) * whole_read + (1 - prefilled_share) * whole_prefill

    def _whole(self, spent_s: float, share: float, stages: tuple[str, ...]) -> float | None:
        """Seconds of one kind of work for the whole video."""
        done = share - self.begun_share
        expected = [self.expected[stage] for stage in stages if stage in self.expected]
        if done > 0 and (spent_s > _NOTICEABLE_S or not expected):
            return spent_s / done
        return sum(expected) if len(expected) == len(stages) else None
