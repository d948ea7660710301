"""A set's scores as its source counts them, with standard errors clustered by video.

A score is a weighted mean of right answers: every question has its weight, so that one formula
serves plain accuracy, MLVU's M-AVG (the mean over its task types) and the paper's Video-MME figure
(the mean over durations).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from retake_edge.bench.stats import Z_95


@dataclass(frozen=True)
class Outcome:
    """One question's result; `groups` as in `sets.Item`."""

    id: str
    video: str
    is_right: bool
    groups: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Score:
    """A share in [0, 1] of `n` questions, and its standard error (NaN: unknown)."""

    name: str
    value: float
    error: float
    n: int

    def to_dict(self) -> dict[str, float | int | str | None]:
        """Return plain values; an unknown error is None."""
        error = None if math.isnan(self.error) else round(self.error, 6)
        return {"name": self.name, "value": round(self.value, 6), "error": error, "n": self.n}


def headline(set_name: str, preset: str, outcomes: Sequence[Outcome]) -> Score:
    """Return the figure that the source reports for the whole set."""
    name, weigh = _HEADLINES.get((set_name, preset)) or _HEADLINES.get((set_name, ""), _OVERALL)
    return _score(name, outcomes, weigh(outcomes))


def group_scores(outcomes: Sequence[Outcome]) -> dict[str, list[Score]]:
    """Return the score of every group; a question with two labels counts in both."""
    found: dict[str, dict[str, list[Outcome]]] = defaultdict(lambda: defaultdict(list))
    for outcome in outcomes:
        for kind, labels in outcome.groups.items():
            for label in labels:
                found[kind][label].append(outcome)
    return {
        kind: [_score(label, members, _even(members)) for label, members in sorted(labels.items())]
        for kind, labels in found.items()
    }


def difference(
    set_name: str, preset: str, ours: Sequence[Outcome], theirs: Sequence[Outcome]
) -> tuple[float, float, float]:
    """Return ours - theirs over the questions of both, and its 95 % interval, by clusters."""
    known = {outcome.id: outcome for outcome in theirs}
    pairs = [(outcome, known[outcome.id]) for outcome in ours if outcome.id in known]
    _, weigh = _HEADLINES.get((set_name, preset)) or _HEADLINES.get((set_name, ""), _OVERALL)
    members = [outcome for outcome, _ in pairs]
    gaps = [float(a.is_right) - float(b.is_right) for a, b in pairs]
    mean, error = weighted_mean(gaps, weigh(members), [m.video for m in members])
    half = Z_95 * error if not math.isnan(error) else math.nan
    return mean, mean - half, mean + half


def weighted_mean(
    values: Sequence[float], weights: Sequence[float], clusters: Sequence[str]
) -> tuple[float, float]:
    """Return sum(w x) / sum(w), and its standard error where a cluster's values go together.

    With equal weights it is Miller 2024, arXiv:2411.00640, equation 4, as lmms-eval has it.
    """
    total = sum(weights)
    if not total:
        return math.nan, math.nan
    mean = sum(w * x for w, x in zip(weights, values, strict=True)) / total
    n = sum(1 for weight in weights if weight)
    if n < 2:
        return mean, math.nan
    parts: dict[str, list[float]] = defaultdict(list)
    for weight, value, cluster in zip(weights, values, clusters, strict=True):
        parts[cluster].append(weight / total * (value - mean))
    own = sum(part * part for members in parts.values() for part in members)
    crossed = sum(sum(members) ** 2 for members in parts.values()) - own
    return mean, math.sqrt(max(0.0, own * n / (n - 1) + crossed))


def _score(name: str, outcomes: Sequence[Outcome], weights: Sequence[float]) -> Score:
    values = [float(outcome.is_right) for outcome in outcomes]
    mean, error = weighted_mean(values, weights, [outcome.video for outcome in outcomes])
    return Score(name, mean, error, sum(1 for weight in weights if weight))


def _even(outcomes: Sequence[Outcome]) -> list[float]:
    return [1.0] * len(outcomes)


def _mean_over(kind: str) -> Callable[[Sequence[Outcome]], list[float]]:
    """Every group counts alike, whatever its size."""

    def weigh(outcomes: Sequence[Outcome]) -> list[float]:
        sizes: dict[str, int] = defaultdict(int)
        for outcome in outcomes:
            sizes[outcome.groups[kind][0]] += 1
        return [1.0 / sizes[outcome.groups[kind][0]] for outcome in outcomes]

    return weigh


_Weigh = Callable[[Sequence[Outcome]], list[float]]
_OVERALL: tuple[str, _Weigh] = ("overall", _even)
_HEADLINES: dict[tuple[str, str], tuple[str, _Weigh]] = {
    ("videomme", "retake"): ("overall", _mean_over("duration")),
    ("mlvu", ""): ("M-AVG", _mean_over("type")),
    ("mlvu", "vlmevalkit"): ("M-Avg", _even),
}
