"""Make and compare files, several at a time."""

from __future__ import annotations

import multiprocessing
import re
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from pathlib import Path

from video_matrix.case import make_file
from video_matrix.cases import all_cases
from video_matrix.compare import Verdict, compare


def run(names: list[str], folder: Path, jobs: int) -> Iterator[Verdict]:
    """Make the named files in `folder`, compare them, and yield their verdicts in order.

    Each job is a process of its own: warnings are caught for a whole process.
    """
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(judge, names, repeat(folder))


def judge(name: str, folder: Path) -> Verdict:
    """Make and compare one file; that it cannot be made is a fault of the matrix, and said."""
    [one] = [c for c in all_cases() if c.name == name]
    try:
        path = make_file(name, one.steps, folder / re.sub(r"\W", "_", name), folder / "sources")
        return compare(one, path)
    except Exception as error:
        return Verdict(name, [f"{type(error).__name__}: {error}"])
