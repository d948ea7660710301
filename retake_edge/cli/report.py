"""retake-edge report: a page about a video, its cells and the answers to questions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retake_edge.cli.help import examples
from retake_edge.cli.opening import open_session
from retake_edge.cli.options import CliRequest, opens_video
from retake_edge.cli.saved import saved_key
from retake_edge.cli.videos import video_file
from retake_edge.errors import ConfigError
from retake_edge.questions import checked_question

if TYPE_CHECKING:
    from retake_edge.report.page import Report


EXAMPLES = examples(
    'report talk.mp4 -q "What does she draw?"',
    "report talk.mp4 -o talk.html --contact-sheet talk.png",
    'report talk.mp4 -q "Who speaks?" --link-video',
)


@opens_video
def report(
    source: Annotated[
        str, typer.Argument(metavar="VIDEO|KEY", help="A video file, or the key of a saved one.")
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The HTML file to write.", metavar="FILE")
    ] = Path("report.html"),
    questions: Annotated[
        list[str] | None,
        typer.Option("-q", "--question", help="What to ask; may be given again.", metavar="TEXT"),
    ] = None,
    sheet: Annotated[
        Path | None,
        typer.Option("--contact-sheet", help="Also write the keyframes as a PNG.", metavar="FILE"),
    ] = None,
    link_video: Annotated[
        bool,
        typer.Option(
            "--link-video", help="Let times on the page play the video, by its path relative to it."
        ),
    ] = False,
    *,
    request: CliRequest,
) -> None:
    """Write one self-contained page about a video: answers, where they looked, what was kept."""
    from retake_edge.report.contact_sheet import contact_sheet
    from retake_edge.report.page import keyframe_thumbnails, render_report, video_link
    from retake_edge.report.pictures import write_file

    if output.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"The output is {output}, but its name must end in .html.")
    if sheet is not None and sheet.suffix.lower() != ".png":
        raise ConfigError(f"The contact sheet is {sheet}, but its name must end in .png.")
    made = _report(source, [checked_question(text) for text in questions or []], request)
    link = video_link(made.video.path, output) if link_video else ""
    write_file(output, render_report(made, link).encode())
    typer.echo(output)
    if sheet is not None:
        spans = [span for answer in made.answers for span in answer.spans]
        name = Path(made.video.path).name
        write_file(sheet, contact_sheet(name, keyframe_thumbnails(made), spans))
        typer.echo(sheet)


def _report(source: str, questions: list[str], request: CliRequest) -> Report:
    from retake_edge.report.source import answered, report_of, saved_report
    from retake_edge.session.store.folder import SessionStore

    if not questions and (key := saved_key(source, request)):
        return saved_report(SessionStore(request.cache_dir), key)
    with open_session(video_file(source), request, asks=bool(questions)) as session:
        return report_of(session, answered(session, questions))
