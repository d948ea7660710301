"""Golden cases of PivotKV: single cache updates in numpy, whole prefills in the engine.

A prefill gets one of three checks. `keep`: the engine against the data. `re-forged, positions
alike in all layers`: the engine, moving each layer's cells by that layer's own rule, against the
data. `re-forged, positions differ per layer`: no engine with one position input can run the
reference's rule, so numpy is checked against the data under that rule, and the engine against
numpy under the shared rule of `positions.reforge`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from retake_edge.engine import positions
from retake_edge.errors import ConfigError, RetakeError
from retake_edge.golden.limits import CPU, CPU_KEY, CPU_SCORE, Limits
from retake_edge.golden.reference.cache import chunk_scores, keep_count, make_rope, move_keys
from retake_edge.golden.reference.model import ReferenceModel
from retake_edge.golden.report import Array, Comparison, GoldenSet, Report
from retake_edge.golden.runners.case import (
    KEEP,
    N_GENERATED,
    PER_LAYER,
    SHARED,
    Bools,
    Floats,
    Ints,
    NumpyRunner,
    PrefillCase,
    PrefillResult,
    run_case,
    select_as_reference,
)
from retake_edge.golden.runners.native import NativeRunner, is_layer_independent, write_yarn_model

MODEL_FILE = "tiny-f32.gguf"
_POSITIONS = ("pos", "comp_pos", "post_pos", "dec_pos")


def check_updates(data: GoldenSet, report: Report) -> None:
    """Check single cache updates against the numpy reference."""
    for case in data.cases:
        report.add(f"pivotkv_unit {case['id']}", _check_update(data, case))


def _check_update(data: GoldenSet, case: dict[str, Any]) -> Comparison:
    def array(name: str) -> Array:
        return data[f"{case['id']}/{name}"]

    q, k, pos = array("q_rot"), array("k_rot"), array("pos")
    rope = make_rope("mrope", case["head_dim"], case["rope_base"], tuple(case["sections"]))
    reforges = case["reforge"]
    if reforges:
        scores = chunk_scores(rope.rotate(q, pos, back=True), rope.rotate(k, pos, back=True))
    else:
        scores = chunk_scores(q, k)
    pivots = array("kmask") if case["mask"] else None
    n_keep = keep_count(case["ratio"], case["q_len"])
    kept = select_as_reference(scores[None], pivots, n_keep)[0]
    moved: Ints = pos[:, kept].copy()
    keys = k[:, kept]
    if reforges:
        moved[0] = positions.reforge_per_layer(moved[0], case["q_len"])
        keys = move_keys(keys, rope, pos[:, kept], moved)
    result = Comparison("PivotKV update: numpy = data")
    result.exact("keep_len", np.array(n_keep), np.array(case["keep_len"]))
    result.exact("keep", kept, array("keep"))
    result.close("score", scores, array("score"), CPU_SCORE)
    result.exact("comp_pos", moved, array("comp_pos"))
    result.close("cache_k", keys, array("cache_k"), CPU_KEY)
    result.exact("cache_v", array("v")[:, kept], array("cache_v"))
    return result


def check_prefills(
    data: GoldenSet, folder: Path, report: Report, *, on_device: bool = False
) -> None:
    """Check whole prefills in the engine, with the folder's own model, on a device if there is one.

    Raises:
        ConfigError: the model is missing. NativeError: the patched libraries are.
    """
    if not (folder / MODEL_FILE).is_file():
        raise ConfigError(f"{folder} has pivotkv cases, but no {MODEL_FILE} to run them with.")
    by_yarn: dict[float | None, list[dict[str, Any]]] = {}
    for case in data.cases:
        by_yarn.setdefault(_yarn_factor(case), []).append(case)
    for factor, cases in by_yarn.items():
        n_input = max(len(data[f"in/{case['geom']}/input_ids"]) for case in cases)
        n_cells = n_input + N_GENERATED
        with _runners(folder / MODEL_FILE, factor, n_cells, on_device) as (native, reference):
            for case in cases:
                try:
                    result = _check_prefill(data, case, native, reference)
                except RetakeError as error:
                    result = Comparison("PivotKV prefill", [f"it stopped: {error}"])
                report.add(f"pivotkv {case['id']}", result)


def _yarn_factor(case: dict[str, Any]) -> float | None:
    """Return the factor by which YaRN stretches a case, or None if it does not.

    `yarn` without `yarnfix` has no effect in the reference.
    """
    if not case.get("yarnfix"):
        return None
    yarn = case.get("yarn") or 4
    return float(yarn.get("factor", 4) if isinstance(yarn, dict) else yarn)


@contextmanager
def _runners(
    model: Path, yarn: float | None, n_cells: int, on_device: bool
) -> Iterator[tuple[NativeRunner, NumpyRunner]]:
    with tempfile.TemporaryDirectory() as scratch:
        reference = ReferenceModel(model)
        if yarn is not None:
            reference.stretch(yarn)
            write_yarn_model(model, Path(scratch) / MODEL_FILE, yarn)
            model = Path(scratch) / MODEL_FILE
        with NativeRunner(model, n_cells=n_cells, on_device=on_device) as native:
            yield native, NumpyRunner(reference)


def _check_prefill(
    data: GoldenSet, case: dict[str, Any], native: NativeRunner, reference: NumpyRunner
) -> Comparison:
    variant, key = case["variants"][case["primary"]], f"{case['id']}/{case['primary']}"
    expected = PrefillResult(
        scores=data[f"{key}/score"],
        kept=data[f"{key}/kept"],
        logits=data[f"{key}/logits"],
        tokens=data[f"{key}/tokens"],
        **{name: data[f"{key}/{name}"] for name in _POSITIONS},
    )
    inputs = load_case(data, case)
    inside = (expected.pos, expected.post_pos, expected.dec_pos)
    if not case["reforge"]:
        result = Comparison("PivotKV prefill, positions kept: engine = data")
        _compare(result, run_case(inputs, native, KEEP), expected, native.limits)
    elif all(is_layer_independent(ids) for ids in inside):
        result = Comparison(
            "PivotKV prefill, re-forged, positions alike in all layers: engine = data"
        )
        _compare(result, run_case(inputs, native, PER_LAYER), expected, native.limits)
    else:
        result = Comparison(
            "PivotKV prefill, re-forged, positions differ per layer: numpy = data under the "
            "reference's rule, engine = numpy under the shared rule"
        )
        _compare(result, run_case(inputs, reference, PER_LAYER), expected, CPU)
        shared = run_case(inputs, reference, SHARED)
        found = run_case(inputs, native, SHARED)
        _compare(result, found, shared, native.limits, prefix="shared rule: ")
    _check_plan(result, case, variant, inputs)
    return result


def load_case(data: GoldenSet, case: dict[str, Any]) -> PrefillCase:
    """Return a prefill case's input, with the chunks as its primary variant cuts them."""
    chunks = case["variants"][case["primary"]]["chunks"]
    mask = f"{case['id']}/kmask"
    return PrefillCase(
        name=case["id"],
        tokens=data[f"in/{case['geom']}/input_ids"],
        video=data[f"in/{case['geom']}/video_embeds"],
        positions=data[f"in/{case['geom']}/rope_pos"],
        n_before=chunks[0]["start"],
        chunks=tuple((c["q_len"], c["keep_len"]) for c in chunks),
        pivots=data[mask] if case["mask"] != "none" else None,
    )


def _compare(
    result: Comparison,
    found: PrefillResult,
    expected: PrefillResult,
    limits: Limits,
    prefix: str = "",
) -> None:
    """Compare all results; after a near-tie that `limits` allow, nothing that follows from it."""
    result.close(f"{prefix}score", found.scores, expected.scores, limits.score)
    if limits.near_ties and not np.array_equal(found.kept, expected.kept):
        gap = widest_gap(found.kept, expected.kept, expected.scores)
        result.near_tie(f"{prefix}kept", gap, 2 * limits.score)
        return
    result.exact(f"{prefix}kept", found.kept, expected.kept)
    n = len(expected.tokens)
    if limits.near_ties and not np.array_equal(found.tokens, expected.tokens):
        at = int(np.flatnonzero(found.tokens != expected.tokens)[0])
        row, n = expected.logits[at], at + 1
        gap = float(row[expected.tokens[at]] - row[found.tokens[at]])
        result.near_tie(f"{prefix}token", gap, 2 * limits.logit)
    else:
        result.exact(f"{prefix}token", found.tokens, expected.tokens)
    result.close(f"{prefix}logit", found.logits[:n], expected.logits[:n], limits.logit)
    for name in _POSITIONS:
        result.exact(f"{prefix}{name}", getattr(found, name), getattr(expected, name))


def widest_gap(found: Bools, expected: Bools, scores: Floats) -> float:
    """Return the most that a token kept in place of others, in a layer, scores less than they."""
    gaps = [0.0]
    for layer, layer_scores in enumerate(scores):
        missed = layer_scores[expected[layer] & ~found[layer]]
        instead = layer_scores[found[layer] & ~expected[layer]]
        if missed.size and instead.size:
            gaps.append(float(missed.max() - instead.min()))
    return max(gaps)


def _check_plan(
    result: Comparison, case: dict[str, Any], variant: dict[str, Any], inputs: PrefillCase
) -> None:
    """Compare what the reference derives before it prefills: kept share, kept counts, positions."""
    limit, n_input = case.get("dyn"), len(inputs.tokens)
    ratio = float(min(1, limit / n_input) if limit else case["ratio"])
    result.close("ratio", np.array(ratio), np.array(variant["ratio_used"]), 1e-12)
    counts = [keep_count(ratio, n) for n, _ in inputs.chunks]
    result.exact("keep_len", np.array(counts), np.array([kept for _, kept in inputs.chunks]))
    before, n_video = inputs.n_before, len(inputs.video)
    steps = positions.frame_steps(case["T"])
    span = positions.mrope_span(steps, case["Hm"], case["Wm"], before)
    n_after = n_input - before - n_video
    ids = np.concatenate(
        [
            positions.text_positions(before, 0),
            span.ids,
            positions.text_positions(n_after, span.next_position),
        ],
        axis=1,
    )
    result.exact("rope_pos", ids[:3], inputs.positions)
