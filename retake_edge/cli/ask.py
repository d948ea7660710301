"""retake-edge ask: questions about one video."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retake_edge.cli import help as groups
from retake_edge.cli.answer_block import tell_evidence, tell_facts, write_answer
from retake_edge.cli.help import examples
from retake_edge.cli.opening import open_session
from retake_edge.cli.options import CliRequest, opens_video
from retake_edge.cli.streams import standard_input, tell
from retake_edge.cli.videos import video_and_question
from retake_edge.config import with_values
from retake_edge.errors import ConfigError
from retake_edge.questions import checked_question, decoded, questions_of

if TYPE_CHECKING:
    from retake_edge.session.answer import Answer
    from retake_edge.session.session import Session


EXAMPLES = examples(
    'ask talk.mp4 "What does she draw, and when?"',
    'ask talk.mp4 -q "Who speaks?" -q "When does he leave?"',
    'ask talk.mp4 "What is on the slide?" --start 10:00 --end 25:00',
)


@opens_video
def ask(
    video: Annotated[
        str, typer.Argument(metavar="VIDEO", help="The video file, or the key of a saved one.")
    ],
    question: Annotated[
        str | None, typer.Argument(metavar="[QUESTION]", help="What to ask.")
    ] = None,
    more: Annotated[
        list[str] | None,
        typer.Option(
            "-q",
            "--question",
            help="What to ask; may be given again.",
            metavar="TEXT",
            rich_help_panel=groups.ANSWER,
        ),
    ] = None,
    questions: Annotated[
        str | None,
        typer.Option(
            help="A file with a question a line; # starts a comment. -: standard input.",
            metavar="FILE",
            rich_help_panel=groups.QUESTIONS,
        ),
    ] = None,
    guided: Annotated[
        bool,
        typer.Option(
            "--guided",
            help="Read the video for the question: keep what it looks at.",
            rich_help_panel=groups.KEEPING,
        ),
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Print one JSON document: a list unless one was asked.",
            rich_help_panel=groups.ANSWER,
        ),
    ] = False,
    save_frames: Annotated[
        Path | None,
        typer.Option(
            help="Save the frames that the answer looked at.",
            metavar="DIR",
            rich_help_panel=groups.ANSWER,
        ),
    ] = None,
    *,
    request: CliRequest,
) -> None:
    """Answer questions about a video; each is answered as if it were the only one.

    With --guided the video is read anew for each question, and what the question looks at decides
    what is kept. What is saved of such a reading answers that question alone.
    """
    file, question = video_and_question(video, question)
    asked = _questions(question, more or [], questions)
    answers: list[Answer] = []
    for part in [[text] for text in asked] if guided else [asked]:
        opened = _guided(request, part[0]) if guided else request
        with open_session(file, opened) as session:
            found = list(_answered(session, part, show=not as_json, is_one=len(asked) == 1))
            if not as_json:
                tell_facts(session)
            if save_frames is not None:
                _save_frames(file, found, save_frames, session)
        answers += found
    if as_json:
        documents = [answer.to_dict() for answer in answers]
        is_single = question is not None and len(documents) == 1
        typer.echo(json.dumps(documents[0] if is_single else documents, indent=2))


def _questions(question: str | None, more: list[str], file: str | None) -> list[str]:
    """All questions in the order they were given."""
    asked = [] if question is None else [question]
    asked += more
    if file is not None:
        asked += questions_of(_read(file))
    if not asked:
        raise ConfigError("There is no question; give one after the video, with -q or --questions.")
    return [checked_question(text) for text in asked]


def _read(file: str) -> str:
    if file == "-":
        return decoded("The text on the standard input", standard_input().read())
    try:
        return decoded(f"The file {file}", Path(file).read_bytes())
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"Cannot read the questions in {file} ({reason}).") from None


def _guided(request: CliRequest, question: str) -> CliRequest:
    """The request as one that reads the video for a question."""
    config = with_values(request.config, compression={"guide": question})
    return replace(request, config=config, given=request.given | {"compression.guide"})


def _answered(
    session: Session, questions: list[str], *, show: bool, is_one: bool
) -> Iterator[Answer]:
    for question in questions:
        if show and not is_one:
            tell(f"> {question}")
        write_answer(session.stream(question), session, show=show)
        answer = session.last_answer()
        if show:
            tell_evidence(answer)
        yield answer


def _save_frames(video: Path, answers: list[Answer], folder: Path, session: Session) -> None:
    from retake_edge.report.pictures import save_frames
    from retake_edge.video.sampling import time_grid

    sampling, manifest = session.config.sampling, session.manifest
    step_s = time_grid(  # fewer frames than the rate says may have been looked at
        session.video.duration_s,
        fps=sampling.fps or manifest.fps,
        max_frames=sampling.max_frames or manifest.max_frames,
        start_s=sampling.start_s,
        end_s=sampling.end_s,
    )[1]
    for answer in answers:
        paths = save_frames(video, answer.evidence, folder, fps=1 / step_s)
        tell(f"{len(paths)} frames saved in {folder}")
