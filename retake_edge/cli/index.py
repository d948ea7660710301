"""retake-edge index: read a video now, so that questions need not wait for it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from retake_edge.cli.answer_block import is_verbose
from retake_edge.cli.opening import open_session
from retake_edge.cli.options import VideoRequest, opens_video
from retake_edge.clock import clock
from retake_edge.errors import ConfigError


@opens_video
def index(
    video: Annotated[Path, typer.Argument(help="The video file.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    *,
    request: VideoRequest,
) -> None:
    """Read a video once and save it as a session, and print the session's key.

    Interrupted, it goes on the next time from the last chunk that was finished.
    """
    if not request.use_cache:
        raise ConfigError("index saves a session, so --no-cache leaves it nothing to do.")
    with open_session(video, request) as session:
        saved, stats, seconds = session.saved, session.video, session.index_seconds
    if not saved.key:
        raise ConfigError(
            f"The session of {video} was not saved; choose another --cache-dir, or see the warning."
        )
    if as_json:
        document = {"session": asdict(saved), "video": asdict(stats), "seconds": seconds}
        typer.echo(json.dumps(document, indent=2))
        return
    typer.echo(saved.key)
    state = "was there already" if saved.is_reused else "saved"
    typer.echo(
        f"{video.name}, {clock(stats.duration_s)}: {state}, {saved.n_bytes / 1e6:.1f} MB", err=True
    )
    if is_verbose():
        typer.echo(stats.summary(), err=True)
