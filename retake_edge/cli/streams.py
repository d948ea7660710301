"""Standard input, output and error that are closed, full, or read by nobody any more.

What cannot be written ends in a sentence, or in silence where the reader has left (`| head`). What
cannot be told on standard error is not told.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING, BinaryIO

import typer

from retake_edge.errors import ConfigError

if TYPE_CHECKING:
    from typing_extensions import Buffer

EXIT_READER_GONE = 141  # as a shell shows SIGPIPE


class ReaderGone(Exception):
    """Nobody reads the standard output any more."""


class _Output(io.FileIO):
    """Standard output, whose errors are sentences."""

    def write(self, data: Buffer, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise ReaderGone from None
        except OSError as error:
            raise ConfigError(
                f"Cannot write to the standard output ({error.strerror}); "
                "make room, or send it elsewhere."
            ) from None


class _Told(io.FileIO):
    """Standard error, whose errors count for nothing."""

    def write(self, data: Buffer, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def tell(text: object = "") -> None:
    """Write a note on standard error; at a terminal its lines break between words."""
    typer.echo(between_words(str(text)) if sys.stderr.isatty() else text, err=True)


def between_words(text: str) -> str:
    """Return text whose lines fit the terminal; what is laid out with gaps or indented stays."""
    n_columns = shutil.get_terminal_size().columns
    lines = []
    for line in text.split("\n"):
        is_prose = len(line) > n_columns and "  " not in line
        lines += (
            textwrap.wrap(line, n_columns, break_long_words=False, break_on_hyphens=False)
            if is_prose
            else [line]
        )
    return "\n".join(lines)


def prepare_streams() -> None:
    """Put streams that behave in the place of Python's own; a closed standard input stays None.

    Streams that a program around this one has put there are left alone.

    Raises:
        ConfigError: the standard output is closed.
    """
    if (sys.stdout, sys.stderr) != (sys.__stdout__, sys.__stderr__):
        return
    is_open = sys.stdout is not None
    _fill_closed()
    sys.stderr = _writer(_Told(2, "w", closefd=False), is_line_buffered=True)
    if not is_open:
        sys.stdout = _writer(_Told(1, "w", closefd=False), is_line_buffered=False)
        raise ConfigError("The standard output is closed; leave it open, or send it to a file.")
    is_terminal = sys.stdout.isatty()
    sys.stdout = _writer(_Output(1, "w", closefd=False), is_line_buffered=is_terminal)


def standard_input() -> BinaryIO:
    """Return the standard input's bytes.

    Raises:
        ConfigError: it is closed.
    """
    if sys.stdin is None:
        raise ConfigError("The standard input is closed; leave it open, or send a file to it.")
    return sys.stdin.buffer


def leave_output() -> None:
    """Stop writing to the standard output, so that the end of the process writes nothing."""
    if not isinstance(getattr(getattr(sys.stdout, "buffer", None), "raw", None), (_Output, _Told)):
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


def _fill_closed() -> None:
    """Give closed descriptors 0 to 2 to nothing, before a file of ours gets their numbers."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free


def _writer(raw: io.FileIO, *, is_line_buffered: bool) -> io.TextIOWrapper:
    encoding = (sys.__stdout__ and sys.__stdout__.encoding) or "utf-8"
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding, errors="replace", line_buffering=is_line_buffered
    )
