"""Golden cases of DPSelect, and the inputs on which the reference stops."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import numpy.typing as npt

from retake_edge.compress.dpselect import (
    Floats,
    Keyframes,
    frame_distances,
    keyframes_from_distances,
    local_peaks,
)
from retake_edge.golden.report import Comparison, GoldenSet, Report

# Distances are float32 sums in another order; what must be equal is what follows from them.
_DISTANCE_LIMIT = 1e-6


def check_dpselect(data: GoldenSet, report: Report) -> None:
    """Check every case exactly, and every probe for a sensible result."""
    for case in data.cases:
        report.add(f"dpselect {case['id']}", _check_case(data, case))
    for probe in data.info.get("probes", []):
        report.add(f"dpselect probe {probe['case']}", _check_probe(probe))


def _check_case(data: GoldenSet, case: dict[str, Any]) -> Comparison:
    bank, synced = f"{case['bank']}/{int(case['sync'])}", case["sync"]
    expected, peaks = data[f"{bank}/dis"], data[f"{bank}/localmax"]
    features = data[f"{case['bank']}/feats"]
    is_bf16 = case["dtype"] == "bfloat16"
    distances = (
        _bf16_distances(features, synced) if is_bf16 else frame_distances(features, not synced)
    )
    result = Comparison("DPSelect: selection and pivots exact")
    result.close("distance", np.atleast_2d(distances), expected, _DISTANCE_LIMIT)
    if case.get("fragile") and not (local_peaks(np.atleast_2d(distances)) == peaks).all():
        # Distances of identical frames are rounding noise: whose, is not part of the method.
        result.check = "DPSelect: selection and pivots exact, from the reference's own distances"
        distances = expected
    n_patches = features.shape[1]
    keyframes = keyframes_from_distances(distances, n_patches, case["tgt"])
    stable = f"{case['id']}/sel_stable"
    is_tied = stable in data
    selected = data[stable] if is_tied else data[f"{case['id']}/sel"]
    result.require(case.get("window", 3) == 3, f"window {case.get('window')} is not 3")
    result.exact("selected", keyframes.selected, selected)
    result.exact("peaks", local_peaks(keyframes.distances), peaks)
    if not is_tied:  # the reference's mask belongs to its own choice among ties
        result.exact("pivots", keyframes.selected_mask(), data[f"{case['id']}/mask"])
    return result


def _bf16_distances(features: Floats, synced: bool) -> Floats:
    """Distances as bf16 arithmetic gives them: rounded after norm, quotient, product and sum."""
    norms = _bf16(np.sqrt((features**2).sum(-1)))
    unit = _bf16(features / np.maximum(norms, np.float32(1e-8))[..., None])
    cosine = _bf16(_bf16(unit[1:] * unit[:-1]).sum(-1))
    first = np.ones((1, features.shape[1]), np.float32)
    distances = np.concatenate([first, 1 - cosine]).T
    return distances.mean(axis=0, dtype=np.float32) if synced else distances


def _bf16(x: npt.NDArray[np.floating[Any]]) -> Floats:
    """Round to bfloat16, halves to even."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((bits + ((bits >> 16) & 1) + 0x7FFF) & np.uint32(0xFFFF0000)).view(np.float32)


def _check_probe(probe: dict[str, Any]) -> Comparison:
    """Run a probe's shape on random features: its own are not in the data."""
    numbers = dict(re.findall(r"\b(T|N|tgt|sync)=(\w+)", probe["case"]))
    n_frames, n_patches, n_keep = (int(numbers[key]) for key in ("T", "N", "tgt"))
    per_patch = numbers["sync"] != "True"
    result = Comparison("DPSelect probe: a sensible result")
    features = np.random.default_rng(0).standard_normal((n_frames, n_patches, 8))
    nan_frame = re.search(r"NaN frame (\d+)", probe["case"])
    if nan_frame:
        features[int(nan_frame[1])] = np.nan
    keyframes = keyframes_from_distances(
        frame_distances(features.astype(np.float32), per_patch), n_patches, n_keep
    )
    n_rows, n_kept = (n_patches if per_patch else 1), min(n_keep, n_frames)
    result.require(
        keyframes.selected.shape == (n_rows, n_kept),
        f"selected has shape {list(keyframes.selected.shape)}, not [{n_rows}, {n_kept}]",
    )
    result.require(_is_valid(keyframes, n_frames), "selected is not ascending and in range")
    result.require(keyframes.mask.shape == (n_frames, n_patches), "the mask has a wrong shape")
    if nan_frame and n_kept > 1:
        at = int(nan_frame[1])
        for frame in range(at, min(at + 2, n_frames)):
            seen = (keyframes.selected == frame).any(axis=1).all()
            result.require(bool(seen), f"frame {frame}, at a NaN distance, is not selected")
    return result


def _is_valid(keyframes: Keyframes, n_frames: int) -> bool:
    rows = keyframes.selected
    in_range = ((rows >= 0) & (rows < n_frames)).all()
    return bool(in_range and (np.diff(rows, axis=1) > 0).all())
