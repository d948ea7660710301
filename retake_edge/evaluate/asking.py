"""Read one video, ask all its questions, and give a row for each, answered or failed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from retake_edge.errors import MemoryBudgetError, RetakeError, VideoError
from retake_edge.evaluate.jobs import Group, Job
from retake_edge.evaluate.rows import Row

if TYPE_CHECKING:
    from retake_edge.session.answer import Answer
    from retake_edge.session.session import Session

FAILURES = (VideoError, MemoryBudgetError)
"""Errors that fail one video, or one question; any other error ends the run."""


def ask_group(group: Group, open_session: Callable[[Group], Session]) -> Iterator[Row]:
    """Yield a row for every job of a group, in its order.

    Raises:
        RetakeError: the model or the settings cannot work, whatever the video.
    """
    started = time.perf_counter()
    try:
        session = open_session(group)
    except FAILURES as error:
        for job in group.jobs:
            yield failed(job, error)
        return
    with session:
        opened_s = time.perf_counter() - started
        for job in group.jobs:
            try:
                yield _answered(job, session.ask(job.prompt), opened_s)
            except FAILURES as error:
                yield failed(job, error)


def failed(job: Job, error: RetakeError | str) -> Row:
    """Return the row of a job that failed."""
    kind = "WorkerDied" if isinstance(error, str) else type(error).__name__
    return _row(job) | {"text": None, "error": {"kind": kind, "message": str(error)}}


def _answered(job: Job, answer: Answer, opened_s: float) -> Row:
    return _row(job) | {
        "text": answer.text,
        "error": None,
        "n_tokens": answer.n_tokens,
        "evidence": [asdict(span) for span in answer.evidence],
        "session": answer.session.key,
        "opened_s": round(opened_s, 3),
        "answered_s": round(answer.seconds.get("generate", 0.0), 3),
    }


def _row(job: Job) -> Row:
    row: Row = {"key": job.key, "id": job.id, "video": job.video, "question": job.question}
    if job.options:
        row["options"] = list(job.options)
    for name, value in (("answer", job.answer), ("variant", job.variant)):
        if value:
            row[name] = value
    for name, time_s in (("start_s", job.start_s), ("end_s", job.end_s)):
        if time_s is not None:
            row[name] = time_s
    return row
