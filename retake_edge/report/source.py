"""Gather a report from an open session, or from one that lies in the cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from retake_edge.errors import SessionError
from retake_edge.llama.buffers import peak_memory_bytes
from retake_edge.report.page import Report, ReportAnswer
from retake_edge.report.pictures import Thumbnail
from retake_edge.session.answer import versions
from retake_edge.session.prefilled import video_map_of
from retake_edge.session.session import Session
from retake_edge.session.store.checkpoint import Chunks, open_journal
from retake_edge.session.store.folder import SessionStore
from retake_edge.session.store.journal import ARRAYS, read_arrays
from retake_edge.session.video_map import VideoStats

_PARTS_OF_OTHERS = ("first_token",)


def answered(session: Session, questions: Sequence[str]) -> list[ReportAnswer]:
    """Ask a session questions, each on its own, and return the answers with their attention.

    Raises:
        MemoryBudgetError: a question does not fit into the cells left.
    """
    answers = []
    for question in questions:
        answer = session.ask(question)
        answers.append(ReportAnswer(question, answer.text, answer.evidence, session.frame_weights))
    return answers


def report_of(session: Session, answers: Sequence[ReportAnswer]) -> Report:
    """Return the report of an open session, with the seconds that reading the video took."""
    seconds = dict(session.index_seconds)
    if answers:
        seconds["generate"] = session.last_answer().seconds.get("generate", 0.0)
    return Report(
        session.video,
        session.video_map,
        session.config.to_dict(),
        session.model_facts(),
        versions(),
        _whole_stages(seconds),
        peak_memory_bytes(),
        _thumbnails(session.thumbnails),
        answers,
    )


def saved_report(store: SessionStore, prefix: str) -> Report:
    """Return the report of a saved session, without loading its model or its cells.

    Raises:
        SessionError: no one finished session begins with `prefix`, or it is damaged.
    """
    key = store.find(prefix)
    path = store.complete(key)
    if not path.is_file():
        raise SessionError(f"The session {key} is not finished; run 'retake-edge index' again.")
    journal = open_journal(path, key)
    head, end, chunks = journal.head(), journal.last(), Chunks()
    for record in journal.checked():
        if record.tag == ARRAYS:
            chunks.add(read_arrays(record))
    try:
        return Report(
            VideoStats.from_dict(end["video"]),
            video_map_of(chunks.frame_times_s[:: head["frames_per_step"]], chunks),
            head["config"],
            {"name": head["model"]},
            {},
            _whole_stages(end["seconds"]),
            None,
            _thumbnails(chunks.thumbnails),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise journal.error(f"its records do not fit ({error!r})") from None


def _whole_stages(seconds: Mapping[str, Any]) -> dict[str, float]:
    """Leave out what is a part of another stage."""
    return {name: float(s) for name, s in seconds.items() if name not in _PARTS_OF_OTHERS}


def _thumbnails(found: Sequence[tuple[float, bytes]]) -> list[Thumbnail]:
    return [Thumbnail(time_s, jpeg) for time_s, jpeg in found]
