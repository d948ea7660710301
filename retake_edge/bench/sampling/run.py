"""Count the brief events of long videos that at least one sampled frame shows; no model is used.

Every scene is written with every encoder, since the sizes of packets are what sampling follows.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from retake_edge.bench.sampling.files import ENCODINGS, write_files
from retake_edge.bench.scenes.events import EVENT_KINDS, GRID, make_event_scene
from retake_edge.bench.scenes.scene import Card, Scene
from retake_edge.config import SAMPLINGS
from retake_edge.errors import ConfigError
from retake_edge.video.read import probe_video
from retake_edge.video.sampling import SampleTimes, sample_times

_SEED_STRIDE = 1_000_003
_SLACK_S = 0.02  # a picture that begins this much later serves a time (video.worker)


@dataclass(frozen=True)
class SamplingSettings:
    """Settings of a run: `n_videos` of `seconds` of each kind, with `n_events` of `event_s`.

    `limits`: the most frames; `frames_per_step`: frames that a model joins; `fps`: its rate.
    """

    seed: int = 0
    n_videos: int = 1
    seconds: float = 7200.0
    n_events: int = 48
    event_s: float = 1.0
    limits: tuple[int, ...] = (512, 2048)
    kinds: tuple[str, ...] = EVENT_KINDS
    encodings: tuple[str, ...] = tuple(ENCODINGS)
    frames_per_step: int = 2
    fps: float = 2.0
    size_px: int = 64

    def __post_init__(self) -> None:
        if min(self.n_videos, self.n_events, *self.limits, self.frames_per_step) < 1:
            raise ConfigError("--videos, --events and --max-frames must be at least 1.")
        if unknown := sorted(set(self.kinds) - set(EVENT_KINDS)):
            raise ConfigError(f"--kinds has {unknown[0]!r}; there are {', '.join(EVENT_KINDS)}.")
        if unknown := sorted(set(self.encodings) - set(ENCODINGS)):
            raise ConfigError(f"--encodings has {unknown[0]!r}; there are {', '.join(ENCODINGS)}.")


@dataclass(frozen=True)
class Counted:
    """Events of one file that a sampling shows within a limit.

    `n_shown` of `n_events` are in any frame; `n_frames` taken; `gap_s`: the longest stretch without
    one.
    """

    kind: str
    encoding: str
    limit: int
    sampling: str
    video: int
    n_shown: int
    n_events: int
    n_frames: int
    gap_s: float


def run_sampling(
    settings: SamplingSettings,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> list[Counted]:
    """Write every video, and count what each sampling shows of it.

    Raises:
        VideoError: an encoder is missing.
    """
    tasks = [(kind, i) for kind in settings.kinds for i in range(settings.n_videos)]
    found: list[Counted] = []
    progress("videos", 0, len(tasks))
    with ProcessPoolExecutor(min(len(tasks), os.cpu_count() or 1), get_context("spawn")) as pool:
        for n, counted in enumerate(pool.map(partial(_tried, settings), *zip(*tasks, strict=True))):
            found += counted
            progress("videos", n + 1, len(tasks))
    return found


def _tried(settings: SamplingSettings, kind: str, index: int) -> list[Counted]:
    """Every file of one video, in a process of its own."""
    scene = event_scene(settings, kind, index)
    with TemporaryDirectory() as folder:
        files = write_files(scene, Path(folder), settings.encodings, GRID, settings.size_px)
        return [
            one
            for encoding, path in files.items()
            for one in _counted(path, scene, settings, kind, encoding, index)
        ]


def event_scene(settings: SamplingSettings, kind: str, index: int) -> Scene:
    """Return the `index`-th video of a kind."""
    seed = settings.seed * _SEED_STRIDE + index
    return make_event_scene(kind, seed, settings.seconds, settings.n_events, settings.event_s)


def _counted(
    path: Path, scene: Scene, settings: SamplingSettings, kind: str, encoding: str, index: int
) -> list[Counted]:
    info = probe_video(path)
    found = []
    for limit in settings.limits:
        for sampling in SAMPLINGS:
            wanted = sample_times(
                info,
                fps=settings.fps,
                max_frames=limit,
                sampling=sampling,
                frames_per_step=settings.frames_per_step,
            )
            n_shown = n_events_shown(scene.cards, wanted)
            edges = np.concatenate([wanted.all_s, [info.duration_s]])
            gap_s = round(float(np.diff(edges).max()), 3)
            case = kind, encoding, limit, sampling, index
            found.append(Counted(*case, n_shown, len(scene.cards), wanted.n, gap_s))
    return found


def n_events_shown(cards: Sequence[Card], wanted: SampleTimes) -> int:
    """Return how many cards are on the picture that any wanted time gets."""
    pictures_s = np.floor((wanted.all_s + _SLACK_S) * GRID + 1e-6) / GRID
    starts = np.searchsorted(pictures_s, [card.start_s - 1e-6 for card in cards])
    ends = np.searchsorted(pictures_s, [card.end_s - 1e-6 for card in cards])
    return int((ends > starts).sum())
