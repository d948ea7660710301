"""Say in plain words what the model did not see of a video, or did not keep."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from retake_edge.formats import clock, spoken_seconds
from retake_edge.session.evidence import Doubles, Floats
from retake_edge.session.video_map import VideoStats

_MOST_GAPS = 3
_LEAST_GAP = 3  # frames
_SHARES = {0.5: "half", 0.25: "a quarter", 0.125: "an eighth", 0.75: "three quarters"}


def left_out(
    video: VideoStats, times_s: Doubles, kept: Floats, start_s: float, end_s: float
) -> list[str]:
    """Return sentences; `kept` f32 [T]: the share of each grid frame that was kept."""
    words = []
    if start_s > 0 or end_s < video.duration_s - 1:
        words.append(f"Only the part from {clock(start_s)} to {clock(end_s)} was read.")
    step_s = (end_s - start_s) / max(1, video.n_frames)
    if video.n_frames > 1:
        step = spoken_seconds(step_s)
        step += " on average, oftener where it changed," if video.sampling == "change" else ","
        words.append(
            f"A picture was taken every {step} {video.n_frames:,} in all; what is shorter may be "
            "missed."
        )
    if video.n_still:
        still = share(video.n_still / video.n_grid_frames)
        words.append(f"What stood still was read once: {still} of the pictures showed nothing new.")
    words += _dropped(video)
    if video.reduced_by != "nothing":
        words += _gaps(times_s, kept, end_s)
    return [*words, "Sound and subtitles were not used."]


def share(ratio: float) -> str:
    """Return a share as people say it: a quarter, 12 %."""
    for value, word in _SHARES.items():
        if math.isclose(ratio, value, rel_tol=0.02):
            return word
    percent = 100 * ratio
    return f"{percent:.0f} %" if percent >= 1 else f"{percent:.1g} %"


def _dropped(video: VideoStats) -> list[str]:
    if video.reduced_by == "frames":
        why = f", since {video.not_compressible}" if video.not_compressible else ""
        return [
            f"{share(video.keep_ratio).capitalize()} of the pictures was used, the ones that "
            f"differ most; the others were left out{why}."
        ]
    if video.reduced_by == "nothing" or video.n_cells_kept >= video.n_cells_before:
        return ["Of what the model saw, nothing was dropped."]
    words = [
        f"To save memory, {share(video.keep_ratio)} of the details that the model saw was kept; "
        "the others were dropped."
    ]
    if video.guide:
        words.append(f"What was kept was chosen for one question: {video.guide}")
    return words


def _gaps(times_s: Doubles, kept: Floats, end_s: float) -> list[str]:
    """The longest stretches of which nothing is left."""
    ends = np.append(times_s[1:], end_s)
    found = sorted(_empty_runs(kept <= 0), key=lambda run: run[0] - run[1])[:_MOST_GAPS]
    told = [f"{clock(times_s[a])} to {clock(ends[b])}" for a, b in sorted(found)]
    return [f"Nothing is left of {_listed(told)}."] if told else []


def _empty_runs(is_empty: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """First and last index of each run that is long enough to be told."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], is_empty, [False]]).astype(np.int8)))
    runs = zip(edges[::2].tolist(), (edges[1::2] - 1).tolist(), strict=True)
    return [(first, last) for first, last in runs if last - first + 1 >= _LEAST_GAP]


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
