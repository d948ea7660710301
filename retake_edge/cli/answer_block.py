"""An answer on the screen: its text on standard output, and below it where it looked, and at what.

    A red card with the number 42.
    at 14:01-14:09 (44 %), 12:36-12:52 (21 %)
    looked again at 14:00-14:05 and 6 moments that it had missed (24 frames)
    qwen2.5-vl-3b, talk.mp4 0:00-1:02:00, a frame every 0.5 s

Everything but the text goes to standard error; the engine's figures are for -v and --json.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Generator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from retake_edge.cli.progress import shortened, shown_progress
from retake_edge.cli.streams import tell
from retake_edge.formats import clock, spoken_seconds

if TYPE_CHECKING:
    from retake_edge.session.answer import Answer
    from retake_edge.session.session import Session

_LONG_S = 1.95  # between two frames: a gesture, a slide or a sign may fall between them
_NAME_COLUMNS = 40
_LOOK_CLOSER = "shorter events may be missed: --fps or --start/--end look closer"
ON_AVERAGE = " on average, closer where the picture changes"
_NO_ANSWER = "(an empty answer: the model ended at once; ask in other words)"


def write_answer(
    pieces: Generator[str, None, None], session: Session, *, show: bool = True
) -> None:
    """Write an answer as it comes, with a line about the waiting before it; `show` off: no text."""
    n_most, is_on_screen = session.config.generation.max_tokens, show and sys.stdout.isatty()
    written = ""
    with closing(pieces), ExitStack() as waiting:
        progress = waiting.enter_context(shown_progress(stage="answer"))
        for n, piece in enumerate(pieces, 1):
            if is_on_screen and piece:
                waiting.close()  # a line on the same screen would be drawn into the text
            progress("answer", n, n_most)
            if show and (piece := piece if written else piece.lstrip()):
                sys.stdout.write(piece)
                sys.stdout.flush()
                written += piece
    if show:
        typer.echo()
        if not written.strip():
            tell(_NO_ANSWER)


def tell_evidence(answer: Answer) -> None:
    """Write where an answer looked, if anywhere in particular, and what was looked at again."""
    from retake_edge.session.evidence import evidence_line

    if line := evidence_line(answer.evidence):
        tell(line)
    if answer.looked_again is not None:
        tell(str(answer.looked_again))


def tell_facts(session: Session) -> None:
    """Write what an answer rests on; with -v also the engine's figures."""
    tell(facts_line(session))
    if is_verbose():
        use = session.positions(session.engine.answer_end)
        tell(f"{session.video.summary()}; positions {use}")


def facts_line(session: Session) -> str:
    """Return one line: the model, the part that was looked at, and a frame every how long."""
    name = shortened(Path(session.video.path).name, _NAME_COLUMNS)
    start_s, end_s = seen_part(session)
    step_s = frame_spacing_s(session)
    line = f"{session.manifest.name}, {name} {clock(start_s)}-{clock(end_s)}"
    if step_s > 0:
        line += f", a frame every {spoken_seconds(step_s)}"
        line += ON_AVERAGE if session.video.sampling == "change" else ""
    return f"{line} ({_LOOK_CLOSER})" if step_s >= _LONG_S else line


def seen_part(session: Session) -> tuple[float, float]:
    """Return where the part of the video begins and ends that was looked at, in seconds."""
    sampling, duration_s = session.config.sampling, session.video.duration_s
    end_s = duration_s if sampling.end_s is None else min(sampling.end_s, duration_s)
    return sampling.start_s, end_s


def frame_spacing_s(session: Session) -> float:
    """Return the seconds from one frame that was used to the next; 0 for a single frame."""
    video, (start_s, end_s) = session.video, seen_part(session)
    n_used = video.n_frames
    if video.reduced_by == "frames":
        n_used = n_used * video.n_frames_kept // max(1, video.n_grid_frames)
    return (end_s - start_s) / n_used if n_used > 1 else 0.0


def is_verbose() -> bool:
    """Return whether -v was given."""
    return logging.getLogger().isEnabledFor(logging.DEBUG)
