"""Small sets with known answers, in the shapes in which the four benchmarks are published.

The videos and questions are those of `bench quality`, so that both must find the same share right.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from retake_edge.bench.quality.run import video_seed
from retake_edge.bench.quality.videos import QUESTIONS_PER_VIDEO, BenchVideo, make_video
from retake_edge.bench.scenes.questions import Question, clock
from retake_edge.bench.scenes.render import write_video
from retake_edge.bench.scenes.scene import BACKGROUNDS, COLOURS, MOTIONS, SHAPES
from retake_edge.errors import ConfigError
from retake_edge.evaluate.records import Record
from retake_edge.evaluate.sets import LETTERS

SAMPLE_FPS = 2.0
"""Frames a second that the bundled model looks at."""
_APART_S = 5
_MLVU_TYPES = ("plotQA", "needle", "ego", "count", "order", "anomaly_reco", "topic_reasoning")
_LVBENCH_TYPES = {
    "needle": ["key information retrieval"],
    "when": ["temporal grounding"],
    "order": ["event understanding", "reasoning"],
    "other": ["entity recognition"],
}


@dataclass(frozen=True)
class Sample:
    """A video, and its questions with four options each."""

    name: str
    index: int
    video: BenchVideo
    options: tuple[tuple[str, ...], ...]

    def asked(self) -> Iterator[tuple[int, Question, tuple[str, ...], str]]:
        """Yield (number, question, options, right letter)."""
        for n, (question, options) in enumerate(
            zip(self.video.questions, self.options, strict=True)
        ):
            yield n, question, options, LETTERS[options.index(question.answer)]


def make_samples(seed: int, n_videos: int, seconds: float) -> list[Sample]:
    """Return samples; the same seed gives the same ones."""
    n_frames = round(seconds * SAMPLE_FPS)
    samples = []
    for i in range(n_videos):
        video = make_video(video_seed(seed, n_frames, i), n_frames, SAMPLE_FPS, QUESTIONS_PER_VIDEO)
        rng = np.random.default_rng((seed, i))
        options = tuple(_options(question, seconds, rng) for question in video.questions)
        samples.append(Sample(f"scene-{seed}-{i}", i, video, options))
    return samples


def write_samples(
    name: str, folder: Path, samples: Sequence[Sample], fps: float = 8.0, size_px: int = 224
) -> Path:
    """Write a set and its videos, and return its table.

    Raises:
        ConfigError: there is no such set, or the folder cannot be written. VideoError: a video
        cannot be written.
    """
    if name not in _WRITERS:
        raise ConfigError(f"There is no set {name!r}; there are {', '.join(_WRITERS)}.")
    try:
        for sample in samples:
            file = folder / _video_path(name, sample)
            file.parent.mkdir(parents=True, exist_ok=True)
            write_video(sample.video.scene, file, fps=fps, size_px=size_px)
        return _WRITERS[name](folder, samples)
    except OSError as error:
        raise ConfigError(f"Cannot write in {folder} ({error.strerror}).") from None


def _video_path(name: str, sample: Sample) -> str:
    folders = {"videomme": "data", "lvbench": "all_videos", "longvideobench": "videos"}
    return f"{folders.get(name) or f'MLVU/video/{_mlvu_file(sample)}'}/{sample.name}.mp4"


def _mlvu_file(sample: Sample) -> str:
    number = sample.index % len(_MLVU_TYPES)
    return f"{number + 1}_{_MLVU_TYPES[number]}"


def _videomme(folder: Path, samples: Sequence[Sample]) -> Path:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ConfigError(
            "videomme is a parquet file, and pyarrow, which writes it, is not installed; "
            "install retake-edge[eval]."
        ) from None
    records = [
        {
            "video_id": f"{sample.index:03d}",
            "duration": ("short", "medium", "long")[sample.index % 3],
            "domain": "Knowledge",
            "sub_category": "Technology",
            "url": "",
            "videoID": sample.name,
            "question_id": f"{sample.index:03d}-{n}",
            "task_type": question.kind,
            "question": question.text,
            "options": [f"{x}. {text}" for x, text in zip(LETTERS, options, strict=False)],
            "answer": letter,
        }
        for sample in samples
        for n, question, options, letter in sample.asked()
    ]
    path = folder / "videomme" / "test-00000-of-00001.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), path)
    return path


def _mlvu(folder: Path, samples: Sequence[Sample]) -> Path:
    files: dict[str, list[Record]] = {}
    for sample in samples:
        files.setdefault(_mlvu_file(sample), []).extend(
            {
                "video": f"{sample.name}.mp4",
                "duration": sample.video.scene.seconds,
                "question": question.text,
                "candidates": list(options),
                "answer": question.answer,
                "question_type": _mlvu_file(sample).split("_", 1)[1],
            }
            for _, question, options, _ in sample.asked()
        )
    for name, records in files.items():
        path = _write_json(folder / "MLVU" / "json" / f"{name}.json", records)
    return path.parent


def _lvbench(folder: Path, samples: Sequence[Sample]) -> Path:
    from retake_edge.bench.quality.videos import group

    lines = []
    for sample in samples:
        asked = [
            {
                "uid": f"{sample.index}-{n}",
                "question": "\n".join(
                    [question.text, *(f"({x}) {o}" for x, o in zip(LETTERS, options, strict=False))]
                ),
                "answer": letter,
                "question_type": _LVBENCH_TYPES[group(question.kind)],
                "time_reference": "",
            }
            for n, question, options, letter in sample.asked()
        ]
        lines.append(json.dumps({"key": sample.name, "type": "cartoon", "qa": asked}))
    path = folder / "video_info.meta.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _longvideobench(folder: Path, samples: Sequence[Sample]) -> Path:
    records = [
        {
            "id": f"{sample.name}_{n}",
            "video_id": sample.name,
            "video_path": f"{sample.name}.mp4",
            "question": question.text,
            "candidates": list(options),
            "correct_choice": LETTERS.index(letter),
            "duration_group": 15 if sample.video.scene.seconds <= 15 else 60,
            "question_category": "S2E",
            "duration": sample.video.scene.seconds,
        }
        for sample in samples
        for n, question, options, letter in sample.asked()
    ]
    return _write_json(folder / "lvb_val.json", records)


_WRITERS: dict[str, Callable[[Path, Sequence[Sample]], Path]] = {
    "videomme": _videomme,
    "mlvu": _mlvu,
    "lvbench": _lvbench,
    "longvideobench": _longvideobench,
}


def _write_json(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    return path


def _options(question: Question, seconds: float, rng: np.random.Generator) -> tuple[str, ...]:
    """Four options in random order, the right answer among them; times lie 5 s apart or more."""
    others = [other for other in _alike(question, seconds) if other != question.answer]
    chosen = [others[int(i)] for i in rng.permutation(len(others))[:3]]
    options = [question.answer, *chosen]
    return tuple(options[int(i)] for i in rng.permutation(len(options)))


def _alike(question: Question, seconds: float) -> list[str]:
    """Answers of the same kind."""
    answer = question.answer
    if question.accepts == "clock":
        minutes, second = answer.split(":")
        right = 60 * int(minutes) + int(second)
        around = range(right % _APART_S, int(max(seconds, 4 * _APART_S)), _APART_S)
        return [clock(time_s) for time_s in around]
    if answer.isdigit():
        value = int(answer)
        return [str(n) for n in (range(10, 100) if value >= 10 else range(10))]
    kinds = (COLOURS, SHAPES, BACKGROUNDS, MOTIONS, ("yes", "no", "only twice", "in part"))
    for kind in kinds:
        if answer in kind:
            return list(kind)
    return [f"{colour} {shape}" for colour in COLOURS for shape in SHAPES]
