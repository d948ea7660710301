"""The quality benchmark's plots, made from a run file's results."""

from __future__ import annotations

from typing import Any

import numpy as np

from retake_edge.bench.quality.chart import Point, heat_map, line_chart
from retake_edge.bench.quality.report import GROUP_NAMES, N_DEPTHS, pooled, runs_of, select


def accuracy_plot(results: dict[str, Any], name: str) -> str:
    """Return an SVG: accuracy of a group ('all': every question) against the keep ratio."""
    full = pooled(select(results, "none", 1.0), name)
    start = Point(1.0, full.value, *full.interval())
    lines: dict[str, list[Point]] = {}
    for policy, keep_ratio in runs_of(results):
        if policy != "none":
            counted = pooled(select(results, policy, keep_ratio), name)
            point = Point(keep_ratio, counted.value, *counted.interval())
            lines.setdefault(policy, [start]).append(point)
    title = f"Right answers in %, {name if name in GROUP_NAMES else 'all questions'}"
    return line_chart(title, "share of the video's tokens kept", lines or {"none": [start]})


def depth_plot(results: dict[str, Any], keep_ratio: float) -> str:
    """Return an SVG: needle accuracy of every policy by the needle's place in the video."""
    rows, values = [], []
    for policy, ratio in runs_of(results):
        if ratio in (keep_ratio, 1.0):
            counts = np.sum([c["needle_depth"] for c in select(results, policy, ratio)], axis=0)
            rows.append(policy)
            values.append(
                np.where(counts[:, 1] > 0, counts[:, 0] / np.maximum(counts[:, 1], 1), np.nan)
            )
    columns = [f"{100 * i // N_DEPTHS}-{100 * (i + 1) // N_DEPTHS} %" for i in range(N_DEPTHS)]
    title = f"Needles found in % by depth in the video, keep {keep_ratio:g}"
    return heat_map(title, rows, columns, np.array(values))
