"""The quality benchmark: long synthetic videos, every policy over the same frames.

Each video is rendered and encoded once. Then every policy at every keep ratio prefills the same
features through the real engine and is asked the same questions, so that policies can be compared
question by question.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from retake_edge.bench.quality.sure import Heard, signals
from retake_edge.bench.quality.videos import (
    QUESTIONS_PER_VIDEO,
    BenchVideo,
    encode_video,
    group,
    make_video,
)
from retake_edge.bench.replay import (
    N_TEXT_RESERVE,
    Replayed,
    ReplaySettings,
    n_clock_tokens,
    replay,
)
from retake_edge.bench.scenes.absent import absent_questions
from retake_edge.bench.scenes.footage import require_footage
from retake_edge.bench.scenes.questions import Question, grade
from retake_edge.bench.variants import Variant, cells, require_ratios
from retake_edge.config import RuntimeConfig
from retake_edge.engine.attention import AnswerAttention
from retake_edge.errors import ConfigError
from retake_edge.llama.context import Context
from retake_edge.llama.model import Model
from retake_edge.models.manifest import ModelManifest
from retake_edge.plan.frames import padded
from retake_edge.plan.memory import context_settings
from retake_edge.vision.encoder import VisionEncoder, VisionFeatures

_SEED_STRIDE = 1_000_003


@dataclass(frozen=True)
class QualitySettings:
    """Settings of a run: for every length in `n_frames`, at least `n_questions` questions.

    `footage`: kinds of it, in turn; none: ordinary scenes.
    `with_absent`: each question is joined by one of its kind about what the video does not show.
    """

    seed: int = 0
    n_frames: tuple[int, ...] = (64, 128, 256, 512)
    keep_ratios: tuple[float, ...] = (0.5, 0.25, 0.125)
    n_questions: int = 168
    chunk_frames: int = 32
    n_queries: int = 128
    footage: tuple[str, ...] = ()
    with_absent: bool = False

    def __post_init__(self) -> None:
        if min(self.n_frames) < 16:
            raise ConfigError(f"--frames has {min(self.n_frames)}, but must be at least 16.")
        if self.n_questions < 1 or self.seed < 0 or self.chunk_frames < 2:
            raise ConfigError(
                f"--questions {self.n_questions}, --seed {self.seed}, --prefill-chunk-frames "
                f"{self.chunk_frames}: they must be at least 1, 0 and 2."
            )
        require_ratios(self.keep_ratios)
        require_footage(self.footage)


@dataclass(frozen=True)
class Asked:
    """A question of one video; `depth` in [0, 1]: where its evidence lies, None if spread out."""

    n_frames: int
    video: int
    kind: str
    depth: float | None
    text: str
    answer: str

    @property
    def group(self) -> str:
        """needle, when, order, still or other."""
        return group(self.kind)


@dataclass
class PolicyRun:
    """One policy at one keep ratio over all videos of one length.

    `right` has one entry for every question of that length, in their order. `cells`, `before`:
    cells kept and prefilled, summed over videos. `card_cells`: for each card, the least number of
    its vision tokens over layers, and the mean. `heard`: how sure each answer was, those to
    questions about what is absent included.
    """

    policy: str
    keep_ratio: float
    n_frames: int
    right: list[bool] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    cells: int = 0
    before: int = 0
    card_cells: list[npt.NDArray[np.int64]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    heard: list[Heard] = field(default_factory=list)


@dataclass
class QualityResult:
    """Everything asked, and every run over it."""

    asked: list[Asked] = field(default_factory=list)
    runs: list[PolicyRun] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def questions(self, n_frames: int) -> list[Asked]:
        """Return the questions of one length, in the order of `PolicyRun.right`."""
        return [asked for asked in self.asked if asked.n_frames == n_frames]


def video_seed(seed: int, n_frames: int, index: int) -> int:
    """Return the seed of the `index`-th video of a length."""
    return seed * _SEED_STRIDE + n_frames * 1000 + index


def run_quality(
    model: Model,
    encoder: VisionEncoder,
    manifest: ModelManifest,
    variants: Sequence[Variant],
    settings: QualitySettings,
    runtime: RuntimeConfig,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> QualityResult:
    """Run every variant at every keep ratio and length.

    Raises:
        ModelError: the model cannot take the videos. MemoryBudgetError: the longest one does not
        fit into memory uncompressed.
    """
    result = QualityResult()
    shared = ReplaySettings(
        runtime,
        max(1, settings.chunk_frames // encoder.frames_per_step),
        settings.n_queries,
        settings.seed,
    )
    for n_frames in settings.n_frames:
        runs = [
            PolicyRun(c.name, keep_ratio, n_frames)
            for c, keep_ratio in cells(variants, settings.keep_ratios)
        ]
        n_videos = -(-settings.n_questions // QUESTIONS_PER_VIDEO)
        context: Context | None = None
        try:
            for i in range(n_videos):
                seed = video_seed(settings.seed, n_frames, i)
                kind = settings.footage[i % len(settings.footage)] if settings.footage else ""
                video = make_video(seed, n_frames, manifest.fps, QUESTIONS_PER_VIDEO, kind)
                start = time.perf_counter()
                features = encode_video(video, encoder, manifest)
                _add(result.seconds, "render and encode", time.perf_counter() - start)
                context = context or _context(model, manifest, features, runtime)
                result.asked += _asked(video, n_frames, i)
                for j, (variant, keep_ratio) in enumerate(cells(variants, settings.keep_ratios)):
                    start = time.perf_counter()
                    for asked in _together(variant, video):
                        replayed = replay(
                            *(context, manifest, features, variant, keep_ratio, shared),
                            asked[0].text,
                        )
                        if settings.with_absent and not variant.is_guided:
                            _hear_all(replayed, manifest, video, i, runs[j])
                        else:
                            _answer_all(replayed, manifest, asked, runs[j])
                        for stage in ("prefill", "score", "select", "compact"):
                            _add(runs[j].seconds, stage, replayed.seconds(stage))
                    _count(replayed, video, features, runs[j])
                    _add(result.seconds, "prefill and ask", time.perf_counter() - start)
                    progress(f"{n_frames} frames", i * len(runs) + j + 1, n_videos * len(runs))
        finally:
            if context is not None:
                context.close()
        result.runs += runs
    return result


def _context(
    model: Model, manifest: ModelManifest, features: VisionFeatures, runtime: RuntimeConfig
) -> Context:
    """A context for the whole video, uncompressed."""
    n_frames, n_tokens = features.embeddings.shape[:2]
    # The first frame's clock text may be shorter than the others', never longer.
    n_text = n_clock_tokens(model, manifest, features)
    n_before = len(model.tokenize(manifest.prompt.before)) + 1
    needed = n_before + n_frames * (n_tokens + n_text) + N_TEXT_RESERVE
    return Context(model, **context_settings(runtime, padded(needed), n_seq_max=1))


def _asked(video: BenchVideo, n_frames: int, index: int) -> list[Asked]:
    return [
        Asked(
            n_frames,
            index,
            q.kind,
            None if q.time_s is None else q.time_s / video.scene.seconds,
            q.text,
            q.answer,
        )
        for q in video.questions
    ]


def _together(variant: Variant, video: BenchVideo) -> list[Sequence[Question]]:
    """The questions that are asked after one reading: all, or each after its own."""
    return [[q] for q in video.questions] if variant.is_guided else [video.questions]


def _answer_all(
    replayed: Replayed, manifest: ModelManifest, asked: Sequence[Question], run: PolicyRun
) -> None:
    for question in asked:
        _keep(question, answer(replayed, manifest, question), run)


def _keep(question: Question, text: str, run: PolicyRun) -> bool:
    """Keep an answer; return whether it is right."""
    run.right.append(grade(question, text))
    run.texts.append(text)
    return run.right[-1]


def _count(replayed: Replayed, video: BenchVideo, features: VisionFeatures, run: PolicyRun) -> None:
    """Count the cells of a video's (last) reading."""
    run.cells += replayed.cell_frames.shape[1]
    run.before += sum(result.n_cells for result in replayed.results)
    for card in video.scene.cards:
        shown = (features.times_s >= card.start_s) & (features.times_s < card.end_s)
        run.card_cells.append(np.isin(replayed.cell_frames, np.flatnonzero(shown)).sum(axis=1))


def _hear_all(
    replayed: Replayed, manifest: ModelManifest, video: BenchVideo, index: int, run: PolicyRun
) -> None:
    """Ask a video's questions, and others about what it does not show: how sure is each answer?"""
    engine, n_video = replayed.engine, replayed.cell_frames.shape[1]
    window = engine.n_cells - n_video, n_video
    absent = absent_questions(video.scene, [question.kind for question in video.questions])
    for question in [*video.questions, *absent]:
        prompt = manifest.prompt.question(question.text)
        n_before = engine.n_cells + len(engine.model.tokenize(prompt))
        attention = AnswerAttention(0, n_before)
        text = answer(replayed, manifest, question, attention)
        how = signals(engine.log_probs, attention, window, replayed.cell_frames, video.n_frames)
        is_right = bool(question.answer) and _keep(question, text, run)
        run.heard.append(Heard(index, question.kind, not question.answer, is_right, how))


def answer(
    replayed: Replayed,
    manifest: ModelManifest,
    question: Question,
    attention: AnswerAttention | None = None,
) -> str:
    """Ask a question; the cache is left as it was. `attention` records where the answer looks."""
    model = replayed.engine.model
    tokens = replayed.engine.generate(manifest.prompt.question(question.text), attention)
    return b"".join(model.piece(token) for token in tokens).decode("utf-8", "replace").strip()


def _add(seconds: dict[str, float], stage: str, passed: float) -> None:
    seconds[stage] = seconds.get(stage, 0.0) + passed
