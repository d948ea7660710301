"""Saved videos as a table: what was read, how closely, how far, how large, how old."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence
from typing import Any

from retake_edge.cli.progress import shortened
from retake_edge.formats import duration, shown_bytes, spoken_seconds
from retake_edge.session.others import KEY_LETTERS, guide, part, step_seconds
from retake_edge.session.store.folder import SavedSession, SessionStore

_HEADER = ("KEY", "VIDEO", "PART", "EVERY", "MODEL", "READ", "SIZE", "USED", "FOR")
_NUMBERS = (5, 6, 7)
_VIDEO, _MODEL = 1, 4
_LEAST_NAME = 8
_QUESTION_COLUMNS = 40
_MINUTE, _DAY = 60.0, 86400.0


def session_table(store: SessionStore, sessions: Sequence[SavedSession]) -> str:
    """Return a header and a line each, no wider than the terminal, whole elsewhere.

    The question that a video was read for has a column where one was.
    """
    rows = [_HEADER, *(_row(store, session) for session in sessions)]
    if not any(row[-1] for row in rows[1:]):
        rows = [row[:-1] for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    if sys.stdout.isatty():
        _narrow(widths, shutil.get_terminal_size().columns)
    return "\n".join(_line(row, widths) for row in rows)


def _narrow(widths: list[int], n_columns: int) -> None:
    """Take from the names, the longer one first, what is too much for the terminal."""
    excess = sum(widths) + 2 * (len(widths) - 1) - n_columns
    while excess > 0 and max(widths[_VIDEO], widths[_MODEL]) > _LEAST_NAME:
        longer = _VIDEO if widths[_VIDEO] >= widths[_MODEL] else _MODEL
        widths[longer] -= 1
        excess -= 1


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [
        f"{shortened(text, width):>{width}}"
        if i in _NUMBERS
        else f"{shortened(text, width):<{width}}"
        for i, (text, width) in enumerate(zip(row, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()


def _row(store: SessionStore, session: SavedSession) -> tuple[str, ...]:
    head, facts = session.head, session.facts
    known = bool(facts)
    step_s = step_seconds(facts) if known else 0.0
    return (
        session.key[:KEY_LETTERS],
        str(head.get("video", "?")),
        part(facts) if known else "?",
        spoken_seconds(step_s) if step_s else "-",
        str(head.get("model", "?")),
        _state(store, session),
        shown_bytes(session.n_bytes),
        _age(time.time() - session.used_at_s),
        shortened(" ".join(guide(facts).split()), _QUESTION_COLUMNS) if known else "",
    )


def _state(store: SessionStore, session: SavedSession) -> str:
    """Return how much of it is read, or what is wrong with it."""
    from retake_edge.session.store.key import engine_facts

    if session.problem:
        return "damaged"
    if session.facts.get("engine") != dict(engine_facts()):
        return "old"  # made by another version
    if session.is_complete:
        return "all"
    return f"{100 * _share_read(store, session):.0f} %"


def _share_read(store: SessionStore, session: SavedSession) -> float:
    """Return the share of an unfinished session's frames that is safe."""
    from retake_edge.session.store.checkpoint import read_resume

    found: Any = read_resume(store.resume(session.key))
    if found is None:
        return 0.0
    n_steps = session.facts["frames"]["n_steps"]
    return min(1.0, float(found[0].stream.n_frames / n_steps))


def _age(seconds: float) -> str:
    if seconds < _MINUTE:
        return "now"
    if seconds < _DAY:
        return duration(seconds)
    return f"{seconds / _DAY:.0f} d"
