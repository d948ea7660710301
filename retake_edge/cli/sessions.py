"""retake-edge sessions: what is saved, and getting rid of it."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from retake_edge.cli.help import HelpfulCommand
from retake_edge.cli.options import CacheDir
from retake_edge.cli.streams import tell
from retake_edge.errors import ConfigError
from retake_edge.formats import parse_bytes, shown_bytes

if TYPE_CHECKING:
    from retake_edge.session.store.folder import SavedSession, SessionStore

app = typer.Typer(
    help="List, show and remove saved videos, which are answered at once.", no_args_is_help=True
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Key = Annotated[
    str, typer.Argument(help="A saved video's key, or its beginning.", show_default=False)
]


@app.command("list", cls=HelpfulCommand)
def list_sessions(as_json: Json = False, cache_dir: CacheDir = None) -> None:
    """List all saved videos, the last used one first.

    A key, or its beginning, goes to ask, chat and report in place of the video.
    """
    from retake_edge.cli.session_table import session_table
    from retake_edge.session.store.folder import SessionStore

    store = SessionStore(cache_dir)
    found = store.sessions()
    if as_json:
        typer.echo(json.dumps([asdict(session) for session in found], indent=2))
        return
    if found:
        typer.echo(session_table(store, found))
    tell(f"{_videos(len(found))}, {_total(found)}, in {store.folder}")


@app.command(cls=HelpfulCommand)
def show(key: Key, cache_dir: CacheDir = None) -> None:
    """Print all that is known of a saved video, as JSON."""
    from retake_edge.session.store.folder import SessionStore

    store = SessionStore(cache_dir)
    session = store.info(store.find(key))
    if session.problem:
        raise ConfigError(session.problem)
    typer.echo(json.dumps(asdict(session), indent=2))


@app.command(cls=HelpfulCommand)
def rm(
    keys: Annotated[
        list[str] | None, typer.Argument(help="Keys, or their beginnings.", show_default=False)
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Remove all saved videos.")] = False,
    yes: Annotated[bool, typer.Option("-y", "--yes", help="Do not ask.")] = False,
    cache_dir: CacheDir = None,
) -> None:
    """Remove saved videos; the videos themselves stay. Asks first at a terminal."""
    from retake_edge.session.store.folder import SessionStore

    if bool(keys) == everything:
        raise ConfigError("Say which saved videos to remove: their keys, or --all.")
    store = SessionStore(cache_dir)
    chosen = store.keys() if everything else [store.find(key) for key in keys or []]
    _remove(store, [store.info(key) for key in dict.fromkeys(chosen)], yes=yes)


@app.command(cls=HelpfulCommand)
def prune(
    max_size: Annotated[
        str | None,
        typer.Option(
            "--max-size",
            "--max-bytes",
            help="Most to keep, such as 20G or 500MiB.  [default: RETAKE_MAX_SIZE, or max_size of "
            "config.toml, which also hold after each reading]",
            metavar="SIZE",
        ),
    ] = None,
    cache_dir: CacheDir = None,
) -> None:
    """Remove the saved videos not used for longest until the rest fits."""
    from retake_edge.catalog.user_config import most_saved_bytes
    from retake_edge.session.store.folder import SessionStore

    most = parse_bytes(max_size) if max_size else most_saved_bytes()
    if most is None:
        raise ConfigError("Say how much to keep: --max-size 20G, or RETAKE_MAX_SIZE for always.")
    _tell_removed(SessionStore(cache_dir).prune(most))


def _remove(store: SessionStore, chosen: list[SavedSession], *, yes: bool) -> None:
    if chosen and not yes and sys.stdin.isatty() and sys.stderr.isatty():
        from retake_edge.cli.asking import agreed
        from retake_edge.cli.session_table import session_table

        tell(session_table(store, chosen))
        if not agreed(f"Remove {_videos(len(chosen))}, {_total(chosen)}? [y/N] ", default=False):
            tell("Nothing is removed.")
            return
    for session in chosen:
        store.remove(session.key)
    _tell_removed(chosen)


def _tell_removed(sessions: list[SavedSession]) -> None:
    tell(f"{_videos(len(sessions))} removed, {_total(sessions)}")


def _videos(n: int) -> str:
    return f"{n} saved video{'' if n == 1 else 's'}"


def _total(sessions: list[SavedSession]) -> str:
    return shown_bytes(sum(session.n_bytes for session in sessions))
