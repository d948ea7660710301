"""retake-edge index: read videos now, so that questions need not wait for it."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from retake_edge.cli.answer_block import is_verbose
from retake_edge.cli.help import examples
from retake_edge.cli.opening import open_session
from retake_edge.cli.options import CliRequest, opens_video
from retake_edge.cli.streams import tell
from retake_edge.cli.videos import videos_of
from retake_edge.errors import ConfigError, RetakeError
from retake_edge.formats import clock

EXAMPLES = examples("index talk.mp4", "index talks/ more.mp4", "index talk.mp4 --start 10:00")


@opens_video
def index(
    videos: Annotated[
        list[str],
        typer.Argument(metavar="VIDEO...", help="Video files, or folders.", show_default=False),
    ],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document: a list unless one was read.")
    ] = False,
    *,
    request: CliRequest,
) -> None:
    """Read videos once and save them, so that they can be asked at once; print each one's key.

    Interrupted, it goes on the next time from where it was saved last; what is read already is not
    read again. A video that cannot be read does not keep the others from it: what went wrong is
    told at the end, and the exit code is that of the first one.
    """
    if not request.use_cache:
        raise ConfigError("index saves what it reads, so --no-cache leaves it nothing to do.")
    files = videos_of(videos)
    if len(files) == 1:
        document = _read(files[0], request)
        _tell_one(files[0], document, as_json=as_json)
        return
    failures: dict[Path, RetakeError] = {}
    try:
        _read_all(files, request, failures, as_json=as_json)
    finally:
        _tell_failures(failures, len(files))
    if failures:
        sys.exit(next(iter(failures.values())).exit_code)


def _read_all(
    files: list[Path], request: CliRequest, failures: dict[Path, RetakeError], *, as_json: bool
) -> None:
    """Read one after the other; note in `failures` what cannot be read, and why."""
    documents = []
    for n, path in enumerate(files, 1):
        tell(f"{n} of {len(files)}: {path}")
        try:
            document = _read(path, request)
        except RetakeError as error:
            failures[path] = error
            continue
        documents.append(document)
        request = replace(request, given=frozenset())  # what is said of options is said once
        if not as_json:
            typer.echo(f"{document['session']['key']}  {path}")
            _tell_state(path, document)
    if as_json:
        typer.echo(json.dumps(documents, indent=2))


def _tell_failures(failures: dict[Path, RetakeError], n_files: int) -> None:
    if failures:
        tell(f"not read: {len(failures)} of {n_files} videos")
    for path, error in failures.items():
        where = "" if str(path) in str(error) else f"{path}: "
        tell(f"error: {where}{error}")


def _read(video: Path, request: CliRequest) -> dict[str, Any]:
    """Read a video, unless it is read; return what is known of it then."""
    with open_session(video, request, asks=False) as session:
        saved, stats, seconds = session.saved, session.video, session.index_seconds
        summary = stats.summary()
    if not saved.key:
        raise ConfigError(
            f"What was read of {video} was not saved; choose another --cache-dir, or see the "
            "warning."
        )
    if is_verbose():
        tell(summary)
    return {"session": asdict(saved), "video": asdict(stats), "seconds": seconds}


def _tell_one(video: Path, document: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(document, indent=2))
        return
    typer.echo(document["session"]["key"])
    _tell_state(video, document)


def _tell_state(video: Path, document: dict[str, Any]) -> None:
    saved = document["session"]
    state = "was there already" if saved["is_reused"] else "saved"
    length = clock(document["video"]["duration_s"])
    tell(f"{video.name}, {length}: {state}, {saved['n_bytes'] / 1e6:.1f} MB")
