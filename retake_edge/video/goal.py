"""The wanted times of a video, and the picture that serves each."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

# Pictures that usually stay longer than this are slides, not frames.
MAX_FRAME_S = 0.5


@dataclass
class Goal:
    """The times still to be served: start_s + next * step_s for next < n.

    `times_s`: where they are not even, all of them, rising; `step_s` is the mean distance then.
    `slack_s`: how much later than a time its picture may begin. `last_s`: the time given last.
    `n_given`: times given by this goal. `frame_s`: for so long a frame usually stays; only one that
    stays longer is given again.
    """

    start_s: float
    step_s: float
    n: int
    slack_s: float
    frame_s: float = 0.0
    next: int = 0
    n_missed: int = 0
    n_given: int = 0
    last_s: float = -math.inf
    times_s: Sequence[float] = ()

    @property
    def time_s(self) -> float:
        """The next time to be served."""
        return self.at(self.next)

    def at(self, number: int) -> float:
        """Return a wanted time by its number, also one step before the first and after the last."""
        if not self.times_s:
            return self.start_s + number * self.step_s
        inside = min(max(number, 0), self.n - 1)
        return self.times_s[inside] + (number - inside) * self.step_s

    def first_from(self, time_s: float) -> int:
        """Return the number of the first time still to be served that is >= `time_s` (n: none)."""
        return bisect_left(range(self.n), time_s, min(self.next, self.n), key=self.at)

    def begin(self, first_s: float, after_s: float | None) -> None:
        """Pass over the times before the first picture, or up to one that was given before.

        The first picture also serves the last time before it.
        """
        if self.times_s:
            self.next = max(0, self.first_from(first_s + 1e-9) - 1)
        else:
            self.next = self.first_from(first_s - self.step_s + 1e-9)
        if after_s is not None:
            self.last_s = after_s
            self.next = self.first_from(after_s - min(self.slack_s, self.step_s / 2)) + 1

    def wants(self, from_s: float, until_s: float) -> bool:
        """Is a picture wanted that is shown from `from_s` until `until_s`?"""
        at = self.first_from(from_s - self.slack_s)
        return at < self.n and self.at(at) < until_s - self.slack_s

    def serve(self, from_s: float, until_s: float, is_first: bool) -> Iterator[float]:
        """Yield the times at which to give the picture that is shown from `from_s` until `until_s`.

        The first is the picture's own if it began within the last step. A picture that is held is
        given again, at the wanted times themselves. Times that nothing served are counted.
        """
        if not is_first:
            at = self.first_from(from_s - self.slack_s)
            self.n_missed += at - self.next
            self.next = at
        pause_s = self.frame_s if self.step_s < self.frame_s <= MAX_FRAME_S else 0.0
        while self.next < self.n and self.time_s < until_s - self.slack_s:
            wanted_s = self.time_s
            self.next += 1
            is_own = from_s > max(self.at(self.next - 2), self.last_s)
            if is_own or wanted_s - self.last_s >= pause_s:
                yield from self._give(from_s if is_own else wanted_s)

    def complete_pair(self, until_s: float) -> Iterator[float]:
        """Yield the next wanted time if it is the second of a pair and nothing is shown until then.

        So a pair never joins the pictures on both sides of a gap; the time counts as missed.
        """
        if self.n_given % 2 and self.next < self.n and self.time_s < until_s - self.slack_s:
            self.next += 1
            self.n_missed += 1
            yield from self._give(self.at(self.next - 1))

    def _give(self, time_s: float) -> Iterator[float]:
        """Yield a time if it lies behind the one given last."""
        if time_s > self.last_s:
            self.last_s = time_s
            self.n_given += 1
            yield time_s


class Goals:
    """Goals that one pass over a video serves, each as if it were alone."""

    def __init__(self, *goals: Goal) -> None:
        self.all = goals

    @property
    def open(self) -> list[Goal]:
        """Those with times still to be served."""
        return [goal for goal in self.all if goal.next < goal.n]

    @property
    def from_s(self) -> float:
        """From when on a picture may serve the next time of any; infinite if all are served."""
        return min((goal.time_s + goal.slack_s for goal in self.open), default=math.inf)

    @property
    def step_s(self) -> float:
        """The smallest distance of two times."""
        return min(goal.step_s for goal in self.all)

    def wants(self, from_s: float, until_s: float) -> bool:
        """Is a picture wanted that is shown from `from_s` until `until_s`?"""
        return any(goal.wants(from_s, until_s) for goal in self.all)
