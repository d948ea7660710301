"""The benchmark's videos: scenes from a seed, and their features, encoded once for all policies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from retake_edge.bench.scenes.footage import make_footage
from retake_edge.bench.scenes.questions import HELD_TEMPLATES, KINDS, Question, make_questions
from retake_edge.bench.scenes.render import render_frame
from retake_edge.bench.scenes.scene import Scene, make_scene
from retake_edge.models.manifest import ModelManifest
from retake_edge.vision.encoder import VisionEncoder, VisionFeatures

RENDER_PX = 224
_BATCH_FRAMES = 16
_MAX_CARDS = 6
_SECONDS_PER_CARD = 6

GROUPS = {
    "needle": ("number",),
    "when": ("when_card", "when_object"),
    "order": ("order", "first_card", "last_card", "first_object", "last_object", "count"),
    "still": tuple(HELD_TEMPLATES),
}
"""Question kinds by what they test; all others are 'other'."""

TURNS = ("number", "when_card", "number", "when_object", "number", "when_card", "number", *KINDS)
"""Question kinds in the order in which a video's are drawn."""
QUESTIONS_PER_VIDEO = len(TURNS)
STILL_TURNS = (*HELD_TEMPLATES, *TURNS[: QUESTIONS_PER_VIDEO - len(HELD_TEMPLATES)])
"""The same of footage that stands still."""


def group(kind: str) -> str:
    """Return the group of a question kind."""
    return next((name for name, kinds in GROUPS.items() if kind in kinds), "other")


@dataclass(frozen=True)
class BenchVideo:
    """A scene of `n_frames` sampled frames and questions about it."""

    scene: Scene
    n_frames: int
    fps: float
    questions: tuple[Question, ...]

    def times_s(self) -> npt.NDArray[np.float64]:
        """Return the presentation times of the sampled frames, f64 [n_frames]."""
        return np.arange(self.n_frames) / self.fps


def make_video(
    seed: int, n_frames: int, fps: float, n_questions: int, footage: str = ""
) -> BenchVideo:
    """Make a video whose cards are needles of one second (one frame pair at 2 fps).

    Every other seed is `hard` (clutter, noise and a moving background everywhere, small cards);
    the others mix in calm and static stretches. `footage`: a kind of it, in place of such a scene.
    """
    seconds = n_frames / fps
    if footage:
        scene = make_footage(footage, seed, seconds)
        questions = make_questions(scene, n_questions, seed, STILL_TURNS)
        return BenchVideo(scene, n_frames, fps, tuple(questions))
    n_cards = max(1, min(_MAX_CARDS, int(seconds) // _SECONDS_PER_CARD))
    difficulty = "hard" if seed % 2 else "mixed"
    scene = make_scene(seed, seconds, difficulty=difficulty, n_cards=n_cards, card_s=1)
    questions = make_questions(scene, n_questions, seed, TURNS)
    return BenchVideo(scene, n_frames, fps, tuple(questions))


def encode_video(
    video: BenchVideo, encoder: VisionEncoder, manifest: ModelManifest
) -> VisionFeatures:
    """Render and encode all frames of a video.

    Raises:
        ModelError: the tower cannot encode frames of the manifest's size.
    """
    features: VisionFeatures | None = None
    for frames, times_s in _batches(video, manifest):
        part = encoder.encode(frames, times_s)
        features = part if features is None else features.joined(part)
    assert features is not None
    return features


def _batches(
    video: BenchVideo, manifest: ModelManifest
) -> Iterator[tuple[npt.NDArray[np.uint8], npt.NDArray[np.float64]]]:
    size = manifest.frames.size_rule(None)
    shape = size if isinstance(size, tuple) else size(RENDER_PX, RENDER_PX, video.n_frames)
    times_s = video.times_s()
    for start in range(0, video.n_frames, _BATCH_FRAMES):
        times = times_s[start : start + _BATCH_FRAMES]
        frames = [render_frame(video.scene, float(t), RENDER_PX) for t in times]
        resized = [cv2.resize(f, shape, interpolation=cv2.INTER_AREA) for f in frames]
        yield np.stack(resized).astype(np.uint8, copy=False), times
