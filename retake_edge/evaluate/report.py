"""An evaluation's figures: the part of a run file, and its tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from retake_edge.bench.stats import Z_95
from retake_edge.evaluate.presets import Named
from retake_edge.evaluate.rows import Row
from retake_edge.evaluate.scores import Outcome, difference, group_scores, headline
from retake_edge.evaluate.sets import Item


@dataclass(frozen=True)
class Evaluated:
    """The items of a set that have a video, the rows of all variants, and how they are judged."""

    set_name: str
    preset: str
    items: Sequence[Item]
    missing: Sequence[str]
    named: Named
    variants: Sequence[str]
    rows: Sequence[Row]


def results(found: Evaluated) -> dict[str, Any]:
    """Return plain values; an answer that failed, or names no option, is wrong."""
    items = {item.id: item for item in found.items}
    by_variant: dict[str, list[Row]] = {name: [] for name in found.variants}
    for row in found.rows:
        if row["id"] in items and row.get("variant", "") in by_variant:
            by_variant[row.get("variant", "")].append(row)
    outcomes = {
        name: [
            _outcome(items[row["id"]], row, found.named) for row in rows if items[row["id"]].answer
        ]
        for name, rows in by_variant.items()
    }
    first = found.variants[0]
    return {
        "set": found.set_name,
        "preset": found.preset,
        "missing_videos": list(found.missing),
        "variants": [
            _variant(found, name, by_variant[name], outcomes[name]) for name in by_variant
        ],
        "differences": [
            _difference(found, name, first, outcomes) for name in by_variant if name != first
        ],
        "answers": [
            _judged(items[row["id"]], row, found.named) for row in found.rows if row["id"] in items
        ],
    }


def _outcome(item: Item, row: Row, named: Named) -> Outcome:
    letters = named(item, row["text"]) if row["text"] is not None else ()
    return Outcome(item.id, item.video, item.answer in letters, item.groups)


def _judged(item: Item, row: Row, named: Named) -> dict[str, Any]:
    letters = named(item, row["text"]) if row["text"] is not None else ()
    judged = {"id": item.id, "variant": row.get("variant", ""), "text": row["text"]}
    judged |= {
        "letters": "".join(letters),
        "right": item.answer in letters if item.answer else None,
    }
    return judged | ({"error": row["error"]["message"]} if row["error"] else {})


def _variant(
    found: Evaluated, name: str, rows: Sequence[Row], outcomes: Sequence[Outcome]
) -> dict[str, Any]:
    items = {item.id: item for item in found.items}
    texts = [(items[row["id"]], row["text"]) for row in rows if row["text"] is not None]
    scored = headline(found.set_name, found.preset, outcomes).to_dict() if outcomes else None
    return {
        "name": name,
        "n_asked": len(rows),
        "n_failed": sum(1 for row in rows if row["error"]),
        "n_named_none": sum(1 for item, text in texts if not found.named(item, text)),
        "n_without_key": len(rows) - len(outcomes),
        "score": scored,
        "groups": {
            kind: [score.to_dict() for score in scores]
            for kind, scores in group_scores(outcomes).items()
        },
    }


def _difference(
    found: Evaluated, name: str, first: str, outcomes: Mapping[str, Sequence[Outcome]]
) -> dict[str, Any]:
    mean, low, high = difference(found.set_name, found.preset, outcomes[name], outcomes[first])
    numbers = {"mean": mean, "low": low, "high": high}
    return {"of": name, "from": first} | {
        key: None if value != value else round(value, 6) for key, value in numbers.items()
    }


def tables(document: Mapping[str, Any]) -> str:
    """Return an evaluation's tables as Markdown: scores in %, +- their 95 % interval."""
    variants = document["variants"]
    names = [variant["name"] or document["preset"] for variant in variants]
    lines = [f"| {document['set']} | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    if all(variant["score"] for variant in variants):
        label = variants[0]["score"]["name"]
        lines.append(_line(f"**{label}**", [variant["score"] for variant in variants]))
    for kind, scores in variants[0]["groups"].items():
        for score in scores:
            same = [_of(variant["groups"].get(kind, []), score["name"]) for variant in variants]
            lines.append(_line(f"{kind}: {score['name']}", same))
    for key, label in (
        ("n_asked", "asked"),
        ("n_failed", "failed"),
        ("n_named_none", "no option named"),
    ):
        counts = " | ".join(str(variant[key]) for variant in variants)
        lines.append(f"| {label} | {counts} |")
    text = "\n".join(lines)
    for gap in document["differences"]:
        text += f"\n\n{gap['of']} - {gap['from']}: {_gap(gap)}"
    if n := len(document["missing_videos"]):
        text += f"\n\n{n} videos are missing; their questions are not asked."
    return text


def _gap(gap: Mapping[str, Any]) -> str:
    shown = f"{100 * gap['mean']:+.1f} points" if gap["mean"] is not None else "no question of both"
    if gap["low"] is None:
        return shown
    return f"{shown}, 95 % interval {100 * gap['low']:+.1f} to {100 * gap['high']:+.1f}"


def _of(scores: Sequence[Mapping[str, Any]], name: str) -> Mapping[str, Any] | None:
    return next((score for score in scores if score["name"] == name), None)


def _line(label: str, scores: Sequence[Mapping[str, Any] | None]) -> str:
    return f"| {label} | " + " | ".join(_cell(score) for score in scores) + " |"


def _cell(score: Mapping[str, Any] | None) -> str:
    if score is None:
        return ""
    error = score["error"]
    half = "" if error is None else f" ± {100 * Z_95 * error:.1f}"
    return f"{100 * score['value']:.1f}{half} (n={score['n']})"
