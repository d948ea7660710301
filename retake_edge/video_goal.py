"""Which times of a video are wanted, and which picture serves each."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

# A picture that stays is given again no sooner than this, however many times are sampled.
HELD_S = 0.5


@dataclass
class Goal:
    """The evenly spaced times still to be served: start_s + next * step_s for next < n.

    `slack_s`: how much later than a time its picture may begin. `last_s`: the time given last.
    """

    start_s: float
    step_s: float
    n: int
    slack_s: float
    next: int = 0
    n_missed: int = 0
    last_s: float = -math.inf

    @property
    def time_s(self) -> float:
        return self.start_s + self.next * self.step_s

    def first_from(self, time_s: float) -> int:
        """Return the number of the first time still to be served that is >= `time_s` (n: none)."""
        if time_s > self.start_s + self.n * self.step_s:
            return self.n
        # Not a loop over the times: a damaged time stamp can lie years ahead.
        at = max(self.next, min(self.n, math.ceil((time_s - self.start_s) / self.step_s)))
        while at > self.next and self.start_s + (at - 1) * self.step_s >= time_s:
            at -= 1
        while at < self.n and self.start_s + at * self.step_s < time_s:
            at += 1
        return at

    def begin(self, first_s: float, after_s: float | None) -> None:
        """Pass over the times before the first picture, or up to one that was given before.

        The first picture also serves the last time before it.
        """
        self.next = self.first_from(first_s - self.step_s + 1e-9)
        if after_s is not None:
            self.last_s = after_s

    def wants(self, from_s: float, until_s: float) -> bool:
        """Is a picture wanted that is shown from `from_s` until `until_s`?"""
        at = self.first_from(from_s - self.slack_s)
        return at < self.n and self.start_s + at * self.step_s < until_s - self.slack_s

    def serve(self, from_s: float, until_s: float, is_first: bool) -> Iterator[float]:
        """Yield the times at which to give the picture that is shown from `from_s` until `until_s`.

        The first is the picture's own if it began within the last step. A picture that is held is
        given again, at the wanted times themselves. Times that nothing served are counted.
        """
        if not is_first:
            at = self.first_from(from_s - self.slack_s)
            self.n_missed += at - self.next
            self.next = at
        is_new = from_s > self.last_s
        while self.next < self.n and self.time_s < until_s - self.slack_s:
            wanted_s = self.time_s
            self.next += 1
            own_s = from_s if from_s > wanted_s - self.step_s else wanted_s
            give_s = own_s if is_new else wanted_s
            pause_s = 0.0 if is_new else max(self.step_s, HELD_S) - 2 * self.slack_s - 1e-9
            if give_s > self.last_s and give_s - self.last_s >= pause_s:
                self.last_s, is_new = give_s, False
                yield give_s
