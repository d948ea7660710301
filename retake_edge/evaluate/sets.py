"""The four benchmarks as they are published: their questions, options, answers and groups.

Each set is one function from a file's records to items. Where a set is published in two shapes
(MLVU and LVBench with the options inside the question, or beside it), both are read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from retake_edge.errors import ConfigError
from retake_edge.evaluate.records import SUFFIXES, Record, read_records

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Item:
    """A question of a benchmark.

    `video`: its file's name, or the part of its path that the set gives. `question`: without its
    options; `published`: as the set has it, with them where it has them inside. `options`: their
    text without a letter. `answer`: the right letter, or '' if the set keeps it secret. `groups`:
    by what the set's scores are split (`duration`, `type`...), several values where the set gives
    several.
    """

    id: str
    video: str
    question: str
    published: str
    options: tuple[str, ...]
    answer: str
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def read_set(name: str, folder: Path) -> list[Item]:
    """Return the items of the set in a folder, in the order of its files.

    Raises:
        ConfigError: there is no such set, it is not in the folder, or a record lacks a field.
    """
    if name not in SETS:
        raise ConfigError(f"There is no set {name!r}; there are {', '.join(SETS)}.")
    if not folder.is_dir():
        raise ConfigError(f"There is no folder {folder}; give the one that {name} is in.")
    source = SETS[name]
    for patterns in source.files:
        paths = [path for path in _tables(folder) if _fits(patterns, path.relative_to(folder))]
        if paths:
            return _unique([item for path in paths for item in _items(source, path)])
    raise ConfigError(f"There is no table of {name} in {folder}; it must have {source.looks_like}.")


def _fits(pattern: str, path: Path) -> bool:
    return re.search(pattern, f"/{path.as_posix()}", re.IGNORECASE) is not None


def _tables(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)


def _items(source: SetSource, path: Path) -> Iterator[Item]:
    for n, record in enumerate(read_records(path), 1):
        try:
            for k, item in enumerate(source.items(record, path)):
                yield item if item.id else replace(item, id=f"{path.stem}-{n}-{k}")
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            what = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise ConfigError(f"Record {n} of {path} cannot be read: it has {what}.") from None


def _unique(items: list[Item]) -> list[Item]:
    seen: set[str] = set()
    for item in items:
        if item.id in seen:
            raise ConfigError(
                f"The question {item.id!r} is there twice; keep one table of the set."
            )
        seen.add(item.id)
    return items


def _videomme(record: Record, path: Path) -> Iterator[Item]:
    options = tuple(str(option) for option in record["options"])
    question = str(record["question"])
    groups = {
        "duration": (str(record["duration"]),),
        "task": (str(record["task_type"]),),
        "domain": (str(record["domain"]),),
        "sub_category": (str(record["sub_category"]),),
    }
    yield Item(
        str(record["question_id"]),
        str(record["videoID"]),
        question,
        "\n".join([question, *options]),
        tuple(_without_letter(option) for option in options),
        str(record["answer"]),
        groups,
    )


def _mlvu(record: Record, path: Path) -> Iterator[Item]:
    if record.get("candidates") is None and "video_name" not in record:
        return  # the two generation tasks, which a judge model scores
    kind = str(record.get("task_type") or _mlvu_kind(record, path))
    video = str(record.get("video_name") or f"{path.stem}/{record['video']}")
    question, options = _apart(str(record["question"]))
    options = options or tuple(str(option) for option in record["candidates"])
    answer = str(record["answer"])
    if answer not in LETTERS[: len(options)]:
        answer = LETTERS[options.index(answer)]
    published = str(record["question"])
    if published == question:
        published = _lettered(question, options)
    id_ = str(record.get("question_id") or "")
    yield Item(id_, video, question, published, options, answer, {"type": (kind,)})


def _mlvu_kind(record: Record, path: Path) -> str:
    named = re.fullmatch(r"\d+_(\w+)", path.stem)
    return named[1] if named else str(record["question_type"])


def _lvbench(record: Record, path: Path) -> Iterator[Item]:
    video = str(record.get("video_path") or record["key"])
    for asked in record.get("qa") or [record]:
        published = str(asked["question"])
        question, options = _apart(published)
        if not options:
            options = tuple(str(option) for option in asked["options"])
            published = _lettered(question, options)
        types = asked["question_type"]
        groups = {"type": (types,) if isinstance(types, str) else tuple(str(t) for t in types)}
        id_ = str(asked.get("uid") or "")
        yield Item(id_, video, question, published, options, str(asked["answer"]), groups)


def _longvideobench(record: Record, path: Path) -> Iterator[Item]:
    options = record.get("candidates")
    if options is None:
        options = [record.get(f"option{n}", "N/A") for n in range(5)]
        options = [option for option in options if option not in ("N/A", None)]
    options = tuple(str(option) for option in options)
    right = record.get("correct_choice")
    question = str(record["question"])
    groups = {
        "duration": (str(record["duration_group"]),),
        "type": (str(record["question_category"]),),
    }
    yield Item(
        str(record["id"]),
        str(record["video_path"]),
        question,
        _lettered(question, options, "{}. {}"),
        options,
        "" if right is None or int(right) < 0 else LETTERS[int(right)],
        groups,
    )


def _without_letter(option: str) -> str:
    return re.sub(r"^[A-Z]\. ", "", option)


def _lettered(question: str, options: tuple[str, ...], form: str = "({}) {}") -> str:
    lines = [form.format(letter, option) for letter, option in zip(LETTERS, options, strict=False)]
    return "\n".join([question, *lines])


def _apart(text: str) -> tuple[str, tuple[str, ...]]:
    """A question and its options, where they stand below it as lines of (A), (B), ..."""
    parts = re.split(r"\n\s*\(([A-Z])\)\s*", text)
    if "".join(parts[1::2]) != LETTERS[: len(parts) // 2] or len(parts) == 1:
        return text, ()
    return parts[0], tuple(option.strip() for option in parts[2::2])


@dataclass(frozen=True)
class SetSource:
    """Ways to find and read a set; `files`: patterns of its tables, the first with a hit counts."""

    items: Callable[[Record, Path], Iterator[Item]]
    files: tuple[str, ...]
    looks_like: str


SETS: dict[str, SetSource] = {
    "videomme": SetSource(
        _videomme,
        (r"/test-[^/]*\.parquet$", r"/video-?mme[^/]*\.(parquet|jsonl?)$"),
        "videomme/test-00000-of-00001.parquet",
    ),
    "mlvu": SetSource(
        _mlvu,
        (r"/[1-7]_\w+\.json$", r"/test-[^/]*\.parquet$", r"/mlvu[^/]*\.(parquet|jsonl?)$"),
        "json/1_plotQA.json and the others, or a parquet file",
    ),
    "lvbench": SetSource(
        _lvbench,
        (r"/video_info\.meta\.jsonl$", r"/(train|test)-[^/]*\.parquet$"),
        "video_info.meta.jsonl or a parquet file",
    ),
    "longvideobench": SetSource(
        _longvideobench,
        (r"/lvb_val\.json$", r"/validation-[^/]*\.parquet$"),
        "lvb_val.json or validation-00000-of-00001.parquet",
    ),
}
