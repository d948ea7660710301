"""Wall-clock time by stage."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")

OTHER = "other"
"""What a clock that runs counts outside of all stages."""


@dataclass(frozen=True)
class Profile:
    """The parts of the time that an answer took.

    `stages`: seconds of the thread that works for the answer, by what it did; each moment counts
    for one stage, so that they add up to `wall_s`. `waiting`: no frame was there yet. `beside`:
    seconds that other threads and processes worked meanwhile; they are no part of the sum.
    """

    wall_s: float
    stages: dict[str, float]
    beside: dict[str, float]


@dataclass
class StageTimes:
    """Wall-clock seconds by stage of one thread.

    A moment counts for the innermost stage that is measured, and for no other. From `start` to
    `stop` those outside of all stages count for OTHER, so that all add up to `wall_s`. `beside`:
    seconds by stage that other threads and processes worked meanwhile.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    beside: dict[str, float] = field(default_factory=dict)
    wall_s: float = 0.0
    _open: list[str] = field(default_factory=list)
    _since: float = 0.0
    _started: float | None = None

    def start(self) -> StageTimes:
        """Let the clock run from now on, and return it."""
        self._started = self._enter(OTHER)
        return self

    def stop(self) -> None:
        """Stop the clock; one that does not run stays as it is."""
        if self._started is not None:
            self.wall_s += self._leave() - self._started
            self._started = None

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Add the time of the block to a stage, but for that of stages within it."""
        self._enter(stage)
        try:
            yield
        finally:
            self._leave()

    def add(self, stage: str, seconds: float) -> None:
        """Add seconds to a stage."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

    def each(self, stage: str, items: Iterator[T]) -> Iterator[T]:
        """Yield items, counting the time that making each one takes."""
        while True:
            with self.measure(stage):
                try:
                    item = next(items)
                except StopIteration:
                    return
            yield item

    def named(self) -> dict[str, float]:
        """Return the seconds of all stages but OTHER."""
        return {stage: s for stage, s in self.seconds.items() if stage != OTHER}

    def after(self, before: StageTimes) -> StageTimes:
        """Return these seconds together with those of a time before."""
        return StageTimes(
            added(before.seconds, self.seconds),
            added(before.beside, self.beside),
            before.wall_s + self.wall_s,
        )

    def profile(self, names: Mapping[str, str]) -> Profile:
        """Return the seconds so far, with other names for some stages; the clock has stopped."""
        stages: dict[str, float] = {}
        for stage, seconds in self.seconds.items():
            stages = added(stages, {names.get(stage, stage): seconds})
        return Profile(self.wall_s, stages, dict(self.beside))

    def _enter(self, stage: str) -> float:
        now = self._tick()
        self._open.append(stage)
        return now

    def _leave(self) -> float:
        now = self._tick()
        self._open.pop()
        return now

    def _tick(self) -> float:
        """Give the time since the last change to the stage at hand, and return the time."""
        now = time.perf_counter()
        if self._open:
            self.add(self._open[-1], now - self._since)
        self._since = now
        return now


def added(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    """Return the sums of seconds by stage."""
    return {stage: one.get(stage, 0.0) + other.get(stage, 0.0) for stage in {**one, **other}}
