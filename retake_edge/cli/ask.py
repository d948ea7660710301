"""retake-edge ask: one question about one video."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from retake_edge.cli.options import VideoRequest, opens_video


@opens_video
def ask(
    video: Annotated[Path, typer.Argument(help="The video file.", show_default=False)],
    question: Annotated[str, typer.Argument(help="What to ask.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    *,
    request: VideoRequest,
) -> None:
    """Answer a question about a video."""
    from retake_edge.models import resolve_model
    from retake_edge.progress import progress_bars
    from retake_edge.session import open_video

    model = resolve_model(request.model, request.mmproj)
    with progress_bars() as progress:
        session = open_video(video, model, request.settings, progress=progress)
    with session:
        for piece in session.stream(question):
            if not as_json:
                sys.stdout.write(piece)
                sys.stdout.flush()
        answer = session.last_answer()
    if as_json:
        typer.echo(json.dumps(answer.to_dict(), indent=2))
    else:
        typer.echo()
        typer.echo(answer.summary(), err=True)
