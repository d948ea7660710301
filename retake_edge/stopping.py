"""The wish to stop, for all work of this process: set by any thread, seen while decoding.

A signal handler of Python waits until a native call returns. So the wish is four bytes that the
native library reads between two nodes of its graph; `Context` raises KeyboardInterrupt then.
"""

from __future__ import annotations

import ctypes
import threading
from typing import Any

from retake_edge.errors import NativeError

_wanted = ctypes.c_int32(0)
_is_obeyed = False  # by the main thread


def request() -> None:
    """Let decoding stop as soon as it can; safe from any thread."""
    _wanted.value = 1


def clear() -> None:
    """Take the wish back, once it was obeyed."""
    global _is_obeyed
    _wanted.value, _is_obeyed = 0, False


def is_requested() -> bool:
    """Return whether work is asked to stop."""
    return _wanted.value != 0


def obey() -> None:
    """Raise KeyboardInterrupt if work is asked to stop."""
    global _is_obeyed
    if is_requested():
        _is_obeyed = _is_obeyed or threading.current_thread() is threading.main_thread()
        raise KeyboardInterrupt


def is_obeyed() -> bool:
    """Return whether the main thread is on its way out of what it was asked to stop."""
    return _is_obeyed


def abort_callback(llama: Any) -> tuple[Any, Any]:
    """Return llama.cpp's `abort_callback` and its data for a new context.

    Raises:
        NativeError: the library is older than this.
    """
    function = getattr(llama._lib, "retake_stop_wanted", None)
    if function is None:
        raise NativeError("The libllama is older than this retake-edge; rebuild it with 'make'.")
    data = ctypes.cast(ctypes.byref(_wanted), ctypes.c_void_p)
    return ctypes.cast(function, llama.ggml_abort_callback), data
