"""retake-edge sessions: what is saved, and getting rid of it."""

from __future__ import annotations

import json
import re
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from retake_edge.cli.options import CacheDir
from retake_edge.errors import ConfigError

if TYPE_CHECKING:
    from retake_edge.store import SavedSession

app = typer.Typer(help="List, show and remove saved sessions.", no_args_is_help=True)

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_BINARY_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_KEY_LETTERS = 12

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Key = Annotated[str, typer.Argument(help="A session's key, or its beginning.", show_default=False)]


@app.command("list")
def list_sessions(as_json: Json = False, cache_dir: CacheDir = None) -> None:
    """List all sessions, the last used one first."""
    from retake_edge.store import SessionStore

    found = SessionStore(cache_dir).sessions()
    if as_json:
        typer.echo(json.dumps([asdict(session) for session in found], indent=2))
        return
    for session in found:
        typer.echo(_line(session))
    total = sum(session.n_bytes for session in found)
    typer.echo(f"{len(found)} sessions, {total / 1e6:.1f} MB", err=True)


@app.command()
def show(key: Key, cache_dir: CacheDir = None) -> None:
    """Print all that is known of a session, as JSON."""
    from retake_edge.store import SessionStore

    store = SessionStore(cache_dir)
    session = store.info(store.find(key))
    if session.problem:
        raise ConfigError(session.problem)
    typer.echo(json.dumps(asdict(session), indent=2))


@app.command()
def rm(
    keys: Annotated[
        list[str] | None, typer.Argument(help="Keys, or their beginnings.", show_default=False)
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Remove all sessions.")] = False,
    cache_dir: CacheDir = None,
) -> None:
    """Remove sessions."""
    from retake_edge.store import SessionStore

    if bool(keys) == everything:
        raise ConfigError("Say which sessions to remove: their keys, or --all.")
    store = SessionStore(cache_dir)
    chosen = store.keys() if everything else [store.find(key) for key in keys or []]
    freed = sum(store.remove(key) for key in chosen)
    typer.echo(f"{len(chosen)} sessions removed, {freed / 1e6:.1f} MB", err=True)


@app.command()
def prune(
    max_bytes: Annotated[
        str, typer.Option(help="Most bytes to keep, such as 20G or 500MiB.", show_default=False)
    ],
    cache_dir: CacheDir = None,
) -> None:
    """Remove the sessions not used for longest until the rest fits."""
    from retake_edge.store import SessionStore

    removed = SessionStore(cache_dir).prune(parse_bytes(max_bytes))
    freed = sum(session.n_bytes for session in removed)
    typer.echo(f"{len(removed)} sessions removed, {freed / 1e6:.1f} MB", err=True)


def parse_bytes(text: str) -> int:
    """Return a number of bytes written like 1000, 20G, 1.5GB or 500MiB.

    Raises:
        ConfigError: it is none.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?", text.strip(), re.IGNORECASE)
    if match is None or (match[3] and not match[2]):
        raise ConfigError(f"{text!r} is no number of bytes; write it like 1000, 20G or 500MiB.")
    units = _BINARY_UNITS if match[3] else _UNITS
    return int(float(match[1]) * units[match[2].upper()])


def _line(session: SavedSession) -> str:
    from retake_edge.clock import clock

    used = time.strftime("%Y-%m-%d %H:%M", time.localtime(session.used_at_s))
    if session.problem:
        about = "damaged"
    elif not session.is_complete:
        about = f"unfinished  {session.head.get('video', '')}"
    else:
        video = session.end["video"]
        length = clock(video["duration_s"])
        about = f"{length:>8}  {session.head['model']}  {session.head['video']}"
    return f"{session.key[:_KEY_LETTERS]}  {used}  {session.n_bytes / 1e6:>9.1f} MB  {about}"
