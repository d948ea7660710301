"""Tables of the speed benchmark: what was measured, the whole model extrapolated, the goals.

Two cuts are measured; whatever is said of the whole model is on the line through them, and is
called extrapolated wherever it is shown.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from retake_edge.bench.speed.checks import checks, checks_text, chunks_of
from retake_edge.bench.speed.cuts import Figures, ratios
from retake_edge.bench.speed.flops import layer_flops
from retake_edge.models.shapes import SHAPES

UNCLEAR = "unclear"
"""Shown where two cuts lie closer together than noise."""


@dataclass(frozen=True)
class Goal:
    """A goal of compression at `n_tokens` of video: a ratio and the values that reach it."""

    text: str
    n_tokens: int
    ratio: str
    holds: Callable[[float], bool]


_EXTRA = "scoring, values, selection and compaction: at most 5 % of prefill"
GOALS = (
    Goal("prefill, all in all: no slower", 16384, "video time", lambda r: r <= 1),
    Goal("prefill, all in all: faster", 32768, "video time", lambda r: r < 1),
    Goal("generated tokens: 1.3 times as fast", 32768, "decode speed", lambda r: r >= 1.3),
    Goal(_EXTRA, 16384, "compression share of prefill", lambda r: r <= 0.05),
    Goal(_EXTRA, 32768, "compression share of prefill", lambda r: r <= 0.05),
)


def speed_tables(document: dict[str, Any]) -> str:
    """Return a run file's tables as Markdown."""
    complete = [length for length in document["lengths"] if "whole" in length]
    parts = [about(document)]
    for length in complete:
        parts += _length_tables(document, length)
    parts += [_video_line(cut) for cut in document["cuts"] if "video" in cut]
    if _goal_rows(document):
        parts += [goals_table(document)]
    if checks(document):
        parts += [checks_text(document)]
    n_open = len(document["lengths"]) - len(complete)
    if n_open:
        parts.append(f"{n_open} of the lengths are not complete; the same command with --continue.")
    return "\n\n".join(parts)


def about(document: dict[str, Any]) -> str:
    """Say what the model is, and how much of it was measured."""
    model, cuts = document["model"], document["cuts"]
    if len(cuts) == 1:
        return f"{model['name']}, {model['layers']} layers, measured whole."
    layers, towers = (
        " and ".join(str(cut[part]) for cut in cuts) for part in ("layers", "vision_layers")
    )
    return (
        f"{model['name']}. Measured: cuts to {layers} of {model['layers']} layers, vision tower "
        f"and vocabulary cut in the same share ({towers} of the tower's {model['vision_layers']} "
        "layers). A layer's cost is the difference of the two, the rest is fixed (below zero "
        "for prefill: the last layer's feed-forward network is computed for output rows only). "
        f"Figures of all {model['layers']} layers are extrapolated on that line, not measured."
    )


def _length_tables(document: dict[str, Any], length: dict[str, Any]) -> list[str]:
    cuts = document["cuts"]
    if len(cuts) == 1:
        return [speed_table(length, "measured")]
    whole = f"{document['model']['layers']} layers, extrapolated"
    return [measured_table(document, length), speed_table(length, whole)]


def _video_line(cut: dict[str, Any]) -> str:
    video, n_layer = cut["video"], cut["vision_layers"]
    decode, encode = (1000 * video[f"{part}_s_per_frame"] for part in ("decode", "encode"))
    return (
        f"Video, the same for all runs: decode {decode:.1f} ms a frame, encode {encode:.0f} ms "
        f"with {n_layer} layers of the tower."
    )


def _head(length: dict[str, Any], what: str) -> list[str]:
    names = list(length["whole"])
    return [
        f"| {length['n_frames']} frames, {_n_tokens(length)} tokens; {what} "
        f"| {' | '.join(names)} |",
        "|---|" + "---|" * len(names),
    ]


def measured_table(document: dict[str, Any], length: dict[str, Any]) -> str:
    """Return a table of what the two cuts took, and of a layer's cost by their difference."""
    lines, names = _head(length, "measured"), list(length["whole"])
    shape = SHAPES.get(document["model"].get("shape", ""))

    def row(label: str, values: list[str]) -> None:
        lines.append(f"| {label} | {' | '.join(values)} |")

    for cut, runs in zip(document["cuts"], length["runs"], strict=True):
        n = cut["layers"]
        row(f"prefill, {n} layers", [f"{runs[name]['seconds']['prefill']:.2f} s" for name in names])
        row(f"generated token, {n} layers", [f"{1e3 * runs[k]['token_s']:.1f} ms" for k in names])
    layer, fixed = (
        [length[part][k]["seconds"]["prefill"] for k in names] for part in ("layer", "fixed")
    )
    row("prefill, a layer (difference)", [f"{s:.2f} s" for s in layer])
    row("prefill, the rest (below zero: see above)", [f"{s:.2f} s" for s in fixed])
    if shape is not None:
        work = [layer_flops(shape, chunks_of(length["runs"][0][name])) for name in names]
        rates = [_per_second(w / 1e9, s) for w, s in zip(work, layer, strict=True)]
        row("a layer's operations", [f"{w / 1e12:.2f} T" for w in work])
        row("G operations/s", rates)
    row(
        "generated token, a layer", [f"{1e3 * length['layer'][k]['token_s']:.2f} ms" for k in names]
    )
    return "\n".join(lines)


def speed_table(length: dict[str, Any], what: str) -> str:
    """Return a table of the whole model at one length: a row a figure, a column a setting."""
    lines, runs, compared = _head(length, what), length["whole"], length.get("ratios", {})
    names = list(runs)
    for label, show in _ROWS.items():
        lines.append(f"| {label} | {' | '.join(show(runs[name]) for name in names)} |")
    for label in next(iter(compared.values()), {}):
        values = [_shown(compared[name][label]) if name in compared else "1" for name in names]
        lines.append(f"| ratio: {label} | {' | '.join(values)} |")
    return "\n".join(lines)


def _shown(ratio: float | None) -> str:
    return UNCLEAR if ratio is None else f"{ratio:.3g}"


def goals_table(document: dict[str, Any]) -> str:
    """Return a table of the goals, each K/V type against the full cache of that type."""
    kinds = document["settings"]["kv_types"]
    lines = [
        f"| goal, against the full cache of the same K/V type | {' | '.join(kinds)} |",
        "|---|" + "---|" * len(kinds),
        *_goal_rows(document),
    ]
    how = "measured" if len(document["cuts"]) == 1 else "extrapolated"
    lines += ["", f"Ratios of the whole model, {how}: ours to the full cache's, or to our prefill."]
    return "\n".join(lines)


def _goal_rows(document: dict[str, Any]) -> list[str]:
    """A row for each goal that the run file says something of."""
    kinds, policy = document["settings"]["kv_types"], document["settings"]["policy"]
    rows = []
    for goal in GOALS:
        for length in document["lengths"]:
            whole = length.get("whole", {})
            if "ratios" not in length or not _is_about(goal.n_tokens, _n_tokens(length)):
                continue
            shown = [
                _verdict(goal, ratios(whole[f"full {kind}"], whole[f"{policy} {kind}"]))
                if f"full {kind}" in whole
                else "not measured"
                for kind in kinds
            ]
            rows.append(f"| {goal.text}, {goal.n_tokens} tokens | {' | '.join(shown)} |")
    return rows


def _n_tokens(length: dict[str, Any]) -> int:
    return int(next(iter(length["whole"].values()))["n_tokens"])


def _is_about(wanted: int, found: int) -> bool:
    return abs(found - wanted) <= wanted // 10


def _verdict(goal: Goal, found: dict[str, float | None]) -> str:
    ratio = found[goal.ratio]
    if ratio is None:
        return UNCLEAR
    return f"{ratio:.3g}: " + ("holds" if goal.holds(ratio) else "**does not hold**")


def growth_table(document: dict[str, Any]) -> str:
    """Return what stays and what grows with a video's length, under one budget of cells."""
    budget, n_layer = document["settings"]["kv_budget"], document["model"]["layers"]
    how = f"{n_layer} layers" + (", extrapolated" if len(document["cuts"]) > 1 else "")
    lines = [
        f"| frames | video tokens | KV cells, budget {budget} | KV allocated, {how} "
        f"| peak resident memory, {how} | prefill tokens/s, {how} | decode tokens/s, {how} |",
        "|---|---|---|---|---|---|---|",
    ]
    for length in document["lengths"]:
        (run,) = length["whole"].values()
        kv, peak = (_mib(run[name]) for name in ("kv_allocated_bytes", "peak_memory_bytes"))
        lines.append(
            f"| {length['n_frames']} | {run['n_tokens']} | {run['n_cells']} | {kv} | {peak} "
            f"| {_per_second(run['n_tokens'], run['seconds']['prefill'])} "
            f"| {_per_second(1, run['token_s'])} |"
        )
    return "\n".join(lines)


def _s(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 0 else UNCLEAR


def _mib(n_bytes: float) -> str:
    return f"{n_bytes / 2**20:.1f} MiB"


def _per_second(n: float, seconds: float) -> str:
    return UNCLEAR if seconds <= 0 else f"{n / seconds:.3g}"


_ROWS: dict[str, Callable[[Figures], str]] = {
    "prefill": lambda f: _s(f["seconds"]["prefill"]),
    "prefill tokens/s": lambda f: _per_second(f["n_tokens"], f["seconds"]["prefill"]),
    "last chunk's prefill": lambda f: _s(f["chunk_s"][-1]),
    "scoring and values": lambda f: _s(f["seconds"]["score"]),
    "selection": lambda f: _s(f["seconds"]["select"]),
    "compaction": lambda f: _s(f["seconds"]["compact"]),
    "first token": lambda f: _s(f["first_token_s"]),
    "decode tokens/s": lambda f: _per_second(1, f["token_s"]),
    "KV cells used": lambda f: f"{f['n_cells']}",
    "KV used": lambda f: _mib(f["kv_bytes"]),
    "KV allocated": lambda f: _mib(f["kv_allocated_bytes"]),
    "peak resident memory": lambda f: _mib(f["peak_memory_bytes"]),
    "device memory": lambda f: _mib(f["device_memory_bytes"]),
}
