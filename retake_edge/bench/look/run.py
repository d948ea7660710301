"""Ask about what a coarse or compressed first reading may miss, and again after a second look.

Every video is written to a file and goes the whole way, so that seconds are those of a user. A
session that looks again tells its first answer, too: both come from the same cells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory

from retake_edge.bench.quality.videos import TURNS
from retake_edge.bench.scenes.absent import absent_questions
from retake_edge.bench.scenes.brief import (
    GRID,
    colour_questions,
    make_brief_scene,
    make_repeat_scene,
)
from retake_edge.bench.scenes.questions import Question, grade, make_questions
from retake_edge.bench.scenes.render import write_video
from retake_edge.bench.scenes.scene import Scene, make_scene
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
from retake_edge.plan.look import TIMES_CLOSER
from retake_edge.session.answer import Answer
from retake_edge.session.open import open_video

LOOK_SCENES = {
    "brief": TURNS,
    "print": ("number", "number_at", "first_card", "last_card"),
    "repeats": ("card_exists",),
    "ordinary": TURNS,
}
"""Scenes, and the kinds of questions about them: cards shown for less than half a sampling step;
cards whose numbers cannot be read in frames of half the size; two to six cards, one every 0.375 s,
each of another colour, and a question about each colour; scenes as the model knows them."""
PRINT_PX = 56, 112
"""Longer side of a frame of small print, at first and in full detail."""
_READING = ("plan", "decode", "encode", "prefill", "score", "select", "compact")
_LOOKING = ("open again", "glance", "decode again", "encode again", "prefill again", "generate")
_SEED_STRIDE = 1_000_003
_N_CARDS = 6
ABSENT_TURNS = ("number", "when_card", "when_object", "motion")
"""Kinds that are asked about what is there and about what is not."""
_PRINT_S = 2.0
"""Seconds that a card of small print is shown, long enough for a first reading's steps."""
_FLASH_S = {"on_s": 0.25, "off_s": 0.125}


@dataclass(frozen=True)
class LookSettings:
    """Settings of a run: `n_videos` of each of `scenes`, `seconds` long.

    Of 'brief' ones there are as many for each length of a card in `cards_s`. Full detail is every
    cell and four times `fps` frames a second, of small print frames twice as large; the first
    readings are `fps` at each ratio in `keep_ratios`. `n_frames` of a second look; `n_questions` of
    a video about what is there (of repeats: one for each colour), `n_absent` about what is not.
    `without_file`: the second look sees the features that the first reading has kept.
    """

    scenes: tuple[str, ...] = ("brief",)
    seed: int = 0
    n_videos: int = 8
    seconds: float = 128.0
    cards_s: tuple[float, ...] = (0.25, 0.5, 1.0)
    fps: float = 2.0
    keep_ratios: tuple[float, ...] = (1.0, 0.0625)
    n_frames: int = 24
    n_questions: int = 24
    n_absent: int = 8
    without_file: bool = False

    def __post_init__(self) -> None:
        if min(self.n_videos, self.n_questions, self.n_frames) < 1 or self.seed < 0:
            raise ConfigError("--videos, --questions and --look-again must be at least 1.")
        if unknown := sorted(set(self.scenes) - set(LOOK_SCENES)):
            raise ConfigError(
                f"--scenes {unknown[0]} is not known; there are {', '.join(LOOK_SCENES)}."
            )
        if not 0 < self.fps <= GRID or max(self.cards_s) > self.seconds / _N_CARDS / 2:
            raise ConfigError(
                f"--fps must be above 0 and at most {GRID}, and --events far below --seconds."
            )
        if min(self.keep_ratios) <= 0 or max(self.keep_ratios) > 1:
            raise ConfigError(f"--keep-ratio is {self.keep_ratios}, but all must be in (0, 1].")

    def rows(self) -> Iterator[tuple[str, float]]:
        """Yield each kind of scenes with the length of its brief cards in s, 0 for others."""
        for name in self.scenes:
            yield from ((name, card_s) for card_s in (self.cards_s if name == "brief" else (0.0,)))


@dataclass(frozen=True)
class Tried:
    """A question as it was answered: text and probability, after full detail, first, and again.

    `again` is what the session says at last, `second` what it said after the second look, even
    where its first answer stands.
    `card_s`: length of a brief card, 0 in other `scenes`. `keep_ratio`: of the first reading.
    `is_absent`: the question is about what is not there. `reading_s`: the first reading; `look_s`:
    the second look with its answer, `is_first`: the video's first, with what is done once.
    """

    video: int
    scenes: str
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
    is_second_right: bool
    second_p: float
    reading_s: float
    look_s: float
    is_first: bool
    texts: tuple[str, str, str, str] = field(default=("", "", "", ""))


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
        for scenes, card_s in settings.rows():
            for i in range(settings.n_videos):
                scene = look_scene(settings, scenes, card_s, i)
                path = write_video(scene, Path(folder) / f"{i}.mp4", fps=GRID)
                found += _tried(path, scene, source, settings, runtime, (scenes, card_s, i))
                path.unlink()
                progress(scenes, i + 1, settings.n_videos)
    return found


def look_scene(settings: LookSettings, scenes: str, card_s: float, index: int) -> Scene:
    """Return the `index`-th video of a kind of scenes."""
    seed = settings.seed * _SEED_STRIDE + round(1000 * card_s) + 10_000 * index
    seed += 1_000 * list(LOOK_SCENES).index(scenes)
    difficulty = "hard" if index % 2 else "mixed"
    if scenes == "brief":
        return make_brief_scene(
            seed, settings.seconds, n_cards=_N_CARDS, card_s=card_s, difficulty=difficulty
        )
    if scenes == "print":
        return make_scene(
            seed, settings.seconds, n_cards=_N_CARDS, card_s=_PRINT_S, difficulty=difficulty
        )
    if scenes == "repeats":
        return make_repeat_scene(seed, settings.seconds, **_FLASH_S)
    return make_scene(seed, settings.seconds, difficulty=difficulty)


def _tried(
    path: Path,
    scene: Scene,
    source: ModelManifest | ModelFiles,
    settings: LookSettings,
    runtime: RuntimeConfig,
    which: tuple[str, float, int],
) -> list[Tried]:
    """All questions of one video."""
    scenes, card_s, index = which
    asked = (
        colour_questions(scene)
        if scenes == "repeats"
        else make_questions(scene, settings.n_questions, scene.seed, LOOK_SCENES[scenes])
    )
    absent = absent_questions(scene, islice(cycle(ABSENT_TURNS), settings.n_absent))
    questions = [*asked, *absent]
    first_px = full_px = None
    full_fps = TIMES_CLOSER * settings.fps
    if scenes == "print":
        (first_px, full_px), full_fps = PRINT_PX, settings.fps
        if isinstance(source, ModelManifest):  # it may see all frames at one size
            frames = replace(source.frames, width_px=None, height_px=None, long_side_px=full_px)
            source = replace(source, frames=frames)
    full = _config(full_fps, 1.0, LookConfig(frames=0), full_px, runtime)
    full_answers = _answers(path, source, full, questions)
    found = []
    look = LookConfig(frames=settings.n_frames, keep_features=settings.without_file)
    for keep_ratio in settings.keep_ratios:
        again = _config(settings.fps, keep_ratio, look, first_px, runtime)
        for n, answer in enumerate(_answers(path, source, again, questions)):
            question, whole, looked = questions[n], full_answers[n], answer.looked_again
            was_looked = looked is not None and not looked.problem
            first_text = looked.first_text if looked and was_looked else answer.text
            first_p = looked.first_probability if looked and was_looked else answer.probability
            second_text, second_p = answer.text, answer.probability
            if looked and looked.first_stands:
                second_text, second_p = looked.second_text, looked.second_probability
            texts = whole.text, first_text, answer.text, second_text
            right = tuple(_right(question, text) for text in texts)
            found.append(
                Tried(
                    video=index,
                    scenes=scenes,
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
                    is_second_right=right[3],
                    second_p=second_p or 0.0,
                    reading_s=sum(answer.seconds.get(stage, 0.0) for stage in _READING),
                    look_s=sum(answer.seconds.get(stage, 0.0) for stage in _LOOKING)
                    if looked
                    else 0,
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
    """The answers; where features are kept, the file is away while they are given."""
    if not settings.look.keep_features:
        with open_video(path, source, settings, use_cache=False) as session:
            return [session.ask(question.text) for question in questions]
    away = path.with_suffix(".away")
    with (
        TemporaryDirectory() as cache,
        open_video(path, source, settings, cache_dir=cache) as session,
    ):
        path.rename(away)
        answers = [session.ask(question.text) for question in questions]
        away.rename(path)
        return answers


def _config(
    fps: float, keep_ratio: float, look: LookConfig, px: int | None, runtime: RuntimeConfig
) -> RetakeConfig:
    return RetakeConfig(
        sampling=SamplingConfig(fps=fps, max_frames=1 << 20, long_side_px=px),
        compression=CompressionConfig(keep_ratio=keep_ratio),
        runtime=runtime,
        generation=GenerationConfig(max_tokens=12, temperature=0),
        look=look,
    )
