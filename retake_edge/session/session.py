"""One video, read once: frames to a compressed KV cache, and then any number of questions.

    video file -> FrameBatch -> VisionFeatures -> PrefillChunk -> compressed KV -> Answer

A question is decoded after the video and removed again, so every question starts from the same
state and its answer does not depend on the ones before. The cache is saved, so that the next
question, whenever it is asked, needs neither the video nor the vision tower.
"""

from __future__ import annotations

import codecs
import logging
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace

import numpy as np

from retake_edge.config import GenerationConfig, RetakeConfig
from retake_edge.engine.attention import AnswerAttention, idle_attention
from retake_edge.engine.trained_context import PositionUse
from retake_edge.errors import (
    ConfigError,
    MemoryBudgetError,
    ModelError,
    NativeError,
    RetakeError,
    SessionError,
    VideoError,
)
from retake_edge.files import file_sha256
from retake_edge.llama.buffers import peak_memory_bytes
from retake_edge.llama.capture import is_compressible
from retake_edge.plan.seconds import Calibration, measured
from retake_edge.questions import checked_question
from retake_edge.session.answer import Answer, SavedState, versions
from retake_edge.session.evidence import Floats, Span, attended_spans, frame_weights, without_sinks
from retake_edge.session.prefilled import PrefilledVideo
from retake_edge.session.second_look import (
    FirstAnswer,
    LookedAgain,
    SecondLook,
    Seen,
    problem_of,
)
from retake_edge.session.store.looks import SavedLooks
from retake_edge.stages import Profile, StageTimes
from retake_edge.vision.reader import Thumbnail

_log = logging.getLogger(__name__)


_PROFILE_NAMES = {"decode": "waiting", "wait": "waiting", "generate": "answer"}
_NOT_SEEN = (VideoError, ModelError, MemoryBudgetError, NativeError, SessionError)
_LEAST_ROOM = 64  # tokens that an answer can have after a second look
_LESS_SURE, _SURE = 0.01, 0.95
"""A second answer does not count that is less probable by more than this, and than this."""
_OF_TEXT = ("text", "n_tokens", "probability", "positions")
"""Fields of an answer that belong to its text alone."""


def _probability(log_probs: Sequence[float]) -> float | None:
    """The geometric mean of tokens' probabilities; None of none."""
    return float(np.exp(np.mean(log_probs))) if log_probs else None


class Session:
    """A prefilled video; made by `open_video`, to be closed after use.

    `video`: its figures; `map`: where each cell comes from; `thumbnails`: (time in seconds, JPEG)
    of evenly spaced frames; `index_seconds`: what reading it took, by stage; `saved`: the session
    on disk; `chosen_by`: why this model is used (`catalog.choice`). `frame_weights` f32 [T]:
    the share of each grid frame in the last answer's attention; `answer_tokens`: the last
    answer's. `second_look`: how the video is looked at again after a first answer, if it is.

    >>> with retake_edge.open_video("talk.mp4") as session:
    ...     answer = session.ask("What happens?")
    ...     for piece in session.stream("And what else?"):
    ...         print(piece, end="", flush=True)
    >>> print(answer)
    >>> answer.evidence[0].start_s, answer.model["name"]
    """

    def __init__(
        self,
        prefilled: PrefilledVideo,
        config: RetakeConfig,
        hashes: dict[str, str],
        saved: SavedState,
        looks: SecondLook | None = None,
    ) -> None:
        self.video, self.video_map, self.saved = prefilled.video, prefilled.video_map, saved
        self.thumbnails: list[Thumbnail] = prefilled.thumbnails
        self.config, self.manifest = config, prefilled.manifest
        self.engine, self.times = prefilled.engine, prefilled.times
        self.index_seconds = prefilled.index_seconds
        self.frame_weights: Floats | None = None
        self.chosen_by = "asked for"
        self.n_cells = prefilled.engine.n_cells
        self._resources, self._hashes = prefilled.resources, hashes
        self._estimate, self._calibration = prefilled.estimate, Calibration(None)
        self._answer: Answer | None = None
        self._asked = StageTimes()  # the clock of the latest question
        self._idle: Floats | None = None  # as `frame_weights`, of no question
        self.second_look = looks or SecondLook(prefilled, config, SavedLooks(None))
        self.answer_tokens = list[int]()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the model and the cache."""
        self.second_look.close()
        self._resources.close()

    def ask(self, question: str) -> Answer:
        """Answer a question.

        Raises:
            MemoryBudgetError: question and answer do not fit into the cells left.
        """
        for _ in self.stream(question):
            pass
        return self.last_answer()

    def stream(self, question: str) -> Generator[str, None, None]:
        """Yield the answer as it is generated; `last_answer` has all of it afterwards.

        Where the video is looked at again, pieces are empty until it is known which answer counts.

        Raises:
            MemoryBudgetError: question and answer do not fit into the cells left. ConfigError: a
            conversation about the video is not over, or the question is no text.
        """
        if self.engine.context.position_max() >= self.engine.next_position:
            raise ConfigError(
                "A conversation about this video is not over; ask within it, or reset it first."
            )
        attention = self.video_attention()
        prompt = self.manifest.prompt.question(self.checked(question))
        first = self.collect(question, self.engine.generate(prompt, attention), attention)
        return self.closely(question, prompt, first, self.engine.next_position)

    def checked(self, question: str) -> str:
        """Return a question as it is asked.

        Raises:
            ConfigError: it is no text, or the video was read for another one.
        """
        guide = self.video.guide
        if guide and question != guide:
            raise ConfigError(
                f"What is kept of this video was chosen for one question ({guide!r}), and another "
                "one may need what was left out; ask the video's file, with --guided or without."
            )
        return checked_question(question)

    def calibrate(self, calibration: Calibration) -> None:
        """Keep how long the reading of the video took, and what its answers will."""
        if self._estimate is not None:
            self._calibration = calibration
            key, work = self._estimate
            video = self.video
            work = work.done(
                encoded=1 - video.n_still / video.n_grid_frames,
                prefilled=1 - video.n_left_out / video.n_cells_before,
            )
            calibration.add(key, work, measured(self.index_seconds))

    def positions(self, answer_end: int = 0) -> PositionUse:
        """Return the positions of the video, and of an answer that ends before `answer_end`."""
        n = max(self.video.n_positions, answer_end)
        return PositionUse(self.video.positions, n - 1, self.video.n_positions_trained)

    def draw_by(self, generation: GenerationConfig) -> None:
        """Draw answers in this way from now on; the cells kept for them stay as many as before."""
        self.config = replace(self.config, generation=generation)
        self.engine.draw_by(generation)

    def last_answer(self) -> Answer:
        """Return the latest finished answer.

        Raises:
            ConfigError: no question was answered yet.
        """
        if self._answer is None:
            raise ConfigError(
                "Nothing has been answered yet; ask first, and read a stream to its end."
            )
        return self._answer

    def video_attention(self) -> AnswerAttention:
        """Return a recorder of the attention that an answer pays to the video's cells.

        The clock of the answer begins here.
        """
        self._asked = StageTimes().start()
        n_video = self.video.n_cells_kept
        window = self.n_cells - n_video, n_video
        if self._idle is None:
            with self._asked.measure("evidence"):
                self._idle = self._idle_weights(window)
        return AnswerAttention(*window)

    def _idle_weights(self, window: tuple[int, int]) -> Floats | None:
        """The share of each frame in the attention of a token that knows no question."""
        engine = self.engine
        if not is_compressible(engine.context) or engine.n_cells != self.n_cells:
            return None
        token, mark = engine.model.tokenize(self.manifest.prompt.question(""))[0], engine.mark()
        try:
            found = idle_attention(engine.context, engine.next_position, token, window)
        except RetakeError as error:
            _log.warning("What draws attention whatever is asked is not known: %s", error)
            return None
        finally:
            engine.rewind(mark)
        return frame_weights(found, self.video_map.cell_frames, len(self.video_map.frame_times_s))

    def closely(
        self,
        question: str,
        prompt: str,
        first: Generator[str, None, None],
        end: int,
        forget: Callable[[], None] = lambda: None,
    ) -> Generator[str, None, None]:
        """Yield a first answer as nothing, and that of a second look, too; then the surer one.

        `prompt`: the question as the model gets it; `end`: the position where it begins. `forget`
        is called before the video is asked again: it removes the first answer from the cells.
        """
        if not self.second_look.n_frames:
            yield from first
            return
        for _ in first:
            yield ""
        answer, times = self.last_answer(), self._times_of_first()
        tokens = self.answer_tokens
        with ExitStack() as resources:
            try:
                found = self._looked(question, prompt, answer, times)
                if found is not None:
                    forget()
                    closer = self.second_look.beside(end, in_place=found.are_larger)
                    beside = resources.enter_context(closer)
                    with times.measure("prefill again"):
                        for features in found.features:
                            beside.add(self.second_look.block(features))
            except _NOT_SEEN as error:
                found = None
                answer = replace(answer, looked_again=LookedAgain(problem=problem_of(error)))
            times.stop()
            if found is None:
                self._answer = replace(answer, profile=self._profile(times))
                yield answer.text
                return
            self._answer = replace(answer, looked_again=found.looked_again)
            for _ in self.collect(question, beside.generate(prompt), None, times):
                yield ""
        second = self.last_answer()
        if (second.probability or 0.0) < min(_SURE, (answer.probability or 0.0) - _LESS_SURE):
            again = found.looked_again.without_use(second.text, second.probability or 0.0)
            same = {name: getattr(answer, name) for name in _OF_TEXT}
            self._answer, self.answer_tokens = replace(second, **same, looked_again=again), tokens
        yield self.last_answer().text

    def _times_of_first(self) -> StageTimes:
        """The clock of the answer at hand, running on towards a second one."""
        first = StageTimes({}, dict(self._asked.beside), self._asked.wall_s)
        for stage, seconds in self._asked.seconds.items():
            first.add("first answer" if stage == "generate" else stage, seconds)
        return first.start()

    def _profile(self, times: StageTimes) -> Profile:
        """The profile of an answer: the video's opening, and the clock of the question."""
        return times.after(self.times).profile(_PROFILE_NAMES)

    def _looked(self, question: str, prompt: str, first: Answer, times: StageTimes) -> Seen | None:
        """Return what a second look sees; None if there is nothing to look at.

        Raises:
            RetakeError: the video cannot be looked at again.
        """
        most = min(self.config.generation.max_tokens, max(_LEAST_ROOM, 4 * first.n_tokens))
        n_text = len(self.engine.model.tokenize(prompt)) + most
        found = FirstAnswer(
            question, first.text, first.probability or 0.0, first.evidence, self.frame_weights
        )
        return self.second_look.see(found, n_text, times)

    def collect(
        self,
        question: str,
        tokens: Iterator[int],
        attention: AnswerAttention | None,
        more: StageTimes | None = None,
    ) -> Generator[str, None, None]:
        """Yield an answer's tokens as text, and make it the last answer at its end.

        `attention`: None where the last answer's evidence counts; `more`: seconds spent before.
        """
        times = self._asked = self._asked if attention is not None else StageTimes().start()
        sooner = more.after(self.times) if more else self.times
        before = None if attention is not None else self._answer
        self.answer_tokens = []
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        pieces: list[str] = []
        n_tokens, first_token_s, started = 0, 0.0, time.perf_counter()
        for token in times.each("generate", tokens):
            if n_tokens == 0:
                first_token_s = time.perf_counter() - started
            n_tokens += 1
            self.answer_tokens.append(token)
            piece = decoder.decode(self.engine.model.piece(token))
            pieces.append(piece)
            yield piece
        rest = decoder.decode(b"", final=True)
        if rest:
            pieces.append(rest)
            yield rest
        if self._estimate is not None and n_tokens > 1:
            per_token = {"answer": times.seconds["generate"] - first_token_s}
            self._calibration.add(*self._estimate, per_token, n_tokens - 1)
        with times.measure("evidence"):
            evidence = self._evidence(attention) if attention else before.evidence if before else []
        facts = self.model_facts()
        times.stop()
        in_all = times.after(sooner)
        self._answer = Answer(
            question=question,
            text="".join(pieces).strip(),
            n_tokens=n_tokens,
            evidence=evidence,
            video=self.video,
            session=self.saved,
            seconds=in_all.named() | ({"first_token": first_token_s} if n_tokens else {}),
            profile=in_all.profile(_PROFILE_NAMES),
            peak_memory_bytes=peak_memory_bytes(),
            model=facts,
            config=self.config.to_dict(),
            versions=versions(),
            sampler=self.engine.sampler_settings,
            positions=self.positions(self.engine.answer_end),
            probability=_probability(self.engine.log_probs),
            looked_again=before.looked_again if before else None,
        )

    def _evidence(self, attention: AnswerAttention) -> list[Span]:
        self.frame_weights = None
        if attention.weights is None:
            return []
        times_s = self.video_map.frame_times_s
        weights = frame_weights(attention.weights, self.video_map.cell_frames, len(times_s))
        self.frame_weights = weights
        end_s = self.config.sampling.end_s
        end_s = self.video.duration_s if end_s is None else min(end_s, self.video.duration_s)
        if self._idle is not None:
            weights = without_sinks(weights, self._idle)
        return attended_spans(weights, times_s, end_s)

    def model_facts(self) -> dict[str, str]:
        """Return the model's name, kind, why it is used, and the SHA-256 of its files."""
        for role, path in (("model", self.manifest.model), ("mmproj", self.manifest.mmproj)):
            if role not in self._hashes:
                self._hashes[role] = file_sha256(path)
        return {
            "name": self.manifest.name,
            "chosen_by": self.chosen_by,
            "description": self.engine.model.description,
            "model_sha256": self._hashes["model"],
            "mmproj_sha256": self._hashes["mmproj"],
        }
