"""The frames of a second look: how many, how large, and from which times they may be."""

from __future__ import annotations

import math
from dataclasses import dataclass

from retake_edge.config import RetakeConfig
from retake_edge.models.manifest import ModelManifest
from retake_edge.video.read import VideoInfo
from retake_edge.video.sampling import SampleTimes, time_grid

TIMES_CLOSER = 4
"""Tokens a second of a second look, against the first reading's: more frames, or larger ones."""


@dataclass(frozen=True)
class CloserFrames:
    """The frames that a second look can take of a video.

    At the times `every`, before `end_s`; `size_px`: (width, height); `n_tokens`: vision tokens of
    each. `are_larger`, `are_denser`: than those of the first reading.
    """

    every: SampleTimes
    end_s: float
    size_px: tuple[int, int]
    n_tokens: int
    are_larger: bool
    are_denser: bool


def look_frames(manifest: ModelManifest, settings: RetakeConfig) -> int:
    """Return the most frames of a second look, whole grid frames; 0 for none."""
    asked, step = settings.look.frames, manifest.frames.frames_per_step
    n = manifest.look_again if asked is None else asked
    return max(n // step, 1) * step if n else 0


def look_size(manifest: ModelManifest, n_frames: int, video: VideoInfo) -> tuple[int, int]:
    """Return (width, height) in pixels of the frames of a second look: the model's full size.

    That of a video of so few frames, whatever the first reading's frames were capped at.
    """
    return manifest.frames.frame_size(video.width_px, video.height_px, max(1, n_frames))


def closer_frames(
    manifest: ModelManifest, config: RetakeConfig, video: VideoInfo, first: SampleTimes
) -> CloserFrames:
    """Return what a second look can take of a video, of which the first reading took `first`."""
    sampling, rule = config.sampling, manifest.frames
    size_px = look_size(manifest, look_frames(manifest, config), video)
    n_tokens = rule.n_vision_tokens(*size_px)
    first_px = rule.frame_size(video.width_px, video.height_px, first.n, sampling.long_side_px)
    n_tokens_first = rule.n_vision_tokens(*first_px)
    times_denser = max(1.0, TIMES_CLOSER * n_tokens_first / n_tokens)
    start_s, step_s, _ = time_grid(
        video.duration_s,
        fps=sampling.fps or manifest.fps,
        max_frames=sampling.max_frames or manifest.max_frames,
        start_s=sampling.start_s,
        end_s=sampling.end_s,
        first_s=video.first_s,
    )
    end_s = min(sampling.end_s or video.duration_s, video.duration_s)
    step_s /= times_denser
    positions = manifest.positions
    if positions.kind in ("mrope-time", "mrope-clock"):  # two moments need two positions
        step_s = max(step_s, 1 / (positions.positions_per_second * rule.frames_per_step))
    step_s = max(step_s, video.frame_s)
    n = max(0, math.ceil((end_s - start_s) / step_s - 1e-6))
    return CloserFrames(
        SampleTimes(start_s, step_s, n),
        end_s,
        size_px,
        n_tokens,
        are_larger=n_tokens > n_tokens_first,
        are_denser=times_denser > 1,
    )
