"""Ctrl-C in a callback of a native library: ctypes drops it there, so it is raised again."""

from __future__ import annotations

import _thread
import sys
import threading

_AGAIN_AFTER_S = 0.02


def keep_interrupts() -> None:
    """Make a Ctrl-C count also where Python was just writing llama.cpp's log."""
    shown = sys.unraisablehook

    def hook(dropped: sys.UnraisableHookArgs) -> None:
        if dropped.exc_type is KeyboardInterrupt:
            threading.Timer(_AGAIN_AFTER_S, _thread.interrupt_main).start()
        else:
            shown(dropped)

    sys.unraisablehook = hook
