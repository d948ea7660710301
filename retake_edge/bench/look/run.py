"""Ask about brief events after a coarse or compressed reading, and again after a second look.

Every video is written to a file and goes the whole way, so that seconds are those of a user. A
session that looks again tells its first answer, too: both come from the same cells.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory

from retake_edge.bench.quality.videos import TURNS
from retake_edge.bench.scenes.absent import absent_questions
from retake_edge.bench.scenes.brief import GRID, make_brief_scene
from retake_edge.bench.scenes.questions import Question, grade, make_questions
from retake_edge.bench.scenes.render import write_video
from retake_edge.bench.scenes.scene import Scene
from retake_edge.config import (
    CompressionConfig,
    GenerationConfig,
    LookConfig,
    RetakeConfig,
    RuntimeConfig,
    SamplingConfig,
)
from retake_edge.errors import ConfigError
from retake_edge.models.manifest import ModelFiles, ModelManifest
from retake_edge.session.answer import Answer
from retake_edge.session.open import open_video
from retake_edge.session.second_look import TIMES_CLOSER

_READING = ("decode", "encode", "prefill", "score", "select", "compact")
_LOOKING = ("open again", "glance", "decode again", "encode again", "prefill again", "generate")
_SEED_STRIDE = 1_000_003
_N_CARDS = 6
ABSENT_TURNS = ("number", "when_card", "when_object", "motion")
"""Kinds that are asked about what is there and about what is not."""


@dataclass(frozen=True)
class LookSettings:
    """Settings of a run: `n_videos` for each length of a card in `cards_s`, `seconds` long.

    Full detail is four times `fps` frames a second and every cell; the first readings are `fps` at
    each ratio in `keep_ratios`. `n_frames` of a second look; `n_questions` of a video about what is
    there, `n_absent` about what is not.
    """

    seed: int = 0
    n_videos: int = 8
    seconds: float = 128.0
    cards_s: tuple[float, ...] = (0.25, 0.5, 1.0)
    fps: float = 2.0
    keep_ratios: tuple[float, ...] = (1.0, 0.0625)
    n_frames: int = 24
    n_questions: int = 24
    n_absent: int = 8

    def __post_init__(self) -> None:
        if min(self.n_videos, self.n_questions, self.n_frames) < 1 or self.seed < 0:
            raise ConfigError("--videos, --questions and --look-again must be at least 1.")
        if not 0 < self.fps <= GRID or max(self.cards_s) > self.seconds / _N_CARDS / 2:
            raise ConfigError(
                f"--fps must be above 0 and at most {GRID}, and --events far below --seconds."
            )
        if min(self.keep_ratios) <= 0 or max(self.keep_ratios) > 1:
            raise ConfigError(f"--keep-ratio is {self.keep_ratios}, but all must be in (0, 1].")


@dataclass(frozen=True)
class Tried:
    """A question as it was answered: text and probability, after full detail, first, and again.

    `fps`, `keep_ratio`: of the first reading. `is_absent`: the question is about what is not there.
    `reading_s`: the first reading; `look_s`: the second look with its answer, `is_first`: the
    video's first, with what is done once.
    """

    video: int
    card_s: float
    keep_ratio: float
    kind: str
    is_absent: bool
    is_full_right: bool
    is_first_right: bool
    is_again_right: bool
    full_p: float
    first_p: float
    again_p: float
    reading_s: float
    look_s: float
    is_first: bool
    texts: tuple[str, str, str] = field(default=("", "", ""))


def run_look(
    source: ModelManifest | ModelFiles,
    settings: LookSettings,
    runtime: RuntimeConfig,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> list[Tried]:
    """Ask every question of every video after full detail, after each first reading, and again.

    Raises:
        RetakeError: the model cannot be used.
    """
    found: list[Tried] = []
    with TemporaryDirectory() as folder:
        for card_s in settings.cards_s:
            for i in range(settings.n_videos):
                scene = look_scene(settings, card_s, i)
                path = write_video(scene, Path(folder) / f"{i}.mp4", fps=GRID)
                found += _tried(path, scene, source, settings, runtime, card_s, i)
                path.unlink()
                progress(f"cards of {card_s:g} s", i + 1, settings.n_videos)
    return found


def look_scene(settings: LookSettings, card_s: float, index: int) -> Scene:
    """Return the `index`-th video with cards of a length."""
    seed = settings.seed * _SEED_STRIDE + round(1000 * card_s) + 10_000 * index
    return make_brief_scene(
        seed,
        settings.seconds,
        n_cards=_N_CARDS,
        card_s=card_s,
        difficulty="hard" if index % 2 else "mixed",
    )


def _tried(
    path: Path,
    scene: Scene,
    source: ModelManifest | ModelFiles,
    settings: LookSettings,
    runtime: RuntimeConfig,
    card_s: float,
    index: int,
) -> list[Tried]:
    """All questions of one video."""
    asked = make_questions(scene, settings.n_questions, scene.seed, TURNS)
    absent = absent_questions(scene, islice(cycle(ABSENT_TURNS), settings.n_absent))
    questions = [*asked, *absent]
    full = _config(TIMES_CLOSER * settings.fps, 1.0, 0, runtime)
    full_answers = _answers(path, source, full, questions)
    found = []
    for keep_ratio in settings.keep_ratios:
        again = _config(settings.fps, keep_ratio, settings.n_frames, runtime)
        for n, answer in enumerate(_answers(path, source, again, questions)):
            question, whole, look = questions[n], full_answers[n], answer.looked_again
            first_text = look.first_text if look and not look.problem else answer.text
            first_p = look.first_probability if look and not look.problem else answer.probability
            texts = whole.text, first_text, answer.text
            right = tuple(_right(question, text) for text in texts)
            found.append(
                Tried(
                    video=index,
                    card_s=card_s,
                    keep_ratio=keep_ratio,
                    kind=question.kind,
                    is_absent=n >= len(asked),
                    is_full_right=right[0],
                    is_first_right=right[1],
                    is_again_right=right[2],
                    full_p=whole.probability or 0.0,
                    first_p=first_p or 0.0,
                    again_p=answer.probability or 0.0,
                    reading_s=sum(answer.seconds.get(stage, 0.0) for stage in _READING),
                    look_s=sum(answer.seconds.get(stage, 0.0) for stage in _LOOKING) if look else 0,
                    is_first=n == 0,
                    texts=texts,
                )
            )
    return found


def _right(question: Question, text: str) -> bool:
    return bool(question.answer) and grade(question, text)


def _answers(
    path: Path,
    source: ModelManifest | ModelFiles,
    settings: RetakeConfig,
    questions: Sequence[Question],
) -> list[Answer]:
    with open_video(path, source, settings, use_cache=False) as session:
        return [session.ask(question.text) for question in questions]


def _config(fps: float, keep_ratio: float, n_frames: int, runtime: RuntimeConfig) -> RetakeConfig:
    return RetakeConfig(
        sampling=SamplingConfig(fps=fps, max_frames=1 << 20),
        compression=CompressionConfig(keep_ratio=keep_ratio),
        runtime=runtime,
        generation=GenerationConfig(max_tokens=12, temperature=0),
        look=LookConfig(frames=n_frames),
    )
