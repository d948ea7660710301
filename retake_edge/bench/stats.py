"""Shares of right answers with their uncertainty."""

from __future__ import annotations

import math
from collections.abc import Iterable
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
