"""Commands on a real pseudo-terminal, and what a person then sees on it (pexpect and pyte).

    with at_terminal("ask", str(VIDEO), QUESTION, *ARGUMENTS, columns=80) as terminal:
        terminal.wait_for("loading")
        assert terminal.ended() == 0
    assert terminal.text() ...

`text` is the screen with everything that scrolled off it; `raw` every byte that was sent.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pexpect
import pyte

ROOT = Path(__file__).parents[2]
SIZES = [(80, True), (80, False), (120, True), (120, False)]
"""Columns, and whether colours are wanted: what every screen is tried with."""

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_POLL_S = 0.05


class Terminal:
    """A command at a terminal of its own."""

    def __init__(self, process: pexpect.spawn[bytes], columns: int, rows: int) -> None:
        self.process, self.columns, self.raw = process, columns, b""
        self._screen = pyte.HistoryScreen(columns, rows, history=5000, ratio=1)
        self._stream = pyte.ByteStream(self._screen)

    def send(self, text: str) -> None:
        """Type text."""
        self.process.send(text)

    def line(self, text: str) -> None:
        """Type text and Enter."""
        self.process.send(text + "\r")

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self.process.sendcontrol("c")

    def end_input(self) -> None:
        """Press Ctrl-D."""
        self.process.sendcontrol("d")

    def wait_for(self, wanted: str | Callable[[str], bool], timeout_s: float = 120) -> str:
        """Read until a text (or a text that `wanted` accepts) is on the screen; return the screen.

        Raises:
            AssertionError: the command ended, or the time is over; with the screen.
        """
        is_there = (lambda text: wanted in text) if isinstance(wanted, str) else wanted
        for _ in range(int(timeout_s / _POLL_S)):
            if is_there(text := self.text()):
                return text
            if not self._read():
                break
        assert is_there(self.text()), f"{wanted!r} is not on the screen:\n{self.text()}"
        return self.text()

    def ended(self, timeout_s: float = 120) -> int:
        """Wait for the command's end and return its exit code."""
        for _ in range(int(timeout_s / _POLL_S)):
            if not self._read():
                break
        self.process.close()
        status = self.process.exitstatus
        return -int(self.process.signalstatus or 0) if status is None else int(status)

    def _read(self) -> bool:
        """Take in what was written meanwhile; False at the end."""
        try:
            piece = self.process.read_nonblocking(65536, timeout=_POLL_S)
        except pexpect.TIMEOUT:
            return True
        except pexpect.EOF:
            return False
        self.raw += piece
        self._stream.feed(piece)
        return True

    def lines(self) -> list[str]:
        """The lines seen, from the first one that scrolled off to the cursor's; no empty end."""
        gone = [
            "".join(line[i].data for i in range(self.columns)) for line in self._screen.history.top
        ]
        shown = [line.rstrip() for line in [*gone, *self._screen.display]]
        while shown and not shown[-1]:
            shown.pop()
        return shown

    def text(self) -> str:
        """The lines seen, as one text."""
        return "\n".join(self.lines())

    def has_colour(self) -> bool:
        """Whether any colour, bold or the like was sent."""
        return bool(_COLOUR.search(self.raw.decode("utf-8", "replace")))

    def cursor_is_hidden(self) -> bool:
        """Whether the command left the cursor hidden."""
        return bool(self._screen.cursor.hidden)


@contextmanager
def at_terminal(
    *arguments: str,
    columns: int = 80,
    rows: int = 40,
    colour: bool = True,
    env: Mapping[str, str] | None = None,
    command: list[str] | None = None,
) -> Iterator[Terminal]:
    """Run the command line (or `command`) at a terminal; it is ended with the block."""
    environment = {name: value for name, value in os.environ.items() if name not in _CHOSEN}
    environment |= {"TERM": "xterm-256color", "PYTHONPATH": str(ROOT)}
    environment |= {} if colour else {"NO_COLOR": "1"}
    environment |= env or {}
    call = [*(command or [sys.executable, "-m", "retake_edge"]), *arguments]
    process = pexpect.spawn(
        call[0], call[1:], env=environment, dimensions=(rows, columns), echo=True, timeout=120
    )
    try:
        yield Terminal(process, columns, rows)
    finally:
        process.close(force=True)


_CHOSEN = ("NO_COLOR", "FORCE_COLOR", "CLICOLOR", "COLUMNS", "LINES", "TERM", "COLORTERM")
