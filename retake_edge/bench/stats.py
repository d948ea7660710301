"""Shares of right answers with their uncertainty."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Z_95 = 1.959963984540054


@dataclass(frozen=True)
class Share:
    """`n_right` of `n` answers were right."""

    n_right: int
    n: int

    @property
    def value(self) -> float:
        """The share in [0, 1]; NaN of nothing."""
        return self.n_right / self.n if self.n else math.nan

    def interval(self) -> tuple[float, float]:
        """Return the 95 % Wilson interval, which holds also near 0 and 1.

        Source: Wilson 1927, score interval for a binomial share.
        """
        if not self.n:
            return 0.0, 1.0
        p, z2 = self.value, Z_95**2
        centre = (p + z2 / (2 * self.n)) / (1 + z2 / self.n)
        half = Z_95 / (1 + z2 / self.n) * math.sqrt(p * (1 - p) / self.n + z2 / (4 * self.n**2))
        return max(0.0, centre - half), min(1.0, centre + half)

    def to_dict(self) -> dict[str, float | int]:
        """Return plain values, the interval rounded to four digits."""
        low, high = (round(bound, 4) for bound in self.interval())
        return {"right": self.n_right, "n": self.n, "low": low, "high": high}


def share(outcomes: Iterable[bool]) -> Share:
    """Count the right ones."""
    counted = [bool(outcome) for outcome in outcomes]
    return Share(sum(counted), len(counted))


def paired_difference(ours: Iterable[bool], theirs: Iterable[bool]) -> tuple[float, float, float]:
    """Return the mean of ours - theirs over the same questions, and its 95 % interval.

    Two policies answer the same questions, so their difference is more certain than their shares.
    Source: normal interval of paired differences (McNemar's setting).

    Raises:
        ValueError: the two have different lengths.
    """
    gaps = [int(a) - int(b) for a, b in zip(ours, theirs, strict=True)]
    if not gaps:
        return 0.0, -1.0, 1.0
    mean = sum(gaps) / len(gaps)
    variance = sum((gap - mean) ** 2 for gap in gaps) / max(1, len(gaps) - 1)
    half = Z_95 * math.sqrt(variance / len(gaps))
    return mean, mean - half, mean + half


def paired_ratio(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """Return the geometric mean of ours / theirs over the same videos, and its 95 % interval.

    All values are above 0. The interval of a single pair is (0, inf).
    Source: normal interval of the mean of paired logarithms.

    Raises:
        ValueError: the two have different lengths, or are empty.
    """
    logs = [math.log(a / b) for a, b in zip(ours, theirs, strict=True)]
    if not logs:
        raise ValueError("no pair to compare")
    mean = sum(logs) / len(logs)
    if len(logs) == 1:
        return math.exp(mean), 0.0, math.inf
    variance = sum((value - mean) ** 2 for value in logs) / (len(logs) - 1)
    half = Z_95 * math.sqrt(variance / len(logs))
    return math.exp(mean), math.exp(mean - half), math.exp(mean + half)
