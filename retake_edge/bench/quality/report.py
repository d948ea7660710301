"""The quality benchmark's figures: a JSON document, and tables made from it alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from retake_edge.bench.quality.run import Asked, PolicyRun, QualityResult
from retake_edge.bench.quality.sure import sure_results
from retake_edge.bench.quality.videos import group
from retake_edge.bench.stats import Share, paired_difference, share

GROUP_NAMES = ("needle", "when", "order", "still", "other")
N_DEPTHS = 8
_EVENT_TOKENS = 2  # fewer tokens of an event than this, and POLICY's models could not read it


def quality_results(result: QualityResult) -> dict[str, Any]:
    """Return the figures as plain values.

    `questions`: kind, video and depth of each one, by length; `right` of a cell: one digit for
    each of them. Intervals are 95 % (Wilson); `loss` is full cache minus policy over the same
    questions, with the interval of paired differences.
    """
    lengths = sorted({run.n_frames for run in result.runs})
    found = {
        "questions": {str(n): _questions(result.questions(n)) for n in lengths},
        "cells": [_cell(run, result) for run in result.runs],
        "seconds": {stage: round(passed, 2) for stage, passed in result.seconds.items()},
    }
    return found | ({"sure": _sure(result)} if any(run.heard for run in result.runs) else {})


def _sure(result: QualityResult) -> list[dict[str, Any]]:
    """How sure answers are: a row for each policy and keep ratio, all lengths together."""
    rows = []
    for policy, keep_ratio in dict.fromkeys((run.policy, run.keep_ratio) for run in result.runs):
        some = [run for run in result.runs if (run.policy, run.keep_ratio) == (policy, keep_ratio)]
        heard = [h for run in some for h in run.heard]
        rows.append({"policy": policy, "keep_ratio": keep_ratio, **sure_results(heard)})
    return [row for row in rows if "signals" in row]


def _questions(asked: list[Asked]) -> dict[str, list[Any]]:
    return {
        "kind": [a.kind for a in asked],
        "video": [a.video for a in asked],
        "depth": [None if a.depth is None else round(a.depth, 3) for a in asked],
    }


def _cell(run: PolicyRun, result: QualityResult) -> dict[str, Any]:
    asked = result.questions(run.n_frames)
    full = next(r for r in result.runs if r.policy == "none" and r.n_frames == run.n_frames)
    cards = np.stack(run.card_cells)  # [cards, layers]

    def shares(key: Callable[[Asked], str]) -> dict[str, Any]:
        names = sorted({key(a) for a in asked})
        of = {
            n: share(r for r, a in zip(run.right, asked, strict=True) if key(a) == n) for n in names
        }
        return {name: counted.to_dict() for name, counted in of.items()}

    def loss(name: str | None) -> list[float]:
        chosen = [i for i, a in enumerate(asked) if name in (None, a.group)]
        pair = ([r.right[i] for i in chosen] for r in (full, run))
        return [round(value, 4) for value in paired_difference(*pair)]

    return {
        "policy": run.policy,
        "keep_ratio": run.keep_ratio,
        "frames": run.n_frames,
        "kv_cells": run.cells,
        "kv_cells_before": run.before,
        "right": "".join(str(int(r)) for r in run.right),
        "groups": shares(lambda a: a.group),
        "kinds": shares(lambda a: a.kind),
        "loss": {"all": loss(None)} | {name: loss(name) for name in GROUP_NAMES},
        "needle_depth": _by_depth(run, asked),
        "card_tokens_by_layer": [round(float(v), 2) for v in cards.mean(axis=0)],
        "cards_seen_by_layer": [round(float(v), 3) for v in (cards >= _EVENT_TOKENS).mean(axis=0)],
        "seconds": {stage: round(passed, 3) for stage, passed in run.seconds.items()},
    }


def _by_depth(run: PolicyRun, asked: list[Asked]) -> list[list[int]]:
    """[right, n] of needle questions in each of N_DEPTHS parts of the video."""
    counts = [[0, 0] for _ in range(N_DEPTHS)]
    for right, question in zip(run.right, asked, strict=True):
        if question.group == "needle" and question.depth is not None:
            part = counts[min(N_DEPTHS - 1, int(question.depth * N_DEPTHS))]
            part[0] += right
            part[1] += 1
    return counts


def pooled(cells: Iterable[dict[str, Any]], name: str) -> Share:
    """Add up the cells' shares of one group ('all': every question)."""
    n_right = n = 0
    for cell in cells:
        groups = cell["groups"]
        for part in groups.values() if name == "all" else [groups[name]] if name in groups else []:
            n_right, n = n_right + part["right"], n + part["n"]
    return Share(n_right, n)


def select(
    results: dict[str, Any], policy: str, keep_ratio: float, frames: int | None = None
) -> list[dict[str, Any]]:
    """Return the cells of a policy at a keep ratio, of one length or all."""
    return [
        cell
        for cell in results["cells"]
        if cell["policy"] == policy
        and cell["keep_ratio"] == keep_ratio
        and frames in (None, cell["frames"])
    ]


def runs_of(results: dict[str, Any]) -> list[tuple[str, float]]:
    """Return every policy and keep ratio once, in the order they were run."""
    return list(dict.fromkeys((cell["policy"], cell["keep_ratio"]) for cell in results["cells"]))


def group_names(results: dict[str, Any]) -> list[str]:
    """Return the groups that were asked about, and 'all'."""
    asked = {name for cell in results["cells"] for name in cell["groups"]}
    return [name for name in GROUP_NAMES if name in asked] + ["all"]


def quality_table(results: dict[str, Any]) -> str:
    """Return a Markdown table: accuracy in % with its interval, pooled over lengths."""
    names = group_names(results)
    lines = [
        f"| policy | keep | KV cells | {' | '.join(names)} |",
        "|---|---|---|" + "---|" * len(names),
    ]
    for policy, keep_ratio in runs_of(results):
        cells = select(results, policy, keep_ratio)
        kept = sum(c["kv_cells"] for c in cells) / sum(
            c["kv_cells_before"] for c in select(results, "none", 1.0)
        )
        shares = " | ".join(percent(pooled(cells, name)) for name in names)
        lines.append(f"| {policy} | {keep_ratio:g} | {kept:.0%} | {shares} |")
    return "\n".join(lines)


def length_table(results: dict[str, Any], name: str, keep_ratio: float) -> str:
    """Return a Markdown table of one group at one keep ratio: a row a policy, a column a length."""
    lengths = list(dict.fromkeys(cell["frames"] for cell in results["cells"]))
    lines = [
        f"| {name}, keep {keep_ratio:g} | {' | '.join(f'{n} frames' for n in lengths)} |",
        "|---|" + "---|" * len(lengths),
    ]
    for policy, ratio in runs_of(results):
        if ratio in (keep_ratio, 1.0):
            shares = [percent(pooled(select(results, policy, ratio, n), name)) for n in lengths]
            lines.append(f"| {policy} | {' | '.join(shares)} |")
    return "\n".join(lines)


def loss_table(results: dict[str, Any], policies: Sequence[str]) -> str:
    """Return a Markdown table: points lost against the full cache, same questions, all lengths."""
    names = group_names(results)
    lines = [f"| policy | keep | {' | '.join(names)} |", "|---|---|" + "---|" * len(names)]
    for policy, keep_ratio in runs_of(results):
        if policy in policies:
            shown = []
            for name in names:
                pair = (
                    answers(results, *run, name) for run in (("none", 1.0), (policy, keep_ratio))
                )
                loss, low, high = (100 * value for value in paired_difference(*pair))
                shown.append(f"{loss:.1f} ({low:.1f} to {high:.1f})")
            lines.append(f"| {policy} | {keep_ratio:g} | {' | '.join(shown)} |")
    return "\n".join(lines)


def gain_table(results: dict[str, Any], pairs: Sequence[tuple[str, str]]) -> str:
    """Return a Markdown table: points that a policy wins over another, same questions and keep."""
    names = group_names(results)
    lines = [
        f"| policy | over | keep | {' | '.join(names)} |",
        "|---|---|---|" + "---|" * len(names),
    ]
    for policy, other in pairs:
        for ratio in (keep_ratio for name, keep_ratio in runs_of(results) if name == policy):
            shown = []
            for name in names:
                pair = (answers(results, one, ratio, name) for one in (policy, other))
                gain, low, high = (100 * value for value in paired_difference(*pair))
                shown.append(f"{gain:.1f} ({low:.1f} to {high:.1f})")
            lines.append(f"| {policy} | {other} | {ratio:g} | {' | '.join(shown)} |")
    return "\n".join(lines)


def kind_table(results: dict[str, Any], policy: str) -> str:
    """Return a Markdown table: a row a question kind, a column a length, all keep ratios in it."""
    lengths = list(dict.fromkeys(cell["frames"] for cell in results["cells"]))
    ratios = [run for run in runs_of(results) if run[0] in ("none", policy)]
    kinds = sorted({kind for cell in results["cells"] for kind in cell["kinds"]})
    lines = [f"| | {' | '.join(f'{n} frames' for n in lengths)} |", "|---|" + "---|" * len(lengths)]
    for kind in kinds:
        shown = []
        for n in lengths:
            cells = [select(results, *run, n)[0]["kinds"].get(kind) for run in ratios]
            counts = " ".join(str(cell["right"]) for cell in cells if cell)
            shown.append(f"{counts} of {cells[0]['n']}" if cells[0] else "-")
        lines.append(f"| {kind} | {' | '.join(shown)} |")
    return "\n".join(lines)


def answers(results: dict[str, Any], policy: str, keep_ratio: float, name: str) -> list[bool]:
    """Return whether each question of a group ('all': every one) was answered right."""
    return [
        digit == "1"
        for cell in select(results, policy, keep_ratio)
        for digit, kind in zip(
            cell["right"], results["questions"][str(cell["frames"])]["kind"], strict=True
        )
        if name in ("all", group(kind))
    ]


def percent(counted: Share) -> str:
    """Return '93.1 (88-96)': the share and its interval in per cent; '-' of nothing."""
    if not counted.n:
        return "-"
    low, high = counted.interval()
    return f"{100 * counted.value:.1f} ({100 * low:.0f}-{100 * high:.0f})"
