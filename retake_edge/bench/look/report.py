"""The second look's figures: a JSON document, and tables made from it alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from retake_edge.bench.look.run import ABSENT_TURNS, Tried
from retake_edge.bench.stats import Share, paired_difference, share

_NAMES = {"print": "small print", "repeats": "quick repeats", "ordinary": "ordinary"}
_DIGITS = 4


def look_results(tried: Sequence[Tried]) -> dict[str, Any]:
    """Return the figures as plain values: a row for each kind of scenes and keep ratio.

    `lost`: right with full detail, wrong at first; `back`: of them, right after the second look;
    `broken`: of the first answers that were right, those wrong afterwards; in `always` the second
    answer counts also where the first one is surer. Intervals are 95 %. The answers themselves
    stand in `answers`, one digit a question: 4 full, 2 first, 1 again, 8 second. `counts` of quick
    repeats: the same of whole videos, each right where all colours are.
    """
    rows = []
    for row in dict.fromkeys((t.scenes, t.card_s, t.keep_ratio) for t in tried):
        some = [t for t in tried if (t.scenes, t.card_s, t.keep_ratio) == row]
        named = dict(zip(("scenes", "card_s", "keep_ratio"), row, strict=True))
        rows.append(named | _row(some))
        if row[0] == "repeats":
            rows[-1]["counts"] = _counts(some)
    return {"rows": rows, "sure": sure_results(tried)}


def _row(tried: Sequence[Tried]) -> dict[str, Any]:
    asked = [t for t in tried if not t.is_absent]
    lost = [t for t in asked if t.is_full_right and not t.is_first_right]
    right = [t for t in asked if t.is_first_right]
    gain = paired_difference([t.is_again_right for t in asked], [t.is_first_right for t in asked])
    return {
        "n_videos": len({t.video for t in asked}),
        "full": share(t.is_full_right for t in asked).to_dict(),
        "first": share(t.is_first_right for t in asked).to_dict(),
        "again": share(t.is_again_right for t in asked).to_dict(),
        "back": share(t.is_again_right for t in lost).to_dict(),
        "broken": share(not t.is_again_right for t in right).to_dict(),
        "always": {
            "back": share(t.is_second_right for t in lost).to_dict(),
            "broken": share(not t.is_second_right for t in right).to_dict(),
        },
        "gain": [round(value, _DIGITS) for value in gain],
        "reading_s": _mean(t.reading_s for t in asked),
        "first_look_s": _mean(t.look_s for t in asked if t.is_first),
        "look_s": _mean(t.look_s for t in asked if not t.is_first),
        "kinds": "".join(dict.fromkeys(f"{t.kind} " for t in asked)).split(),
        "kind": [t.kind for t in asked],
        "answers": "".join(
            format(
                8 * t.is_second_right
                + 4 * t.is_full_right
                + 2 * t.is_first_right
                + t.is_again_right,
                "x",
            )
            for t in asked
        ),
        "first_p": [round(t.first_p, _DIGITS) for t in asked],
        "second_p": [round(t.second_p, _DIGITS) for t in asked],
    }


def _counts(tried: Sequence[Tried]) -> dict[str, Any]:
    """How many videos were counted rightly: where each of their questions was answered rightly."""
    videos = [[t for t in tried if t.video == video] for video in {t.video for t in tried}]
    full, first, again = (
        [all(_is_right(t, name) for t in video) for video in videos]
        for name in ("full", "first", "again")
    )
    lost = [b for a, b, c in zip(full, again, first, strict=True) if a and not c]
    right = [b for b, c in zip(again, first, strict=True) if c]
    return {
        "full": share(full).to_dict(),
        "first": share(first).to_dict(),
        "again": share(again).to_dict(),
        "back": share(lost).to_dict(),
        "broken": share(not b for b in right).to_dict(),
    }


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return round(float(np.mean(found)), 3) if found else 0.0


def sure_results(tried: Sequence[Tried]) -> dict[str, Any]:
    """Return how well probabilities tell right from wrong, and what is there from what is not.

    Both as the area under the ROC curve: the chance that of one of each kind the former has the
    higher probability. Absent things are compared with questions of the same kinds.
    """
    found: dict[str, Any] = {}
    for name in ("full", "first", "again"):
        present = [t for t in tried if not t.is_absent]
        alike = [t for t in present if t.kind in ABSENT_TURNS]
        absent = [t for t in tried if t.is_absent]
        p, right = [_p(t, name) for t in present], [_is_right(t, name) for t in present]
        there = [_p(t, name) for t in alike], [_p(t, name) for t in absent]
        found[name] = {
            "right_wrong": auroc(
                [x for x, ok in zip(p, right, strict=True) if ok],
                [x for x, ok in zip(p, right, strict=True) if not ok],
            ),
            "present_absent": auroc(*there),
            "n": {"right": sum(right), "wrong": len(right) - sum(right), "absent": len(absent)},
        }
    return found


def _p(tried: Tried, name: str) -> float:
    return float(getattr(tried, f"{name}_p"))


def _is_right(tried: Tried, name: str) -> bool:
    return bool(getattr(tried, f"is_{name}_right"))


def auroc(higher: Sequence[float], lower: Sequence[float]) -> list[float] | None:
    """Return the share of pairs in which `higher` is above `lower`, with its 95 % interval.

    Ties count half; None if one of them is empty. Source: Hanley and McNeil 1982.
    """
    if not higher or not lower:
        return None
    a, b = np.asarray(higher)[:, None], np.asarray(lower)[None]
    area = float(((a > b) + 0.5 * (a == b)).mean())
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    n_a, n_b = len(higher), len(lower)
    variance = (area * (1 - area) + (n_a - 1) * (q1 - area**2) + (n_b - 1) * (q2 - area**2)) / (
        n_a * n_b
    )
    half = 1.959963984540054 * float(np.sqrt(max(0.0, variance)))
    return [round(v, _DIGITS) for v in (area, max(0.0, area - half), min(1.0, area + half))]


def look_table(results: dict[str, Any]) -> str:
    """Return a Markdown table: what was lost, what came back, and what it took."""
    lines = [
        "| scenes | keep | full detail | first answer | second look | got back | broken "
        "| the second always: got back | broken | reading | a look, the video's first |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in results["rows"]:
        shares = " | ".join(_percent(row[name]) for name in ("full", "first", "again"))
        always = row.get("always", {})  # in run files of before, the second answer always counted
        counted = (row["back"], row["broken"], always.get("back"), always.get("broken"))
        name = f"events of {row['card_s']:g} s" if row["card_s"] else _NAMES[row["scenes"]]
        lines.append(
            f"| {name} | {row['keep_ratio']:g} | {shares} | {' | '.join(map(_of, counted))} "
            f"| {row['reading_s']:.2f} s | {row['look_s']:.2f} s, {row['first_look_s']:.2f} s |"
        )
        if counts := row.get("counts"):
            shares = " | ".join(_percent(counts[name]) for name in ("full", "first", "again"))
            of = " | ".join(_of(counts[name]) for name in ("back", "broken"))
            lines.append(
                f"| their counts | {row['keep_ratio']:g} | {shares} | {of} | - | - | - | - |"
            )
    return "\n".join(lines)


def sure_table(results: dict[str, Any]) -> str:
    """Return a Markdown table of the areas under the ROC curve."""
    lines = [
        "| answers | right against wrong | present against absent |",
        "|---|---|---|",
    ]
    names = {"full": "full detail", "first": "first reading", "again": "second look"}
    for name, label in names.items():
        found = results["sure"][name]
        areas = (_area(found[key]) for key in ("right_wrong", "present_absent"))
        lines.append(f"| {label} | {' | '.join(areas)} |")
    return "\n".join(lines)


def _area(found: Sequence[float] | None) -> str:
    return "-" if found is None else f"{found[0]:.3f} ({found[1]:.3f}-{found[2]:.3f})"


def _percent(counted: dict[str, Any]) -> str:
    value = Share(counted["right"], counted["n"]).value
    return f"{100 * value:.1f} ({100 * counted['low']:.0f}-{100 * counted['high']:.0f})"


def _of(counted: dict[str, Any] | None) -> str:
    if counted is None:
        return "-"
    n_right, n = counted["right"], counted["n"]
    return f"{n_right} of {n} ({100 * n_right / n:.1f} %)" if n else "-"
