"""How sure answers are: do signals of an answer tell right from wrong, and seen from not seen?

A threshold is chosen on the first half of the videos and counted on the second, which it never
saw; so is the weighting of all signals together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from retake_edge.bench.look.report import auroc
from retake_edge.bench.scenes.absent import ABSENT_KINDS
from retake_edge.engine.attention import AnswerAttention
from retake_edge.session.evidence import frame_weights

SIGNALS = ("probability", "lowest", "first", "focus", "mass", "peak")
"""Signals of an answer, each higher where it is surer.

The geometric mean of its tokens' log probabilities, the lowest and the first of them; the share of
the heaviest grid frame in its attention to the video; the share of the video in all of its
attention, and that of the heaviest cell (both over the later half of the layers).
"""
TOGETHER = "together"
PRECISION = 0.95
_LEAST_SAID = 20  # fewer answers than this say nothing of a precision
_N_DRAWS = 1000
_N_STEPS = 50
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Heard:
    """An answer: `signals` f64 [len(SIGNALS)] and whether it is right, or about what is absent."""

    video: int
    kind: str
    is_absent: bool
    is_right: bool
    signals: Doubles


def signals(
    log_probs: Sequence[float],
    attention: AnswerAttention,
    window: tuple[int, int],
    cell_frames: npt.NDArray[np.int32],
    n_frames: int,
) -> Doubles:
    """Return an answer's signals, f64 [len(SIGNALS)], in the order of SIGNALS.

    `attention` over all cells before the answer; `window`: the first of the video's and their
    number. `cell_frames` int32 [n_layer, n_cells]: as for `frame_weights`.
    """
    found = np.zeros(len(SIGNALS))
    found[:3] = np.mean(log_probs), np.min(log_probs), log_probs[0]
    if attention.weights is not None:
        video = attention.weights[:, window[0] : sum(window)]
        mass = video.sum(axis=1, keepdims=True)
        shares = video / np.maximum(mass, np.finfo(np.float32).tiny)
        found[3] = frame_weights(shares, cell_frames, n_frames).max()
        late = slice(len(video) // 2, None)
        found[4:] = mass[late].mean(), video[late].max(axis=1).mean()
    return found


def sure_results(heard: Sequence[Heard]) -> dict[str, Any]:
    """Return for each signal, and all TOGETHER, what it tells on the second half of the videos.

    `right_wrong`, `present_absent` (questions of the same kinds): areas under the ROC curve with
    95 % intervals, videos drawn again. `said`: answers below the threshold, `absent` of them about
    what is not there; `n_absent` there are among `n` answers. No threshold: none reached PRECISION
    on the first half.
    """
    half = (1 + max(h.video for h in heard)) // 2
    seen, held = ([h for h in heard if (h.video >= half) == is_held] for is_held in (False, True))
    if not seen or not held:
        return {}
    weigh = _fitted(seen)
    found: dict[str, Any] = {}
    for i, name in enumerate((*SIGNALS, TOGETHER)):
        old, new = (
            weigh(part) if name == TOGETHER else np.array([h.signals[i] for h in part])
            for part in (seen, held)
        )
        threshold = _threshold(old, [h.is_absent for h in seen])
        said = [
            h for h, v in zip(held, new, strict=True) if threshold is not None and v < threshold
        ]
        found[name] = {
            "right_wrong": _area(held, new, _right_wrong),
            "present_absent": _area(held, new, _present_absent),
            "threshold": threshold,
            "said": len(said),
            "absent": sum(h.is_absent for h in said),
        }
    n_absent = sum(h.is_absent for h in held)
    return {"signals": found, "n": len(held), "n_absent": n_absent}


def _fitted(heard: Sequence[Heard]) -> Any:
    """A logistic regression of what is there, as a function of answers to their values."""
    rows = np.stack([h.signals for h in heard])
    mean, deviation = rows.mean(axis=0), rows.std(axis=0) + 1e-9

    def scaled(part: Sequence[Heard]) -> Doubles:
        values = (np.stack([h.signals for h in part]) - mean) / deviation
        return np.concatenate([values, np.ones((len(values), 1))], axis=1)

    x, there = scaled(heard), np.array([not h.is_absent for h in heard], np.float64)
    ridge, weights = np.eye(x.shape[1]), np.zeros(x.shape[1])
    for _ in range(_N_STEPS):
        p = 1 / (1 + np.exp(-x @ weights))
        slope = x.T @ (p - there) + ridge @ weights
        weights -= np.linalg.solve((x.T * (p * (1 - p))) @ x + ridge, slope)
    return lambda part: scaled(part) @ weights


def _threshold(values: Doubles, is_absent: Sequence[bool]) -> float | None:
    """The highest value below which PRECISION of the answers are about what is absent."""
    order = np.argsort(values, kind="stable")
    n = np.arange(1, len(order) + 1)
    precision = np.cumsum(np.asarray(is_absent)[order]) / n
    enough = np.flatnonzero((precision >= PRECISION) & (n >= _LEAST_SAID) & (n < len(order)))
    return float(values[order[enough[-1] + 1]]) if len(enough) else None


def _right_wrong(heard: Heard) -> bool | None:
    return None if heard.is_absent else heard.is_right


def _present_absent(heard: Heard) -> bool | None:
    return not heard.is_absent if heard.kind in ABSENT_KINDS else None


def _area(heard: Sequence[Heard], values: Doubles, side: Any) -> list[float] | None:
    """The area under the ROC curve and its 95 % interval; None where one side is empty."""
    sides = [side(h) for h in heard]
    videos = np.array([h.video for h in heard])
    by_video = [
        [
            [values[i] for i in np.flatnonzero(videos == v) if sides[i] is is_upper]
            for is_upper in (True, False)
        ]
        for v in np.unique(videos)
    ]
    rng = np.random.default_rng(0)
    draws = [np.arange(len(by_video)), *rng.integers(0, len(by_video), (_N_DRAWS, len(by_video)))]
    areas = []
    for draw in draws:
        upper, lower = ([v for d in draw for v in by_video[d][k]] for k in (0, 1))
        if (area := auroc(upper, lower)) is not None:
            areas.append(area[0])
        elif not areas:
            return None
    low, high = np.quantile(areas[1:], (0.025, 0.975))
    return [round(float(v), 4) for v in (areas[0], low, high)]


def signal_table(results: dict[str, Any]) -> str:
    """Return a Markdown table: a row for each run and signal; '' where nothing absent was asked."""
    lines = [
        "| policy | keep | signal | right against wrong | present against absent "
        "| said 'not seen' | of them absent | of the absent |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in results.get("sure", []):
        for name, found in row.get("signals", {}).items():
            areas = " | ".join(_shown(found[key]) for key in ("right_wrong", "present_absent"))
            said, absent = found["said"], found["absent"]
            shares = (
                f"{100 * absent / said:.1f} % | {100 * absent / row['n_absent']:.1f} %"
                if said
                else "- | 0 %"
            )
            lines.append(
                f"| {row['policy']} | {row['keep_ratio']:g} | {name} | {areas} "
                f"| {said} of {row['n']} | {shares} |"
            )
    return "\n".join(lines) if len(lines) > 2 else ""


def _shown(area: Sequence[float] | None) -> str:
    return "-" if area is None else f"{area[0]:.3f} ({area[1]:.3f}-{area[2]:.3f})"
