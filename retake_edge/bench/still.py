"""What leaving out still pictures saves and costs: the same files read in both ways, and asked.

Every video is a file that goes the whole way of `retake-edge ask`: decoded, encoded, prefilled,
asked. The two ways take turns at being first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from retake_edge.bench.scenes.footage import FOOTAGE, make_footage, require_footage
from retake_edge.bench.scenes.questions import Question, grade, make_questions
from retake_edge.bench.scenes.render import write_video
from retake_edge.bench.scenes.scene import Scene
from retake_edge.bench.stats import paired_difference, share
from retake_edge.config import RetakeConfig
from retake_edge.errors import ConfigError
from retake_edge.models.manifest import ModelFiles, ModelManifest
from retake_edge.session.open import open_video
from retake_edge.session.session import Session
from retake_edge.vision.still import THRESHOLD

TURNS = (
    *("number", "when_card", "number_during", "when_object", "object_during", "order"),
    *("number", "when_card", "number_during", "object_during", "exists", "colour"),
    *("background", "first_card", "last_object", "card_exists"),
)
"""Kinds of questions, in turn."""

SPAN_TOLERANCE_S = 2.0
_FPS, _SIZE_PX = 8.0, 448


@dataclass(frozen=True)
class StillSettings:
    """What is run: `n_videos` of `seconds` of each kind of footage, `n_questions` about each.

    `keep_ratio`: share of the cells kept (None: all that fit); `still`: the threshold.
    """

    seed: int = 0
    kinds: tuple[str, ...] = FOOTAGE
    seconds: float = 256.0
    n_videos: int = 4
    n_questions: int = len(TURNS)
    keep_ratio: float | None = None
    still: float = THRESHOLD

    def __post_init__(self) -> None:
        require_footage(self.kinds)
        if self.seconds < 16 or self.n_videos < 1 or self.n_questions < 0 or self.seed < 0:
            raise ConfigError(
                "--seconds must be at least 16, --videos 1, --questions and --seed 0."
            )
        if self.still <= 0:
            raise ConfigError("--still is off, but it is what is measured.")


@dataclass(frozen=True)
class Reading:
    """One video read in one way, with the answers that it gave.

    `n_steps` grid frames were sampled, `n_encoded` of them encoded; `n_tokens` were prefilled.
    `read_s`: seconds from opening the file to the first question, without loading the model.
    `spans`: of each card shown for 4 s or more, whether the best evidence span begins and ends with
    it.
    """

    kind: str
    video: int
    skips: bool
    n_steps: int
    n_encoded: int
    n_tokens: int
    n_cells_before: int
    n_cells_kept: int
    read_s: float
    seconds: dict[str, float]
    right: list[bool] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    spans: list[bool] = field(default_factory=list)


def run_still(
    source: ModelManifest | ModelFiles,
    settings: StillSettings,
    config: RetakeConfig,
    folder: Path,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> tuple[list[Reading], list[dict[str, Any]]]:
    """Read every video in both ways; return the readings, and what was asked.

    `config`: all settings besides the keep ratio and the threshold; `folder`: for the files.

    Raises:
        ConfigError, VideoError, ModelError: a video cannot be written or read.
    """
    readings, asked = list[Reading](), list[dict[str, Any]]()
    n_all = len(settings.kinds) * settings.n_videos
    for at in range(n_all):
        kind, video = settings.kinds[at // settings.n_videos], at % settings.n_videos
        seed = settings.seed * 1000 + video
        scene = make_footage(kind, seed, settings.seconds)
        questions = make_questions(scene, settings.n_questions, seed, TURNS)
        asked += [{"footage": kind, "video": video, **asdict(question)} for question in questions]
        path = write_video(scene, folder / f"{kind}-{video}.mp4", fps=_FPS, size_px=_SIZE_PX)
        for skips in ((False, True), (True, False))[video % 2]:
            readings.append(_read(path, source, settings, config, scene, questions, skips))
            readings[-1] = replace(readings[-1], kind=kind, video=video)
        path.unlink()
        progress(kind, at + 1, n_all)
    return readings, asked


def _read(
    path: Path,
    source: ModelManifest | ModelFiles,
    settings: StillSettings,
    config: RetakeConfig,
    scene: Scene,
    questions: Sequence[Question],
    skips: bool,
) -> Reading:
    sampling = replace(config.sampling, still=settings.still if skips else 0.0)
    compression = replace(config.compression, keep_ratio=settings.keep_ratio)
    config = replace(config, sampling=sampling, compression=compression)
    start = time.perf_counter()
    with open_video(path, source, config, use_cache=False) as session:
        read_s = time.perf_counter() - start - session.times.seconds.get("load", 0.0)
        video = session.video
        n_steps = video.n_grid_frames
        texts = [session.ask(question.text).text for question in questions]
        return Reading(
            "",
            0,
            skips,
            n_steps,
            n_steps - video.n_still,
            video.n_cells_before - video.n_left_out,
            video.n_cells_before,
            video.n_cells_kept,
            read_s,
            {name: round(s, 4) for name, s in session.index_seconds.items()},
            [grade(q, text) for q, text in zip(questions, texts, strict=True)],
            texts,
            _spans(session, scene) if questions else [],
        )


def _spans(session: Session, scene: Scene) -> list[bool]:
    """Whether the best span of each longer card is the time for which it is shown."""
    found = []
    for card in scene.cards:
        if card.end_s - card.start_s >= 4:
            answer = session.ask(f"What number is on the {card.colour} card?")
            ends = [(s.start_s - card.start_s, s.end_s - card.end_s) for s in answer.evidence[:1]]
            found.append(any(max(map(abs, gaps)) <= SPAN_TOLERANCE_S for gaps in ends))
    return found


def summary(readings: Sequence[Reading]) -> list[dict[str, Any]]:
    """Return a row for each kind of footage, and one for all that have questions: both ways."""
    kinds = list(dict.fromkeys(reading.kind for reading in readings))
    rows = [_row(kind, [r for r in readings if r.kind == kind]) for kind in kinds]
    return rows + ([_row("all", readings)] if len(kinds) > 1 else [])


def _row(kind: str, readings: Sequence[Reading]) -> dict[str, Any]:
    ways = [
        sorted((r for r in readings if r.skips == skips), key=lambda r: (r.kind, r.video))
        for skips in (False, True)
    ]
    whole, ours = ([right for r in way for right in r.right] for way in ways)
    sums = [
        {name: sum(getattr(r, name) for r in way) for name in ("n_encoded", "n_tokens", "read_s")}
        for way in ways
    ]
    lost, low, high = paired_difference(whole, ours)
    return {
        "kind": kind,
        "encodes_fewer": round(sums[0]["n_encoded"] / sums[1]["n_encoded"], 2),
        "tokens_fewer": round(sums[0]["n_tokens"] / sums[1]["n_tokens"], 2),
        "read_s": [round(way["read_s"], 3) for way in sums],
        "faster": round(sums[0]["read_s"] / sums[1]["read_s"], 2),
        "right": [share(whole).to_dict(), share(ours).to_dict()],
        "lost_points": [round(100 * value, 2) for value in (lost, low, high)],
        "spans": [share(s for r in way for s in r.spans).to_dict() for way in ways],
    }


def still_table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the summary as a Markdown table: of each figure the part of reading everything."""
    lines = [
        "| footage | encodes | tokens | reading time | right, all read | right, still not | lost |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        has_questions = row["right"][0]["n"] > 0
        right = [f"{100 * r['right'] / r['n']:.1f}" if r["n"] else "-" for r in row["right"]]
        lost, low, high = row["lost_points"]
        told = f"{lost:.1f} ({low:.1f} to {high:.1f})" if has_questions else "-"
        factors = [f"1/{row[name]:g}" for name in ("encodes_fewer", "tokens_fewer", "faster")]
        lines.append(f"| {' | '.join([row['kind'], *factors, *right, told])} |")
    return "\n".join(lines)
