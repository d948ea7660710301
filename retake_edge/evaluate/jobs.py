"""Questions about many videos, grouped so that each video is read once.

A job's key says what is asked and where, so that rows and jobs find each other again in whatever
order either of them stands.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from retake_edge.config import RetakeConfig
from retake_edge.errors import ConfigError
from retake_edge.evaluate.records import Record, read_records
from retake_edge.evaluate.sets import LETTERS
from retake_edge.formats import seconds_of
from retake_edge.questions import checked_question

_KNOWN = ("id", "video", "question", "options", "answer", "start", "end")


@dataclass(frozen=True)
class Job:
    """One question of one video.

    `video` is what it is called, `file` where it is. `prompt` is what the model reads; `question`,
    `options` and `answer` ('': unknown) as given.
    `start_s`, `end_s`: the stretch of the video. `variant`: the settings' name in a comparison.
    """

    key: str
    id: str
    video: str
    file: Path
    prompt: str
    question: str
    options: tuple[str, ...] = ()
    answer: str = ""
    start_s: float | None = None
    end_s: float | None = None
    variant: str = ""


@dataclass(frozen=True)
class Group:
    """The jobs of one reading of a video."""

    file: Path
    start_s: float | None
    end_s: float | None
    variant: str
    jobs: tuple[Job, ...] = field(compare=False)


def questions(group: Group) -> str:
    """Return how many questions a group has, in words."""
    n = len(group.jobs)
    return f"{n} question{'' if n == 1 else 's'}"


def read_jobs(path: Path) -> list[Job]:
    """Return the jobs of a JSONL file; a video's relative path is taken from the file's folder.

    Raises:
        ConfigError: the file cannot be read, or a line is no job.
    """
    if not path.is_file():
        raise ConfigError(f"There is no file {path}; give a JSONL file of questions.")
    jobs = [_job(record, path, n) for n, record in enumerate(read_records(path), 1)]
    if not jobs:
        raise ConfigError(f"{path} has no questions; give a line of JSON for each.")
    return numbered(jobs)


def numbered(jobs: Iterable[Job]) -> list[Job]:
    """Return jobs whose keys differ: the same question asked again gets a number."""
    seen: Counter[str] = Counter()
    found = []
    for job in jobs:
        seen[job.key] += 1
        again = f"-{seen[job.key]}" if seen[job.key] > 1 else ""
        found.append(replace(job, key=job.key + again) if again else job)
    return found


def _job(record: Record, path: Path, n: int) -> Job:
    where = f"Line {n} of {path}"
    unknown = sorted(set(record) - set(_KNOWN))
    if unknown:
        raise ConfigError(f"{where} has {unknown[0]!r}; a job has {', '.join(_KNOWN)}.")
    for name in ("video", "question"):
        if not isinstance(record.get(name), str):
            raise ConfigError(f"{where} has no {name!r}; a job needs a video and a question.")
    options = record.get("options") or []
    if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
        raise ConfigError(f"{where} has options {options!r}; they must be a list of texts.")
    if len(options) > len(LETTERS):
        raise ConfigError(f"{where} has {len(options)} options; {len(LETTERS)} are the most.")
    start_s, end_s = (
        _time(record.get(name), f"The {name} in {where}") for name in ("start", "end")
    )
    if end_s is not None and end_s <= (start_s or 0.0):
        raise ConfigError(f"{where} ends at {end_s:g} s, which is not after its start.")
    question = checked_question(record["question"])
    answer = _answer(record.get("answer"), options, where)
    return Job(
        key=digest([record["video"], question, options, start_s, end_s]),
        id=str(record.get("id", n)),
        video=record["video"],
        file=path.parent / record["video"],
        prompt=question,
        question=question,
        options=tuple(options),
        answer=answer,
        start_s=start_s,
        end_s=end_s,
    )


def _time(value: Any, name: str) -> float | None:
    if value is None or isinstance(value, str):
        return seconds_of(name, value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
        raise ConfigError(f"{name} is {value!r}, but it must be a time, such as 90 or 1:30.")
    return float(value)


def _answer(value: Any, options: Sequence[str], where: str) -> str:
    """The right answer: a letter where there are options."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ConfigError(f"{where} has the answer {value!r}, but it must be a text.")
    text = str(value)
    if not options:
        return text
    if text in options:
        return LETTERS[options.index(text)]
    if len(text) == 1 and text in LETTERS[: len(options)]:
        return text
    raise ConfigError(f"{where} has the answer {text!r}, which is none of its options.")


def grouped(jobs: Sequence[Job], done: frozenset[str] = frozenset()) -> list[Group]:
    """Return the jobs not yet done, by reading, in the order in which the videos come first."""
    found: dict[tuple[Path, float | None, float | None, str], list[Job]] = {}
    for job in jobs:
        if job.key not in done:
            found.setdefault((job.file, job.start_s, job.end_s, job.variant), []).append(job)
    order = {file: n for n, file in enumerate(dict.fromkeys(job.file for job in jobs))}
    groups = [Group(*where, tuple(members)) for where, members in found.items()]
    return sorted(groups, key=lambda group: order[group.file])


def shard(jobs: Sequence[Job], text: str) -> list[Job]:
    """Return the jobs of shard i of n, written i/n: every n-th video with all its questions.

    Raises:
        ConfigError: it is not written so, or i is not in 1..n.
    """
    first, slash, second = text.partition("/")
    if not (slash and first.isdecimal() and second.isdecimal() and 1 <= int(first) <= int(second)):
        raise ConfigError(f"--shard is {text!r}, but it must be i/n, such as 1/4 or 4/4.")
    videos = list(dict.fromkeys(job.file for job in jobs))
    mine = set(videos[int(first) - 1 :: int(second)])
    return [job for job in jobs if job.file in mine]


def run_digest(config: RetakeConfig, model: Mapping[str, str], **more: object) -> str:
    """Return what names all that answers depend on, besides the question and the machine."""
    values = config.to_dict()
    runtime = values.pop("runtime")
    return digest([values, runtime["type_k"], runtime["type_v"], dict(model), more])


def digest(value: object) -> str:
    """Return 16 hexadecimal digits of a JSON value's SHA-256."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
