"""The figures of sampling: a JSON document, and a table made from it alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from retake_edge.bench.sampling.run import Counted
from retake_edge.bench.stats import Share


def sampling_results(counted: Sequence[Counted]) -> dict[str, Any]:
    """Return the figures as plain values: a row for each kind, encoder and limit, all videos."""
    rows = []
    for kind, encoding, limit in dict.fromkeys((c.kind, c.encoding, c.limit) for c in counted):
        some = [c for c in counted if (c.kind, c.encoding, c.limit) == (kind, encoding, limit)]
        row: dict[str, Any] = {"kind": kind, "encoding": encoding, "limit": limit}
        for sampling in dict.fromkeys(c.sampling for c in some):
            ours = [c for c in some if c.sampling == sampling]
            n_shown, n_events = sum(c.n_shown for c in ours), sum(c.n_events for c in ours)
            row[sampling] = {
                **Share(n_shown, n_events).to_dict(),
                "n_frames": max(c.n_frames for c in ours),
                "gap_s": max(c.gap_s for c in ours),
            }
        rows.append(row)
    return {"rows": rows, "videos": [asdict(one) for one in counted]}


def sampling_table(document: dict[str, Any]) -> str:
    """Return a Markdown table: the share of events shown, evenly and by change."""
    lines = [
        "| background | encoder | frames | even | change | times as many | longest gap, s |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in document["rows"]:
        even, change = row["even"], row["change"]
        times = change["right"] / even["right"] if even["right"] else float("inf")
        lines.append(
            f"| {row['kind']} | {row['encoding']} | {row['limit']:,} | {_percent(even)} "
            f"| {_percent(change)} | {times:.1f} | {even['gap_s']:.1f}, {change['gap_s']:.1f} |"
        )
    return "\n".join(lines)


def _percent(counted: dict[str, Any]) -> str:
    return f"{100 * Share(counted['right'], counted['n']).value:.1f} % of {counted['n']}"
