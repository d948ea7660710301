"""retake-edge chat: a conversation about one video, at a terminal or through a pipe."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from retake_edge.cli.answer_block import (
    ON_AVERAGE,
    frame_spacing_s,
    tell_evidence,
    tell_facts,
    write_answer,
)
from retake_edge.cli.help import HelpfulCommand, examples
from retake_edge.cli.interrupts import at_prompt, obeyed
from retake_edge.cli.opening import open_session
from retake_edge.cli.options import CliRequest, opens_video
from retake_edge.cli.streams import standard_input, tell
from retake_edge.cli.videos import video_file
from retake_edge.errors import ConfigError, MemoryBudgetError
from retake_edge.questions import check_text, decoded

if TYPE_CHECKING:
    from retake_edge.session.conversation import Conversation
    from retake_edge.session.session import Session

_RESERVE = 4096
_HISTORY_LINES = 1000
_PROMPT = "> "
_MOST_TIMES = 12
_LEAVE = ("/bye", "/exit", "/quit")
_HOW_TO = "Ask about the video; /help shows what else there is, /bye leaves."


class ChatCommand(HelpfulCommand):
    """`chat`, where -c without a number goes on with what was saved (with one: --ctx-size)."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take the two meanings of -c apart."""
        arguments = [
            "--continue" if arg == "-c" and not after.lstrip("-").isdigit() else arg
            for arg, after in zip(args, [*args[1:], ""], strict=True)
        ]
        return super().parse_args(ctx, arguments)


EXAMPLES = examples("chat talk.mp4", "chat talk.mp4 -c", "chat talk.mp4 -m qwen2.5-vl-3b")


@opens_video
def chat(
    video: Annotated[
        str, typer.Argument(metavar="VIDEO", help="The video file, or the key of a saved one.")
    ],
    go_on: Annotated[
        bool, typer.Option("--continue", help="Go on with the chat that /save kept; also plain -c.")
    ] = False,
    *,
    request: CliRequest,
) -> None:
    """Talk about a video: each question may refer to the answers before it.

    Commands: /frames, /when, /save, /reset, /help, /bye. Ctrl-C ends an answer, Ctrl-D the chat.
    """
    from retake_edge.session.conversation import Conversation

    standard_input()
    with open_session(video_file(video), request, _RESERVE) as session:
        if guide := session.video.guide:
            raise ConfigError(
                f"This video was read for one question ({guide!r}), and a chat asks others; chat "
                "about the video's file, which reads it for any."
            )
        is_terminal = sys.stdin.isatty()
        room = _Room(session, Conversation(session), _saved_file(session, request))
        if is_terminal:
            _load_history(request.cache_dir)
        tell_facts(session)
        if is_terminal:
            tell(_HOW_TO)
        if go_on:
            _recall(room)
        _talk(room, is_terminal=is_terminal)


@dataclass(frozen=True)
class _Room:
    """The objects of a chat's commands; `saved`: where /save writes, None with --no-cache."""

    session: Session
    conversation: Conversation
    saved: Path | None


def _saved_file(session: Session, request: CliRequest) -> Path | None:
    from retake_edge.session.saved_chats import chat_file
    from retake_edge.session.store.folder import SessionStore

    if not session.saved.key:
        return None
    return chat_file(SessionStore(request.cache_dir).cache_dir, session.saved.key)


def _recall(room: _Room) -> None:
    """Take up the saved conversation, and show it."""
    from retake_edge.session.saved_chats import load_turns

    if room.saved is None:
        raise ConfigError("No conversation is saved with --no-cache, so none can be gone on with.")
    for question, answer in load_turns(room.saved):
        tell(f"{_PROMPT}{question}\n{answer}")
        room.conversation.recall(question, answer)


def _talk(room: _Room, *, is_terminal: bool) -> None:
    while (line := _read_line(is_terminal)) is not None:
        text = line.strip()
        command = text.partition(" ")[0].lower()
        if command in _LEAVE:
            return
        if command.startswith("/"):
            _COMMANDS.get(command, _unknown)(room)
        elif text:
            _answer(room, text, is_terminal=is_terminal)


def _read_line(is_terminal: bool) -> str | None:
    """The next line; None at the end."""
    while True:
        try:
            with at_prompt() if is_terminal else nullcontext():
                return _typed() if is_terminal else _piped()
        except KeyboardInterrupt:
            if not is_terminal:
                raise
            typer.echo()  # the line is cleared, and another one begun
        except EOFError:
            if is_terminal:
                typer.echo()
            return None
        except ConfigError as error:
            tell(f"error: {error}")


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


def _answer(room: _Room, question: str, *, is_terminal: bool) -> None:
    from contextlib import closing

    try:
        with closing(room.conversation.stream(question)) as stream:
            write_answer(stream, room.session)
    except KeyboardInterrupt:
        if not is_terminal:
            raise
        obeyed()
        tell("(stopped; this turn is forgotten)")
        return
    except MemoryBudgetError as error:
        # The video is still there and a conversation can begin anew: no reason to leave.
        tell(f"error: {error} /reset starts a new one.")
        return
    tell_evidence(room.conversation.turns[-1])


def _frames(room: _Room) -> None:
    from retake_edge.formats import clock, spoken_seconds

    session = room.session
    times_s = session.video_map.frame_times_s
    key_times = list(dict.fromkeys(map(clock, times_s[session.video_map.pivot_share > 0])))
    line = f"{session.video.n_frames} frames from {clock(times_s[0])} to {clock(times_s[-1])}"
    if step_s := frame_spacing_s(session):
        line += f", one every {spoken_seconds(step_s)}"
        line += ON_AVERAGE if session.video.sampling == "change" else ""
    typer.echo(line)
    if key_times:
        every = -(-len(key_times) // _MOST_TIMES)
        shown = " ".join(key_times[::every])
        typer.echo(f"most change at {shown}" + (" ..." if every > 1 else ""))


def _when(room: _Room) -> None:
    from retake_edge.session.evidence import evidence_line

    turns = room.conversation.turns
    if not turns:
        typer.echo("Nothing has been answered yet.")
        return
    typer.echo(evidence_line(turns[-1].evidence) or "The last answer looked nowhere in particular.")


def _save(room: _Room) -> None:
    from retake_edge.session.saved_chats import save_turns

    turns = [(turn.question, turn.text) for turn in room.conversation.turns]
    if room.saved is None:
        tell("error: Nothing is saved with --no-cache.")
    elif not turns:
        tell("Nothing has been answered yet, so there is nothing to save.")
    else:
        try:
            save_turns(room.saved, turns)
        except ConfigError as error:
            tell(f"error: {error}")
            return
        tell("saved; 'retake-edge chat VIDEO -c' goes on with it")


def _reset(room: _Room) -> None:
    room.conversation.reset()
    tell("The conversation starts anew.")


def _help(room: _Room) -> None:
    typer.echo(
        "/frames  which frames were seen\n"
        "/when    where in the video the last answer looked\n"
        "/save    keep this conversation; retake-edge chat VIDEO -c goes on with it\n"
        "/reset   forget the conversation, not the video\n"
        "/bye     leave, as /exit, /quit and Ctrl-D\n"
        "Ctrl-C clears the line, and stops an answer."
    )


def _unknown(room: _Room) -> None:
    tell("There is no such command; /help shows them.")


_COMMANDS: dict[str, Callable[[_Room], None]] = {
    "/frames": _frames,
    "/when": _when,
    "/save": _save,
    "/reset": _reset,
    "/help": _help,
    "/?": _help,
}


def _load_history(cache_dir: Path | None) -> None:
    """Give the prompt the arrow keys, and the questions of earlier chats."""
    import atexit

    from retake_edge.files import default_cache_dir

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
