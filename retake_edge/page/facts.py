"""A video that was read, and the answers about it, as plain values for the page to draw.

Values that say nothing (a track that is level) are None: the page leaves them out.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retake_edge.formats import clock
from retake_edge.page.words import left_out
from retake_edge.session.evidence import Floats, Span
from retake_edge.session.session import Session
from retake_edge.session.video_map import Ints, VideoMap, VideoStats

Thumbnail = tuple[float, bytes]
"""A time in seconds, and the small JPEG of the frame shown then."""

_LEVEL = 0.02
"""Least difference of a track's values that says something."""
_APART_S = 1.0
"""Least distance of spans, in seconds, to be told apart by m:ss."""


def kept_share(cell_frames: Ints, n_frames: int, n_cells_before: int) -> Floats:
    """Return the share of each grid frame's vision tokens that each layer keeps, f32 [n_layer, T].

    `cell_frames` int32 [n_layer, n_kept], -1 - frame for clock text, which always stays.
    """
    n_text = int((cell_frames[0] < 0).sum())
    per_frame = max(1.0, (n_cells_before - n_text) / n_frames)
    counts = [np.bincount(layer[layer >= 0], minlength=n_frames) for layer in cell_frames]
    return (np.stack(counts) / per_frame).astype(np.float32)


def video_facts(
    video: VideoStats,
    video_map: VideoMap,
    sampling: Mapping[str, Any],
    thumbnails: Sequence[Thumbnail],
    name: str = "",
) -> dict[str, Any]:
    """Return what the page shows of a video; `sampling`: that section of its configuration.

    `times_s`: when each grid frame begins, `kept` [T]: the share of it that was kept (mean over
    layers); `pictures`: (time, data address), in order of time.
    """
    times_s = video_map.frame_times_s
    start_s, end_s = part_of(video, times_s, sampling)
    kept = kept_share(video_map.cell_frames, len(times_s), video.n_cells_before).mean(axis=0)
    return {
        "name": name or Path(video.path).name,
        "duration_s": video.duration_s,
        "start_s": start_s,
        "end_s": end_s,
        "shape": _shape(thumbnails),
        "times_s": _rounded(times_s),
        "kept": _if_telling(np.minimum(kept, 1.0)) if video.reduced_by != "nothing" else None,
        "pictures": [[round(time_s, 3), data_address(jpeg)] for time_s, jpeg in thumbnails],
        "left_out": left_out(video, times_s, kept, start_s, end_s),
    }


def session_facts(session: Session, name: str = "") -> dict[str, Any]:
    """Return what the page shows of an open session."""
    sampling = session.config.to_dict()["sampling"]
    return video_facts(session.video, session.video_map, sampling, session.thumbnails, name)


def part_of(
    video: VideoStats, times_s: npt.NDArray[np.float64], sampling: Mapping[str, Any]
) -> tuple[float, float]:
    """Return the part of the video that was looked at, in seconds."""
    end_s = sampling["end_s"]
    last_s = video.duration_s if end_s is None else min(end_s, video.duration_s)
    return float(sampling["start_s"]), max(last_s, float(times_s[-1]) + 1e-3)


def answer_facts(
    question: str, text: str, spans: Sequence[Span], weights: Floats | None
) -> dict[str, Any]:
    """Return what the page shows of an answer; `weights` f32 [T]: where it looked."""
    return {
        "question": question,
        "text": text,
        "spans": span_facts(spans),
        "weights": None if weights is None else _rounded(weights),
    }


def span_facts(spans: Sequence[Span]) -> list[dict[str, Any]]:
    """Return spans, the heaviest first; those that would read as one are one."""
    merged: list[dict[str, Any]] = []
    for span in sorted(spans, key=lambda span: span.start_s):
        last = merged[-1] if merged else None
        if last is not None and span.start_s - last["end_s"] < _APART_S:
            last["end_s"] = max(last["end_s"], span.end_s)
            last["weight"] += span.weight
            continue
        merged.append({"start_s": span.start_s, "end_s": span.end_s, "weight": span.weight})
    for found in merged:
        first, last_shown = clock(found["start_s"]), clock(found["end_s"])
        found["label"] = first if first == last_shown else f"{first}-{last_shown}"
        found["weight"] = min(1.0, round(found["weight"], 4))
    return sorted(merged, key=lambda found: -found["weight"])


def data_address(jpeg: bytes) -> str:
    """Return a picture as an address that holds it."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")


def _shape(thumbnails: Sequence[Thumbnail]) -> list[int]:
    """Width and height of the pictures, [16, 9] if there are none."""
    import cv2

    if not thumbnails:
        return [16, 9]
    picture = cv2.imdecode(np.frombuffer(thumbnails[0][1], np.uint8), cv2.IMREAD_COLOR)
    return [16, 9] if picture is None else [picture.shape[1], picture.shape[0]]


def _if_telling(values: Floats) -> list[float] | None:
    """The values of a track, None if it is level."""
    return _rounded(values) if np.ptp(values) >= _LEVEL else None


def _rounded(values: npt.NDArray[Any]) -> list[float]:
    return [float(f"{value:.5g}") for value in values.tolist()]
