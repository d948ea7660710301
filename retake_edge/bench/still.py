"""What reading still pictures once saves and costs: the same files read in each way, and asked.

Every video is a file that goes the whole way of `retake-edge ask`: decoded, encoded, prefilled,
asked. Reading all of it and skipping what stands still take turns at being first. Beside them
stands what the same number of encoded frames gives, evenly spaced.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from retake_edge.bench.scenes.footage import FOOTAGE, make_footage, require_footage
from retake_edge.bench.scenes.questions import Question, grade, make_questions
from retake_edge.bench.scenes.render import write_video
from retake_edge.bench.scenes.scene import Scene
from retake_edge.bench.stats import paired_difference, paired_ratio, share
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
WAYS = ("all", "still", "even")
"""Everything is read; what stands still is read once; as many evenly spaced frames are read."""
_SUMMED = ("n_encoded", "n_tokens", "read_s", "cpu_s")
_FPS, _SIZE_PX = 8.0, 448


@dataclass(frozen=True)
class StillSettings:
    """What is run: `n_videos` of `seconds` of each kind of footage, `n_questions` about each.

    `keep_ratio`: share of the cells kept (None: all that fit); `still`: the threshold;
    `long_side_px`: of the frames that the tower gets (None: the model's own rule).
    """

    seed: int = 0
    kinds: tuple[str, ...] = FOOTAGE
    seconds: float = 256.0
    n_videos: int = 4
    n_questions: int = len(TURNS)
    keep_ratio: float | None = None
    still: float = THRESHOLD
    long_side_px: int | None = None

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

    `n_frames` frames were sampled as `n_steps` grid frames; `n_encoded` of these were encoded,
    `n_tokens` prefilled.
    `read_s`: seconds from opening the file to the first question, without loading the model;
    `cpu_s`: of the processor, the decoder's included, with loading.
    `way`: one of WAYS. `spans`: of each card shown for 4 s or more, whether the best evidence span
    begins and ends with it.
    """

    kind: str
    video: int
    way: str
    n_frames: int
    n_steps: int
    n_encoded: int
    n_tokens: int
    n_cells_before: int
    n_cells_kept: int
    read_s: float
    cpu_s: float
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
    """Read every video in each way; return the readings, and what was asked.

    `config`: all settings besides the keep ratio and the threshold; `folder`: for the files.

    Raises:
        ConfigError, VideoError, ModelError: a video cannot be written or read.
    """
    compression = replace(config.compression, keep_ratio=settings.keep_ratio)
    sampling = replace(config.sampling, long_side_px=settings.long_side_px)
    config = replace(config, compression=compression, sampling=sampling)
    readings, asked = list[Reading](), list[dict[str, Any]]()
    n_all = len(settings.kinds) * settings.n_videos
    for at in range(n_all):
        kind, video = settings.kinds[at // settings.n_videos], at % settings.n_videos
        seed = settings.seed * 1000 + video
        scene = make_footage(kind, seed, settings.seconds)
        questions = make_questions(scene, settings.n_questions, seed, TURNS)
        asked += [{"footage": kind, "video": video, **asdict(question)} for question in questions]
        path = write_video(scene, folder / f"{kind}-{video}.mp4", fps=_FPS, size_px=_SIZE_PX)
        once = replace(config, sampling=replace(sampling, still=settings.still))
        for way in ("all", "still") if video % 2 else ("still", "all"):
            asked_for = once if way == "still" else config
            found = _read(path, source, asked_for, scene, questions)
            readings.append(replace(found, kind=kind, video=video, way=way))
            if way == "still":
                n_most = found.n_encoded * found.n_frames // found.n_steps
        if questions:
            even = replace(config, sampling=replace(sampling, max_frames=max(2, n_most)))
            found = _read(path, source, even, scene, questions)
            readings.append(replace(found, kind=kind, video=video, way="even"))
        path.unlink()
        progress(kind, at + 1, n_all)
    return readings, asked


def _read(
    path: Path,
    source: ModelManifest | ModelFiles,
    config: RetakeConfig,
    scene: Scene,
    questions: Sequence[Question],
) -> Reading:
    start, cpu_s = time.perf_counter(), sum(os.times()[:4])
    with open_video(path, source, config, use_cache=False) as session:
        read_s = time.perf_counter() - start - session.times.seconds.get("load", 0.0)
        cpu_s = sum(os.times()[:4]) - cpu_s
        video = session.video
        n_steps = video.n_grid_frames
        texts = [session.ask(question.text).text for question in questions]
        return Reading(
            "",
            0,
            "",
            video.n_frames,
            n_steps,
            n_steps - video.n_still,
            video.n_cells_before - video.n_left_out,
            video.n_cells_before,
            video.n_cells_kept,
            read_s,
            round(cpu_s, 2),
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
    ways = {
        way: sorted((r for r in readings if r.way == way), key=lambda r: (r.kind, r.video))
        for way in WAYS
    }
    right = {way: [right for r in ways[way] for right in r.right] for way in WAYS}
    sums = [
        {name: sum(getattr(r, name) for r in ways[way]) for name in _SUMMED}
        for way in ("all", "still")
    ]
    lost, low, high = paired_difference(right["all"], right["still"])
    cpu_s = ([r.cpu_s for r in ways[way]] for way in ("still", "all"))
    return {
        "kind": kind,
        "encodes_fewer": round(sums[0]["n_encoded"] / sums[1]["n_encoded"], 2),
        "tokens_fewer": round(sums[0]["n_tokens"] / sums[1]["n_tokens"], 2),
        "read_s": [round(way["read_s"], 3) for way in sums],
        "cpu_s": [round(way["cpu_s"], 2) for way in sums],
        "faster": round(sums[0]["cpu_s"] / sums[1]["cpu_s"], 2),
        "cpu_percent": [round(100 * value, 2) for value in paired_ratio(*cpu_s)]
        if len(ways["all"]) > 1
        else None,
        "right": {way: share(right[way]).to_dict() for way in WAYS},
        "lost_points": [round(100 * value, 2) for value in (lost, low, high)],
        "spans": {way: share(s for r in ways[way] for s in r.spans).to_dict() for way in WAYS},
    }


def cost_table(rows: Sequence[dict[str, Any]]) -> str:
    """Return a Markdown table: what reading still pictures once takes of reading everything."""
    lines = [
        "| footage | encodes | tokens | CPU s, all read | CPU s, still once | CPU time "
        "| of a video's, in % |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        factors = [f"1/{row[name]:g}" for name in ("encodes_fewer", "tokens_fewer", "faster")]
        seconds = [f"{s:.1f}" for s in row["cpu_s"]]
        mean, low, high = row.get("cpu_percent") or (None, None, None)
        of_each = "-" if mean is None else f"{mean:.1f} ({low:.1f} to {high:.1f})"
        cells = [row["kind"], *factors[:2], *seconds, factors[2], of_each]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def answers_table(rows: Sequence[dict[str, Any]]) -> str:
    """Return a Markdown table: right answers in %, and the points lost against everything."""
    lines = [
        "| footage | questions | all read | still once | lost | even | spans |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        whole, ours, even = (_percent(row["right"][way]) for way in WAYS)
        lost, low, high = row["lost_points"]
        told = f"{lost:.1f} ({low:.1f} to {high:.1f})"
        spans = " / ".join(_percent(row["spans"][way]) for way in ("all", "still"))
        n = str(row["right"]["all"]["n"])
        lines.append(f"| {' | '.join([row['kind'], n, whole, ours, told, even, spans])} |")
    return "\n".join(lines)


def still_tables(document: dict[str, Any]) -> str:
    """Return all tables of a run file."""
    rows = document["rows"]
    has_answers, has_cost = rows[0]["right"]["all"]["n"] > 0, "cpu_s" in rows[0]
    parts = [cost_table(rows)] if has_cost else []  # the first run files have no CPU time
    return "\n\n".join([*parts, answers_table(rows)] if has_answers else parts)


def _percent(counted: Mapping[str, Any]) -> str:
    return f"{100 * counted['right'] / counted['n']:.1f}" if counted["n"] else "-"
