"""Read a video file: probe it and sample its frames by time, in a process apart.

Decoders run on whatever a user downloads, so FFmpeg runs in `retake_edge.video.worker` under
limits on memory, pixels and time without progress; whatever happens there, the caller gets frames
or one VideoError. Frames are streamed in batches: memory does not grow with the video's length.

The clock: second 0 is the container's start, as players count, whatever its own time stamps start
with. A picture that begins after the sound has its time after that.
"""

from __future__ import annotations

import logging
import math
import os
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retake_edge.config import SAMPLINGS
from retake_edge.errors import ConfigError, VideoError, VideoRangeError
from retake_edge.formats import told_apart
from retake_edge.video.frame_size import SizeRule
from retake_edge.video.glance import SEEN_PX, SIDE_PX, Glanced, Moment
from retake_edge.video.packets import Packets
from retake_edge.video.path import check_path
from retake_edge.video.process import DecoderProcess, VideoLimits
from retake_edge.video.resample import FILTERS
from retake_edge.video.sampling import SampleTimes, sample_times

FITS = ("stretch", "pad")
RESAMPLES = ("area", *FILTERS)

GlancedAt = Callable[["VideoInfo", SampleTimes], SampleTimes]
"""Says which frames of a video are glanced at, for those that are sampled."""

log = logging.getLogger(__name__)


class VideoWarning(UserWarning):
    """Part of the video could not be read; what was read is used. The message is one sentence."""


@dataclass(frozen=True)
class VideoInfo:
    """The content of a video file, read off its packets, not only its header.

    `width_px`, `height_px`: as shown, upright and with square pixels.
    `rotation_deg`: clockwise turn that the file asks for (already applied to frames).
    `duration_s`: from second 0 to the end of the last frame. `n_frames`: frames shown.
    `codec`: FFmpeg's name of it. `fps_nominal`: the header's rate; frames may
    come at any distance. `frame_s`: median distance of two frames.
    `missing_s`: seconds that the header announces beyond the last frame (a file cut short).
    `first_s`: when the first frame is shown; sound may begin before it. `is_scene`: whether the
    file says that `retake-edge scene` rendered it. `n_unread`: joined recordings that cannot be
    read. `packets`: their sizes and key frames; no part of what is compared or told.
    """

    path: Path
    width_px: int
    height_px: int
    rotation_deg: int
    duration_s: float
    n_frames: int
    codec: str
    fps_nominal: float
    frame_s: float
    missing_s: float
    first_s: float = 0.0
    is_scene: bool = False
    n_unread: int = 0
    packets: Packets | None = field(default=None, compare=False, repr=False)

    @property
    def is_truncated(self) -> bool:
        """True if more than a second (and 2 %) is missing: headers round, and sound runs longer."""
        return self.missing_s > max(1.0, 0.02 * self.duration_s)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON, without the packets."""
        values = asdict(replace(self, packets=None))
        del values["packets"]
        return {**values, "path": str(self.path)}


@dataclass(frozen=True)
class FrameBatch:
    """Consecutive sampled frames.

    `seconds`: those that decoding and scaling have taken up to here, beside the caller, by stage.
    `frames`: uint8 (B, H, W, 3), RGB. `times_s`: float64 (B,), the time from which each frame is
    shown, strictly increasing over the whole video. `step_s`: seconds between two sampled times,
    0 where they are not even.
    """

    frames: npt.NDArray[np.uint8]
    times_s: npt.NDArray[np.float64]
    step_s: float
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class End:
    """What there was: wanted times with a frame and without one, and what a glance found."""

    n_given: int
    n_missed: int
    glanced: Glanced | None


@dataclass(frozen=True)
class OpenVideo:
    """A video of which frames are taken, part after part, while its decoder process runs."""

    info: VideoInfo
    limits: VideoLimits
    decoder: DecoderProcess

    def glance(self, first: SampleTimes, every: SampleTimes) -> Glanced:
        """Glance at the times of `every`, for what the frames at the times `first` do not show.

        Raises:
            VideoError: decoding failed.
        """
        nothing = _asked(replace(first, n=0, times_s=()), SIDE_PX, SIDE_PX)
        self.decoder.send({**nothing, "batch_frames": 1, "glance": _glanced_at(first, every)})
        return _glanced(*self.decoder.receive())

    def frames(
        self,
        wanted: SampleTimes,
        target_size: SizeRule | tuple[int, int] | None,
        *,
        fit: str = "stretch",
        resample: str = "area",
        via_px: int | None = None,
        batch_frames: int = 64,
        after_s: float | None = None,
        glance: SampleTimes | None = None,
    ) -> Generator[FrameBatch, None, End]:
        """Yield the frames shown at the wanted times, with the arguments of `sample_frames`.

        There may be fewer, or none: where the video ends, or has fewer frames a second. All must be
        taken before others are asked for. `glance`: times at which to glance, too. Returns what
        there was.

        Raises:
            VideoError: decoding failed. ConfigError: the size is out of range.
        """
        width, height = resolve_size(self.info, wanted.n, target_size, self.limits)
        plan = _asked(wanted, width, height, fit, resample, via_px, after_s)
        small = None if glance is None else _glanced_at(wanted, glance)
        self.decoder.send({**plan, "batch_frames": batch_frames, "glance": small})
        while True:
            message, raw = self.decoder.receive()
            if message["kind"] == "end":
                glanced = _glanced(message, raw) if glance else None
                return End(message["n_given"], message["n_missed"], glanced)
            frames = np.frombuffer(raw, np.uint8).reshape(message["shape"])
            times_s = np.asarray(message["times_s"], np.float64)
            yield FrameBatch(frames, times_s, wanted.even_step_s, message["seconds"])


def _asked(
    wanted: SampleTimes,
    width_px: int,
    height_px: int,
    fit: str = "stretch",
    resample: str = "area",
    via_px: int | None = None,
    after_s: float | None = None,
) -> dict[str, Any]:
    """The pictures that the worker is asked for."""
    size = {"width_px": width_px, "height_px": height_px, "fit": fit}
    return {**asdict(wanted), **size, "resample": resample, "via_px": via_px, "after_s": after_s}


def _glanced_at(first: SampleTimes, every: SampleTimes) -> dict[str, Any]:
    """What the worker is to glance at, for what the frames at the times `first` do not show."""
    return {**_asked(every, SIDE_PX, SIDE_PX), "seen_s": first.all_s.tolist()}


def _glanced(message: dict[str, Any], raw: bytearray) -> Glanced:
    """What the worker has found."""
    return Glanced(
        [Moment(*row) for row in message["moments"]],
        np.asarray(message["seen_s"], np.float64),
        np.frombuffer(raw, np.uint8).reshape(-1, SEEN_PX, SEEN_PX, 3),
    )


@contextmanager
def open_video(
    path: str | os.PathLike[str], limits: VideoLimits | None = None
) -> Iterator[OpenVideo]:
    """Read what `path` holds: every packet is read (one pass over the file), one frame decoded.

    Raises:
        VideoError: there is no such file, it is no video, or nothing in it can be decoded.
    """
    limits = limits or VideoLimits()
    file = check_path(path)
    with DecoderProcess(file, limits) as decoder:
        message, raw = decoder.receive()
        del message["kind"]
        info = VideoInfo(path=file, packets=Packets.from_bytes(raw), **message)
        yield OpenVideo(info, limits, decoder)


def check_part(info: VideoInfo, start_s: float, end_s: float | None) -> None:
    """Check that there is a picture between two times.

    Raises:
        VideoError: the video ends before, or its first picture comes after.
    """
    if start_s >= info.duration_s:
        start, end = told_apart(start_s, info.duration_s)
        raise VideoRangeError(
            f"Cannot start {info.path} at {start}: the video is {end} long; choose an earlier "
            "start."
        )
    if end_s is not None and end_s <= info.first_s:
        end, first = told_apart(end_s, info.first_s)
        raise VideoRangeError(
            f"{info.path} shows no picture before {first}; choose a later end than {end}."
        )


def probe_video(path: str | os.PathLike[str], limits: VideoLimits | None = None) -> VideoInfo:
    """Return what `path` holds, as `open_video` finds it."""
    with open_video(path, limits) as video:
        return video.info


def sample_frames(
    path: str | os.PathLike[str],
    *,
    fps: float,
    max_frames: int | None = None,
    start_s: float = 0.0,
    end_s: float | None = None,
    target_size: SizeRule | tuple[int, int] | None = None,
    fit: str = "stretch",
    resample: str = "area",
    via_px: int | None = None,
    batch_frames: int = 16,
    after_s: float | None = None,
    sampling: str = "even",
    frames_per_step: int = 1,
    limits: VideoLimits | None = None,
    on_info: Callable[[VideoInfo], None] | None = None,
    glance: GlancedAt | None = None,
    on_end: Callable[[End], None] | None = None,
) -> Iterator[FrameBatch]:
    """Yield the frames that are shown at the sampled times, as batches of at most `batch_frames`.

    A time is served by the frame that is on screen then, or that begins a moment later (half a
    frame, 0.02 s at most). A frame that is held over several times comes at each of them; with
    fps above the video's own, every frame comes once. Where fps would give more than `max_frames`,
    times spread over [start_s, end_s): evenly, or with `sampling` "change" more often where the
    video changes, in groups of `frames_per_step` (`retake_edge.video.sampling`).

    `target_size` is (width, height), a function from the video's (width, height) and the number of
    sampled times to it, or None for the video's own; `fit` is "stretch" (to that size) or "pad"
    (keep the shape, black bars); `resample` is "area" or a filter of `retake_edge.video.resample`.
    `via_px`: with a filter, the longer side of a first step, in the frame's own shape.
    `after_s`: go on after the frame of that time, which an earlier call with the same arguments
    yielded; then there may be no frame left.
    `on_info` is called once, before the first batch, `on_end` after the last one. `glance` says
    when to glance at the video, too (`End`); there is none where `after_s` is given. Arguments are
    checked at the call, the file when the first batch is asked for. The decoder process ends with
    the iterator, also when that is closed early.

    Warns:
        VideoWarning: the file is cut short or damaged, and only a part was read.

    Raises:
        ConfigError: an argument is out of range.
        VideoError: the file cannot be read, nothing decodes, or start_s is beyond the end.
    """
    check_sampling(fps, max_frames, start_s, end_s, fit, resample, batch_frames, sampling)

    def batches() -> Iterator[FrameBatch]:
        with open_video(path, limits) as video:
            if on_info is not None:
                on_info(video.info)
            check_part(video.info, start_s, end_s)
            wanted = sample_times(
                video.info,
                fps=fps,
                max_frames=max_frames,
                start_s=start_s,
                end_s=end_s,
                sampling=sampling,
                frames_per_step=frames_per_step,
            )
            end = yield from video.frames(
                wanted,
                target_size,
                fit=fit,
                resample=resample,
                via_px=via_px,
                batch_frames=batch_frames,
                after_s=after_s,
                glance=glance(video.info, wanted) if glance and after_s is None else None,
            )
            if not end.n_given and after_s is None:
                raise VideoError(
                    f"No frame of {video.info.path} could be decoded between the start and end "
                    "asked for; re-encode it, or choose another part."
                )
            if on_end is not None:
                on_end(end)
            warn_if_incomplete(video.info, wanted.n, end.n_missed)

    return batches()


def check_sampling(
    fps: float,
    max_frames: int | None,
    start_s: float,
    end_s: float | None,
    fit: str,
    resample: str,
    batch_frames: int,
    sampling: str = "even",
) -> None:
    """Raise ConfigError for the first argument that is out of range."""
    checks: list[tuple[bool, str, object, str]] = [
        (0 < fps < math.inf, "fps", fps, "above 0"),
        (max_frames is None or max_frames >= 1, "max_frames", max_frames, "at least 1"),
        (0 <= start_s < math.inf, "start_s", start_s, "0 or more"),
        (end_s is None or end_s > start_s, "end_s", end_s, f"after start_s ({start_s:g})"),
        (fit in FITS, "fit", fit, f"one of {', '.join(FITS)}"),
        (resample in RESAMPLES, "resample", resample, f"one of {', '.join(RESAMPLES)}"),
        (batch_frames >= 1, "batch_frames", batch_frames, "at least 1"),
        (sampling in SAMPLINGS, "sampling", sampling, f"one of {', '.join(SAMPLINGS)}"),
    ]
    for ok, name, value, must in checks:
        if not ok:
            raise ConfigError(f"{name} is {value!r}, but it must be {must}.")


def resolve_size(
    info: VideoInfo,
    n_frames: int,
    target_size: SizeRule | tuple[int, int] | None,
    limits: VideoLimits,
) -> tuple[int, int]:
    """Return the (width, height) of the `n_frames` frames to yield.

    Raises:
        ConfigError: a side is below 1, or the area is above the pixel limit.
    """
    if target_size is None:
        return info.width_px, info.height_px
    if callable(target_size):
        width, height = target_size(info.width_px, info.height_px, n_frames)
    else:
        width, height = target_size
    if width < 1 or height < 1 or width * height > limits.max_pixels:
        raise ConfigError(
            f"The frame size {width}x{height} is out of range: both sides must be at least 1, "
            f"their product at most {limits.max_pixels}."
        )
    return int(width), int(height)


def warn_if_incomplete(info: VideoInfo, n: int, n_missed: int) -> None:
    """Warn of sampled times without a decodable frame, or of a file that stops early."""
    if n_missed:
        text = (
            f"{info.path}: {n_missed} of {n} sampled times have no decodable frame; "
            "the file is damaged or cut short."
        )
    elif info.is_truncated:
        text = (
            f"{info.path}: the pictures stop at {info.duration_s:.2f} s, "
            f"{info.missing_s:.2f} s before the end that the file announces; it may be cut short."
        )
    elif info.n_unread:
        text = (
            f"{info.path} holds several recordings, and {info.n_unread} of them cannot be read; "
            "they are left out."
        )
    else:
        return
    warnings.warn(text, VideoWarning, stacklevel=3)
