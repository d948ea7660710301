"""The second look: after a first answer, the seconds that matter are seen again, closely.

More frames a second, at the model's full size, nothing of them dropped; they stand at their true
times beside what is kept of the video, and the question is answered from both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from retake_edge.config import RetakeConfig
from retake_edge.engine.beside import Beside, why_not_beside
from retake_edge.engine.chunks import ChunkBuilder, FrameBlock, n_text_per_step
from retake_edge.errors import ModelError, RetakeError, VideoError
from retake_edge.plan.look import look_frames
from retake_edge.session.closer import SURE, looks, shown_spans
from retake_edge.session.evidence import Floats, Span
from retake_edge.session.look_frames import FileFrames, KeptFrames
from retake_edge.session.prefilled import PrefilledVideo
from retake_edge.session.store.features import SavedFeatures
from retake_edge.session.store.looks import SavedLooks
from retake_edge.stages import StageTimes
from retake_edge.vision.encoder import VisionFeatures, newline_of


@dataclass(frozen=True)
class LookedAgain:
    """A second look at a video.

    `spans`: (start, end) in seconds of what was looked at, in order of time, and `why` of each:
    'named' in the question, 'evidence' of the first answer, or 'unseen': nothing shows it of what
    is kept of the first reading.
    `n_frames` in all, `fps` of them a second. `first_text`: the first answer, with its
    `first_probability`; it stands (`first_stands`) where that of the second answer was lower, which
    then is `second_text` with `second_probability`. `without_file`: why the frames are those that
    the first reading kept, '' where the file was read. `problem`: why it was not done, '' if it
    was.
    """

    spans: tuple[tuple[float, float], ...] = ()
    why: tuple[str, ...] = ()
    n_frames: int = 0
    fps: float = 0.0
    first_text: str = ""
    first_probability: float = 0.0
    first_stands: bool = False
    second_text: str = ""
    second_probability: float = 0.0
    without_file: str = ""
    problem: str = ""

    def __str__(self) -> str:
        """Return one line for people."""
        if self.problem:
            return f"not looked at again: {self.problem}"
        pairs = list(zip(self.spans, self.why, strict=True))
        parts = []
        if near := [span for span, why in pairs if why != "unseen"]:
            parts.append(shown_spans(near))
        if n := len(pairs) - len(near):
            parts.append(f"{n} moment{'s' if n > 1 else ''} that it had missed")
        line = f"looked again at {' and '.join(parts)} ({self.n_frames} frames)"
        if self.without_file:
            line += f", as kept of the first reading and not in the file: {self.without_file}"
        return f"{line}; the first answer stands: it is surer" if self.first_stands else line

    def without_use(self, text: str, probability: float) -> LookedAgain:
        """Return this look with an answer that does not count, since the first one is surer."""
        return replace(self, first_stands=True, second_text=text, second_probability=probability)


@dataclass(frozen=True)
class Seen:
    """What a second look saw: features in order of time, and what it was.

    `are_larger`: the frames show all that the first reading saw of their seconds, and more.
    """

    features: list[VisionFeatures]
    looked_again: LookedAgain
    are_larger: bool


@dataclass(frozen=True)
class FirstAnswer:
    """An answer that tells where to look.

    `spans`, `weights` f32 [T]: where it looked, the heaviest span first, and the share of each grid
    frame (None: not known).
    """

    question: str
    text: str
    probability: float
    spans: Sequence[Span]
    weights: Floats | None


class SecondLook:
    """Means for a second look: the file, and what was kept of the first reading and earlier looks.

    `saved`: features of earlier looks. `kept`: reads the features of the first reading (None: there
    are none). `is_unchanged`: whether the file is still the one that was read; asked once. To be
    closed after use.
    """

    def __init__(
        self,
        prefilled: PrefilledVideo,
        config: RetakeConfig,
        saved: SavedLooks,
        kept: Callable[[], SavedFeatures | None] = lambda: None,
        is_unchanged: Callable[[], bool] = lambda: True,
    ) -> None:
        self._prefilled, self._config, self._saved = prefilled, config, saved
        self._read_kept, self._is_unchanged = kept, is_unchanged
        if prefilled.glanced is not None and saved.glanced() is None:
            saved.keep_glanced(prefilled.glanced)
        self._resources = ExitStack()

    def close(self) -> None:
        """End the decoder and free the tower."""
        self._resources.close()

    @property
    def n_frames(self) -> int:
        """Frames of a second look at most; 0 where none is wanted."""
        return look_frames(self._prefilled.manifest, self._config)

    @cached_property
    def why_not(self) -> str:
        """Reason why this video cannot be looked at again, '' if it can."""
        return why_not_beside(self._prefilled.engine)

    @cached_property
    def kept(self) -> SavedFeatures | None:
        """The features of the first reading, None where none are kept."""
        kept = self._read_kept()
        return kept if kept is not None and kept.n_steps == self._n_steps else None

    @cached_property
    def file(self) -> FileFrames:
        """The frames of the file.

        Raises:
            VideoError: it is gone, cannot be read, or is another one by now.
        """
        found = FileFrames(self._prefilled, self._config, self._saved, self._is_unchanged)
        self._resources.callback(found.close)
        return found

    def see(self, first: FirstAnswer, n_text: int, times: StageTimes) -> Seen | None:
        """Return what is seen after a first answer; None if there is nothing to look at.

        `n_text`: cells for the question and its second answer.

        Raises:
            ModelError: this model cannot look again, or its tower failed. VideoError: the file
            cannot be read, and nothing is kept of the first reading. SessionError: what is kept is
            damaged.
        """
        if self.why_not:
            raise ModelError(self.why_not)
        try:
            with times.measure("open again"):
                file = self.file
            return self._see(file, first, n_text, times)
        except VideoError as error:
            if self.kept is None:
                raise
            kept = KeptFrames(
                self._prefilled, self._config, self._saved, self.kept, problem_of(error)
            )
        return self._see(kept, first, n_text, times)

    def _see(
        self, frames: FileFrames | KeptFrames, first: FirstAnswer, n_text: int, times: StageTimes
    ) -> Seen | None:
        with times.measure("glance"):
            moments = frames.moments()
        grid = frames.grid
        where = looks(
            grid,
            self.n_affordable(frames.n_vision_tokens, n_text),
            first.question,
            first.spans,
            first.weights,
            self._prefilled.video_map.frame_times_s,
            moments,
            is_sure=first.probability >= SURE,
            are_larger=frames.are_larger,
        )
        if not where:
            return None
        again = LookedAgain(
            spans=tuple((grid.time_s(at.first), grid.time_s(at.first + at.n)) for at in where),
            why=tuple(at.why for at in where),
            n_frames=sum(at.n for at in where),
            fps=1 / grid.step_s,
            first_text=first.text,
            first_probability=first.probability,
            without_file=frames.without_file,
        )
        return Seen(frames.features(where, times), again, frames.are_larger)

    def n_affordable(self, n_vision_tokens: int, n_text: int) -> int:
        """Return the frames for which there are cells, besides `n_text` of text.

        `n_vision_tokens`: of a grid frame.
        """
        engine, manifest = self._prefilled.engine, self._prefilled.manifest
        last_s = float(self._prefilled.video_map.frame_times_s[-1])
        per_step = n_vision_tokens + n_text_per_step(
            engine.model, manifest.positions, self._n_steps, last_s, last_s
        )
        n_steps = max(0, engine.context.n_ctx - engine.n_cells - n_text) // per_step
        return min(self.n_frames, n_steps * manifest.frames.frames_per_step)

    @property
    def _n_steps(self) -> int:
        return len(self._prefilled.video_map.frame_times_s)

    def beside(self, end: int, *, in_place: bool = False) -> Beside:
        """Return the sequence of the video, to which features can be added as `block`s.

        `end`: where text after the video, or a conversation, would begin. `in_place`: of what is
        kept of their seconds.
        """
        prefilled = self._prefilled
        manifest, engine = prefilled.manifest, prefilled.engine
        origin_s = float(prefilled.video_map.frame_times_s[0])
        newline = newline_of(manifest)
        builder = ChunkBuilder(
            engine.model, manifest.positions, prefilled.n_before, origin_s, newline
        )
        return Beside(engine, manifest.positions, builder, end, in_place=in_place)

    def block(self, features: VisionFeatures) -> FrameBlock:
        """Return features as frames of the video: numbered as those of the first reading were."""
        n_steps, n_tokens = features.embeddings.shape[:2]
        times_s = self._prefilled.video_map.frame_times_s
        first = int(np.searchsorted(times_s, features.times_s[0] + 1e-6)) - 1
        none = np.zeros((n_steps, n_tokens), np.float32)
        return FrameBlock(features, none, none.astype(np.bool_), max(1, first))


def problem_of(error: RetakeError) -> str:
    """Return why a second look failed, as the end of a sentence."""
    return str(error).rstrip(".")
