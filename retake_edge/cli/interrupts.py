"""Ctrl-C: answered at once, obeyed after the step at hand, and without delay when pressed twice.

A native call can take seconds, and Python's signal handlers run only after it. So a thread reads
the signals from a pipe (`signal.set_wakeup_fd`): it answers, and asks native work to stop
(`retake_edge.stopping`). The handler raises KeyboardInterrupt; within a callback of a native
library that would be lost, so there it comes again a little later.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from retake_edge import stopping
from retake_edge.llama import library

EXIT_INTERRUPTED = 130
_AGAIN_AFTER_S = 0.02
_OBEYED = b"\0"  # no signal has this number
_SHOW_CURSOR = "\x1b[?25h"


def _say_on_stderr(text: str) -> None:
    with contextlib.suppress(OSError):
        os.write(2, f"{text}\n".encode())


class _State:
    """The state of this process's handling of Ctrl-C."""

    def __init__(self) -> None:
        self.n_pressed = 0
        self.n_own = 0  # signals sent by `_again`, which nobody pressed
        self.is_own = False  # the next signal is one of these
        self.is_raised = False  # the main thread is on its way out of what it did
        self.say: Callable[[str], None] = _say_on_stderr
        self.answer: Callable[[], str | None] = lambda: "stopping"
        self.terminal: list[Any] | None = None
        self.pipe: int | None = None
        self.is_clear = threading.Event()


_state = _State()


def handle_interrupts() -> None:
    """Do all this for SIGINT from now on; a process that was started to ignore it still does."""
    if signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, None):
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    _state.pipe = writing
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reading,), name="ctrl-c", daemon=True).start()
    signal.signal(signal.SIGINT, _on_signal)
    sys.unraisablehook = _on_unraisable
    with contextlib.suppress(Exception):  # no terminal, or no termios here
        import termios

        _state.terminal = termios.tcgetattr(0)


def ignore_interrupts() -> None:
    """Let Ctrl-C change nothing any more: the process is about to end by the first one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def answering(
    answer: Callable[[], str | None], say: Callable[[str], None] | None = None
) -> Iterator[None]:
    """Let Ctrl-C be answered with what `answer` returns then, through `say`.

    '' is not said; None asks nothing to stop, so that Ctrl-C is a mere KeyboardInterrupt.
    """
    before = _state.answer, _state.say
    _state.answer, _state.say = answer, say or _state.say
    try:
        yield
    finally:
        _state.answer, _state.say = before


@contextmanager
def at_prompt() -> Iterator[None]:
    """Let Ctrl-C be a mere KeyboardInterrupt, however often it is pressed."""
    obeyed()
    with answering(lambda: None):
        yield


def obeyed() -> None:
    """Note that what Ctrl-C asked for was done, and that work goes on."""
    if _state.pipe is None:
        return
    _state.is_raised = False
    # Through the pipe, too: what was pressed before may not have been read yet.
    _state.is_clear.clear()
    os.write(_state.pipe, _OBEYED)
    _state.is_clear.wait(_AGAIN_AFTER_S * 100)


def _watch(reading: int) -> None:
    with suppress(OSError):  # the pipe is gone with the process
        _watch_pipe(reading)


def _watch_pipe(reading: int) -> None:
    while pressed := os.read(reading, 64):
        for byte in pressed:
            if byte == _OBEYED[0]:
                _state.n_pressed = 0
                stopping.clear()
                _state.is_clear.set()
            elif byte == signal.SIGINT and _state.n_own:
                _state.n_own -= 1
            elif byte == signal.SIGINT:
                _on_press()


def _on_press() -> None:
    text = _state.answer()
    if text is None:
        return
    _state.n_pressed += 1
    if _state.n_pressed > 1:
        _leave()
    stopping.request()
    if text:
        _state.say(text)


def _leave() -> None:
    """End the process here and now, the terminal as it was found."""
    if _state.terminal is not None:
        import termios

        # An attribute of a terminal that is gone cannot be set, which no longer matters.
        with contextlib.suppress(Exception):
            termios.tcsetattr(0, termios.TCSANOW, _state.terminal)
    if sys.__stderr__ is not None and sys.__stderr__.isatty():
        _say_on_stderr(_SHOW_CURSOR)
    os._exit(EXIT_INTERRUPTED)


def _on_signal(_signal: int, frame: FrameType | None) -> None:
    is_own, _state.is_own = _state.is_own, False
    while frame is not None:
        if frame.f_code in library.CALLBACKS:
            _again()
            return
        frame = frame.f_back
    if _state.answer() is not None:
        if _state.is_raised or stopping.is_obeyed():
            if is_own:
                return  # what it repeats was obeyed meanwhile
            _leave()  # `_watch` may be slower than the way out, at whose end none is caught
        _state.is_raised = True
    raise KeyboardInterrupt


_show_unraisable = sys.unraisablehook


def _on_unraisable(dropped: sys.UnraisableHookArgs) -> None:
    if dropped.exc_type is KeyboardInterrupt:
        _state.is_raised = False
        _again()
    else:
        _show_unraisable(dropped)


def _again() -> None:
    def send() -> None:
        _state.n_own += 1
        _state.is_own = True
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    timer = threading.Timer(_AGAIN_AFTER_S, send)
    timer.daemon = True
    timer.start()
