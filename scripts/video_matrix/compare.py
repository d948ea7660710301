"""Compare our reader with the truth that was drawn and with ffmpeg, for one file.

What is sampled far apart is also scaled down. Tolerances, and why:
- A time t may show the frame of any time from t to t + half a frame, 0.05 s at most: time bases
  round (1/1000 in Matroska, 1/90000 in MPEG), and to a person so little is the same picture.
- Where sound begins a little before the picture, or a container keeps no presentation times (AVI,
  bare streams), ffmpeg's first picture comes up to 0.13 s late; both clocks are accepted.
- Lengths agree to one frame and 0.05 s: containers round, and most do not store how long the
  last frame lasts.
- PSNR against ffmpeg's picture at least 32 dB: another rounding of the same conversion is above
  40 dB, a wrong colour matrix or range, field order, frame or crop is below 30.
- A deinterlacer is free in what it makes of moving lines: 24 dB and no combing there, and a number
  may be its neighbour's (the other field).
"""

from __future__ import annotations

import math
import statistics
import warnings
from bisect import bisect_right
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from retake_edge.errors import VideoError
from retake_edge.video.read import VideoInfo, sample_frames
from video_matrix import picture as pictures
from video_matrix.case import Case, Truth
from video_matrix.picture import Picture
from video_matrix.reference import Reference, decode

MAX_COMPARED_PX = 200  # larger pictures are compared scaled down
MAX_SMALL_PX = 400  # the longer side of what both scale down
COMBED = 40.0
MAX_SLACK_S = 0.05
MAX_LEAD_S = 0.13
DAMAGED_PSNR_DB = 24.0
DENSE_FPS, N_SPARSE = 5.0, 2


@dataclass(frozen=True)
class Seen:
    """What our reader gives: pictures with the times at which they are shown."""

    info: VideoInfo
    shown: list[tuple[float, Picture]]
    step_s: float
    said: list[str]


@dataclass(frozen=True)
class Verdict:
    """One row of the table; `faults` is empty where all agrees."""

    name: str
    faults: list[str]
    n_pictures: int = 0
    lowest_psnr_db: float | None = None
    length_s: float | None = None
    size: str = ""

    def row(self) -> dict[str, object]:
        return asdict(self)


def look(path: Path, fps: float, start_s: float = 0.0, size: tuple[int, int] | None = None) -> Seen:
    """Sample `path` with our reader, in its own size where no other is given."""
    infos: list[VideoInfo] = []
    shown: list[tuple[float, Picture]] = []
    step_s = 0.0
    given: dict[str, Any] = {"fps": fps, "start_s": start_s, "target_size": size}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for batch in sample_frames(path, **given, on_info=infos.append):
            step_s = batch.step_s
            shown += [
                (float(t), frame) for t, frame in zip(batch.times_s, batch.frames, strict=True)
            ]
    return Seen(infos[0], shown, step_s, [str(w.message) for w in caught])


def compare(one: Case, path: Path) -> Verdict:
    """Compare one made file: dense samples, then far apart ones, which seek."""
    if "refused" in one.mark:
        return refused(one, path)
    length_s = one.truth.end_s
    dense_fps = min(DENSE_FPS, 40 / length_s) if length_s > 8 else DENSE_FPS
    try:
        dense = look(path, dense_fps)
    except VideoError as error:
        return Verdict(one.name, [f"not read: {error}"])
    size = compared_size(dense.info)
    found = decode(path, *size, deinterlace="interlaced" in one.mark)
    lead_s = found.times_s[0] - one.truth.starts_s[0]
    lead_s = lead_s if "wild" not in one.mark and abs(lead_s) <= MAX_LEAD_S else 0.0
    truth, faults = best_clock(one, dense, lead_s, 0.0, dense_fps)
    quality, against = check_pictures(one, dense, found, truth)
    faults = [*check_info(one, dense.info), *check_said(one, dense), *faults]
    faults += [*check_length(one, dense.info, found, truth), *against]
    if length_s >= 2 and "damaged" not in one.mark:
        start_s, sparse_fps = 0.3 * length_s, N_SPARSE / (0.7 * length_s)
        try:
            small = smaller_size(dense.info)
            sparse = look(path, sparse_fps, start_s, small)
        except VideoError as error:
            return Verdict(one.name, [*faults, f"far apart: not read: {error}"])
        far = check_times(one, truth, sparse, start_s, sparse_fps)
        found = decode(path, *small, deinterlace="interlaced" in one.mark)
        lower, against = check_pictures(one, sparse, found, truth)
        quality = min(quality, lower)
        faults += [f"far apart and small: {fault}" for fault in (*far, *against)]
    info = dense.info
    return Verdict(
        one.name,
        faults,
        len(dense.shown),
        round(quality, 1),
        round(info.duration_s, 3),
        f"{info.width_px}x{info.height_px}",
    )


def best_clock(
    one: Case, seen: Seen, lead_s: float, start_s: float, fps: float
) -> tuple[Truth, list[str]]:
    """Return the drawn truth on the clock that fits, and what is wrong on that clock.

    Where sound begins first, or a container keeps decoding times alone, ffmpeg's first picture is
    a few frames late; a reader may say so, too, or begin at 0, but not both in one file.
    """
    clocks = [one.truth, delayed(one.truth, lead_s)] if lead_s else [one.truth]
    found = [(truth, check_times(one, truth, seen, start_s, fps)) for truth in clocks]
    return min(found, key=lambda pair: len(pair[1]))


def delayed(truth: Truth, by_s: float) -> Truth:
    """Return `truth` with every picture `by_s` later."""
    return replace(
        truth, starts_s=tuple(t + by_s for t in truth.starts_s), end_s=truth.end_s + by_s
    )


def refused(one: Case, path: Path) -> Verdict:
    """Check that a file without a film is refused in a sentence."""
    try:
        seen = look(path, 1.0)
    except VideoError:
        return Verdict(one.name, [])
    return Verdict(one.name, [f"{len(seen.shown)} pictures shown, but there is no film in it"])


def frame_s(truth: Truth) -> float:
    """Return the usual distance of two frames."""
    gaps = [b - a for a, b in zip(truth.starts_s, truth.starts_s[1:], strict=False)]
    return statistics.median(gaps) if gaps else truth.end_s - truth.starts_s[0]


def slack_s(usual_s: float) -> float:
    """Return how much later than a time its picture may begin."""
    return min(usual_s / 2, MAX_SLACK_S)


def check_info(one: Case, info: VideoInfo) -> list[str]:
    """Compare length and shape with the truth."""
    faults = []
    length_slack_s = frame_s(one.truth) + 0.05
    if "damaged" in one.mark:
        length_slack_s += 0.3
    known = not one.mark & {"still", "length"}
    if known and abs(info.duration_s - one.truth.end_s) > length_slack_s:
        faults.append(f"length {info.duration_s:.3f} s, not {one.truth.end_s:.3f}")
    aspect = info.width_px / info.height_px
    if abs(aspect / one.truth.aspect - 1) > 0.02:
        faults.append(f"shape {info.width_px}x{info.height_px}, not {one.truth.aspect:.3f}")
    return faults


def check_said(one: Case, seen: Seen) -> list[str]:
    """A healthy file gives no warning."""
    if "damaged" in one.mark:
        return []
    return [f"warned: {text}" for text in seen.said]


def expected(truth: Truth, time_s: float) -> set[int]:
    """Return the numbers that may be on screen at a sampled time."""
    half_s = slack_s(frame_s(truth))
    allowed = set()
    for t in (time_s - 0.003, time_s, time_s + half_s):
        k = max(0, bisect_right(truth.starts_s, t + 1e-6) - 1)
        allowed.add(truth.numbers[k])
    return allowed


def check_times(one: Case, truth: Truth, seen: Seen, start_s: float, fps: float) -> list[str]:
    """Compare each picture's number, read off it, with the one shown then, and look for gaps."""
    faults: list[str] = []
    half_s = slack_s(frame_s(truth))
    times_s = [t for t, _ in seen.shown]
    for time_s, frame in seen.shown:
        corners = pictures.read_corners(frame, "gray" in one.mark)
        if corners != truth.corners and "damaged" not in one.mark:
            return [*faults, f"corners {corners} at {time_s:.3f} s"]
        number = pictures.read_number(pictures.upright(frame, truth.corners))
        allowed = expected(truth, time_s)
        if min(abs(number - a) for a in allowed) > one.blur:
            faults.append(f"{time_s:.3f} s shows {number}, not {sorted(allowed)}")
        if time_s < truth.starts_s[0] - half_s - 0.003:
            faults.append(f"{time_s:.3f} s is before the first picture")
        if "interlaced" in one.mark and pictures.combing(frame) > COMBED:
            faults.append(f"{time_s:.3f} s is combed")
    if "damaged" in one.mark:
        return []
    faults += unserved(truth, times_s, start_s, fps)
    return faults[:4]


def unserved(truth: Truth, times_s: list[float], start_s: float, fps: float) -> list[str]:
    """Name the wanted times at which a picture is on screen and none was given."""
    faults = []
    half_s = slack_s(frame_s(truth))
    for k in range(math.ceil((truth.end_s - half_s - start_s) * fps)):
        wanted_s = start_s + k / fps
        if wanted_s < truth.starts_s[0]:
            continue
        on_screen_s = truth.starts_s[bisect_right(truth.starts_s, wanted_s) - 1]
        # One that is held is given again: within the step before each wanted time.
        on_screen_s = max(on_screen_s, wanted_s - 1 / fps)
        if not any(on_screen_s - 0.01 <= t <= wanted_s + half_s + 0.003 for t in times_s):
            faults.append(f"no picture for {wanted_s:.3f} s")
    return faults


def compared_size(info: VideoInfo) -> tuple[int, int]:
    """Return the size at which pictures are compared with ffmpeg's."""
    scale = min(1.0, MAX_COMPARED_PX / max(info.width_px, info.height_px))
    return max(1, round(info.width_px * scale)), max(1, round(info.height_px * scale))


def smaller_size(info: VideoInfo) -> tuple[int, int]:
    """Return the size to which pictures are scaled down by both."""
    times = max(2, math.ceil(max(info.width_px, info.height_px) / MAX_SMALL_PX))
    return max(1, info.width_px // times), max(1, info.height_px // times)


def lead_of(found: Reference, truth: Truth) -> float:
    """Return how much later than the drawn truth ffmpeg's first picture comes."""
    lead_s = found.times_s[0] - truth.starts_s[0]
    return lead_s if abs(lead_s) <= MAX_LEAD_S else 0.0


def usual_s(found: Reference) -> float:
    """Return the usual distance of two of ffmpeg's frames."""
    gaps = np.diff(found.times_s)
    return float(np.median(gaps)) if len(gaps) else 0.04


def check_length(one: Case, info: VideoInfo, found: Reference, truth: Truth) -> list[str]:
    """Compare the length with ffmpeg's."""
    if one.mark & {"wild", "still"}:
        return []
    length_slack_s = usual_s(found) + 0.05 + (0.3 if "damaged" in one.mark else 0.0)
    end_s = max(found.end_s, found.times_s[-1] + usual_s(found)) - lead_of(found, truth)
    if abs(info.duration_s - end_s) <= length_slack_s:
        return []
    return [f"length {info.duration_s:.3f} s, ffmpeg's {end_s:.3f}"]


def check_pictures(
    one: Case, seen: Seen, found: Reference, truth: Truth
) -> tuple[float, list[str]]:
    """Return the lowest likeness to ffmpeg's pictures, and those that are not like them."""
    faults: list[str] = []
    lowest = 99.0
    if "wild" in one.mark:
        return lowest, faults
    n_hurt = 0
    for own_s, frame in seen.shown:
        time_s, best = own_s + lead_of(found, truth), -1.0
        size = found.frames.shape[2:0:-1]
        small = frame
        if frame.shape[1::-1] != size:
            small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
        for t in (time_s - 0.003, time_s, time_s + slack_s(usual_s(found))):
            k = max(0, bisect_right(found.times_s, t + 1e-6) - 1)
            best = max(best, pictures.psnr(small, found.frames[k]))
        lowest = min(lowest, best)
        limit = 24.0 if "interlaced" in one.mark else one.min_psnr_db
        n_hurt += best < DAMAGED_PSNR_DB
        if best < limit and "damaged" not in one.mark and "hdr" not in one.mark:
            faults.append(f"{time_s:.3f} s is {best:.1f} dB from ffmpeg's picture")
    if "damaged" in one.mark and n_hurt > 0.4 * len(seen.shown):
        faults.append(f"{n_hurt} of {len(seen.shown)} pictures are not ffmpeg's")
    return lowest, faults[:4]
