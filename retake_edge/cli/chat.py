"""retake-edge chat: a conversation about one video, at a terminal or through a pipe."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retake_edge.cli.opening import open_session
from retake_edge.cli.options import VideoRequest, opens_video
from retake_edge.cli.streams import standard_input
from retake_edge.errors import ConfigError, MemoryBudgetError
from retake_edge.questions import check_text, decoded

if TYPE_CHECKING:
    from retake_edge.chat import Conversation
    from retake_edge.session import Session

_RESERVE = 4096
_HISTORY_LINES = 1000
_PROMPT = "> "


@opens_video
def chat(
    video: Annotated[Path, typer.Argument(help="The video file.", show_default=False)],
    *,
    request: VideoRequest,
) -> None:
    """Talk about a video: each question may refer to the answers before it.

    Commands: /frames, /when, /reset, /help, /quit. Ctrl-C ends an answer, Ctrl-D the chat.
    """
    from retake_edge.chat import Conversation

    standard_input()
    with open_session(video, request, _RESERVE) as session:
        is_terminal = sys.stdin.isatty()
        if is_terminal:
            _load_history(request.cache_dir)
            typer.echo("Ask about the video; /help shows what else there is.", err=True)
        _talk(session, Conversation(session), is_terminal=is_terminal)


def _talk(session: Session, conversation: Conversation, *, is_terminal: bool) -> None:
    while (line := _read_line(is_terminal)) is not None:
        text = line.strip()
        if text == "/quit":
            return
        if text.startswith("/"):
            _COMMANDS.get(text, _unknown)(session, conversation)
        elif text:
            _answer(conversation, text, is_terminal=is_terminal)


def _read_line(is_terminal: bool) -> str | None:
    """The next line; None at the end."""
    while True:
        try:
            return _typed() if is_terminal else _piped()
        except EOFError:
            if is_terminal:
                typer.echo()
            return None
        except ConfigError as error:
            typer.echo(f"error: {error}", err=True)


def _typed() -> str:
    try:
        line = input(_PROMPT)
    except UnicodeDecodeError:
        raise ConfigError("The line is not valid text in this terminal; type it again.") from None
    check_text("The line", line)
    return line


def _piped() -> str:
    line = standard_input().readline()
    if not line:
        raise EOFError
    return decoded("The line", line)


def _answer(conversation: Conversation, question: str, *, is_terminal: bool) -> None:
    stream = conversation.stream(question)
    try:
        for piece in stream:
            sys.stdout.write(piece)
            sys.stdout.flush()
    except KeyboardInterrupt:
        stream.close()
        if not is_terminal:
            raise
        typer.echo("\n(stopped; this turn is forgotten)", err=True)
        return
    except MemoryBudgetError as error:
        # The video is still there and a conversation can begin anew: no reason to leave.
        typer.echo(f"error: {error} /reset starts a new one.", err=True)
        return
    typer.echo()


def _frames(session: Session, conversation: Conversation) -> None:
    from retake_edge.clock import clock

    video, times_s = session.video, session.map.frame_times_s
    key_times = [clock(time_s) for time_s in times_s[session.map.pivot_share > 0]]
    typer.echo(
        f"{video.n_frames} frames from {clock(times_s[0])} to {clock(times_s[-1])}; "
        f"{video.n_cells_kept} of {video.n_cells_before} KV cells kept"
    )
    typer.echo("keyframes  " + " ".join(dict.fromkeys(key_times)))


def _when(session: Session, conversation: Conversation) -> None:
    from retake_edge.evidence import evidence_line

    if not conversation.turns:
        typer.echo("Nothing has been answered yet.")
        return
    line = evidence_line(conversation.turns[-1].evidence)
    typer.echo(line or "The last answer looked nowhere in particular.")


def _reset(session: Session, conversation: Conversation) -> None:
    conversation.reset()
    typer.echo("The conversation starts anew.", err=True)


def _help(session: Session, conversation: Conversation) -> None:
    typer.echo(
        "/frames  which frames were seen\n"
        "/when    where in the video the last answer looked\n"
        "/reset   forget the conversation, not the video\n"
        "/quit    leave"
    )


def _unknown(session: Session, conversation: Conversation) -> None:
    typer.echo("There is no such command; /help shows them.", err=True)


_COMMANDS: dict[str, Callable[[Session, Conversation], None]] = {
    "/frames": _frames,
    "/when": _when,
    "/reset": _reset,
    "/help": _help,
}


def _load_history(cache_dir: Path | None) -> None:
    """Give the prompt the arrow keys, and the questions of earlier chats."""
    import atexit

    from retake_edge.store import default_cache_dir

    try:
        import readline
    except ImportError:  # a Python built without it
        return
    path = (cache_dir or default_cache_dir()) / "chat_history"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        readline.read_history_file(path)
    except OSError:
        return
    readline.set_history_length(_HISTORY_LINES)
    atexit.register(readline.write_history_file, path)
