"""The text benchmark's figures: a JSON document, and a table made from it alone."""

from __future__ import annotations

from typing import Any

from retake_edge.bench.quality.report import percent
from retake_edge.bench.stats import Share, paired_difference, share
from retake_edge.bench.text.needle import TextNeedleResult


def text_results(result: TextNeedleResult) -> dict[str, Any]:
    """Return the figures as plain values; `right` has one digit for each question."""
    runs: dict[tuple[str, float], list[bool]] = {}
    for outcome in result.outcomes:
        runs.setdefault((outcome.policy, outcome.keep_ratio), []).append(outcome.right)
    full = runs["none", 1.0]
    return {
        "n_tokens": result.n_tokens,
        "depth": [round(o.depth, 3) for o in result.outcomes if o.policy == "none"],
        "cells": [
            {
                "policy": policy,
                "keep_ratio": keep_ratio,
                **share(right).to_dict(),
                "loss": [round(value, 4) for value in paired_difference(full, right)],
                "outcomes": "".join(str(int(r)) for r in right),
            }
            for (policy, keep_ratio), right in runs.items()
        ],
        "seconds": {name: round(passed, 1) for name, passed in result.seconds.items()},
    }


def text_table(results: dict[str, Any]) -> str:
    """Return a Markdown table: a row a policy, a column a keep ratio, accuracy in %."""
    found = {(c["policy"], c["keep_ratio"]): Share(c["right"], c["n"]) for c in results["cells"]}
    keep_ratios = list(dict.fromkeys(keep_ratio for _, keep_ratio in found if keep_ratio < 1))
    policies = list(dict.fromkeys(policy for policy, _ in found if policy != "none"))
    lines = [
        f"| policy | {' | '.join(f'keep {keep_ratio:g}' for keep_ratio in keep_ratios)} |",
        "|---|" + "---|" * len(keep_ratios),
        f"| none (full cache) | {' | '.join([percent(found['none', 1.0])] * len(keep_ratios))} |",
    ]
    for policy in policies:
        shares = [percent(found[policy, keep_ratio]) for keep_ratio in keep_ratios]
        lines.append(f"| {policy} | {' | '.join(shares)} |")
    return "\n".join(lines)
