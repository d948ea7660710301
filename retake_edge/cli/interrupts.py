"""Ctrl-C in a callback of a native library: ctypes drops it there, so it is raised again."""

from __future__ import annotations

import signal
import sys
import threading

_AGAIN_AFTER_S = 0.02


def keep_interrupts() -> None:
    """Make a Ctrl-C count also where Python was just writing llama.cpp's log."""
    shown = sys.unraisablehook

    def hook(dropped: sys.UnraisableHookArgs) -> None:
        if dropped.exc_type is KeyboardInterrupt:
            main = threading.main_thread().ident, signal.SIGINT
            threading.Timer(_AGAIN_AFTER_S, signal.pthread_kill, main).start()
        else:
            shown(dropped)

    sys.unraisablehook = hook
