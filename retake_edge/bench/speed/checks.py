"""A run file's check of itself: measured seconds against counted operations."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

from retake_edge.bench.speed.cuts import Figures
from retake_edge.bench.speed.flops import CUTS_FACTOR, LENGTHS_FACTOR, layer_flops, prefill_flops
from retake_edge.models.shape import ModelShape
from retake_edge.models.shapes import SHAPES


@dataclass(frozen=True)
class Check:
    """A comparison of two prefills: by their seconds, and by their operations."""

    what: str
    seconds: float
    flops: float
    factor: float

    @property
    def holds(self) -> bool:
        """True if both agree within the factor."""
        return 1 / self.factor <= self.seconds / self.flops <= self.factor


def chunks_of(run: Figures) -> list[tuple[int, int]]:
    """Return the tokens of each chunk, and the cells before it."""
    return list(zip(run["chunk_tokens"], run["chunk_cells"], strict=True))


def checks(document: dict[str, Any]) -> list[Check]:
    """Hold a run file's seconds against operations: of two cuts, and of a layer at two lengths.

    Empty where the model is no cut of a known shape.
    """
    shape = SHAPES.get(document["model"].get("shape", ""))
    complete = [length for length in document["lengths"] if "layer" in length]
    if shape is None:
        return []
    found = [
        _cuts_check(shape, document["cuts"], length, name)
        for length in complete
        for name in length["whole"]
    ]
    for first, second in itertools.pairwise(complete):
        names = [name for name in first["whole"] if name in second["whole"]]
        found += [_lengths_check(shape, first, second, name) for name in names]
    return found


def _cuts_check(
    shape: ModelShape, cuts: list[dict[str, Any]], length: dict[str, Any], name: str
) -> Check:
    runs = [of_cut[name] for of_cut in length["runs"]]
    few, many = (run["seconds"]["prefill"] for run in runs)
    work = [
        prefill_flops(shape.cut(cut["layers"]), chunks_of(run))
        for cut, run in zip(cuts, runs, strict=True)
    ]
    what = f"{name}, {length['n_frames']} frames, {cuts[1]['layers']} to {cuts[0]['layers']} layers"
    return Check(what, many / few, work[1] / work[0], CUTS_FACTOR)


def _lengths_check(
    shape: ModelShape, first: dict[str, Any], second: dict[str, Any], name: str
) -> Check:
    seconds = [of["layer"][name]["seconds"]["prefill"] for of in (first, second)]
    work = [layer_flops(shape, chunks_of(of["runs"][0][name])) for of in (first, second)]
    what = f"{name}, a layer, {second['n_frames']} to {first['n_frames']} frames"
    return Check(what, seconds[1] / seconds[0], work[1] / work[0], LENGTHS_FACTOR)


def checks_text(document: dict[str, Any]) -> str:
    """Return a table of the checks."""
    lines = [
        "| ratio of prefills | by seconds | by operations | within the factor |",
        "|---|---|---|---|",
    ]
    for check in checks(document):
        agrees = f"{check.factor:g}: " + ("yes" if check.holds else "**no**")
        lines.append(f"| {check.what} | {check.seconds:.2f} | {check.flops:.2f} | {agrees} |")
    return "\n".join(lines)
