"""Find and load the patched llama.cpp libraries, and refuse any others.

llama-cpp-python's low-level bindings come with the build as `retake_edge._bindings`
(scripts/take_bindings.py): a `llama_cpp` that a user has installed is neither needed nor touched,
and both may be loaded in one process.
"""

from __future__ import annotations

import collections
import ctypes
import importlib
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from retake_edge import stopping
from retake_edge.errors import NativeError

ABI_VERSION = 4
LIBRARY_DIR_VARIABLE = "RETAKE_LIBRARY_DIR"
_BINDINGS = "retake_edge._bindings"

CALLBACKS: set[CodeType] = set()
"""Code that native libraries call back: what a signal handler raises in there is lost."""

_log = logging.getLogger("retake_edge.llama.model")
_recent_errors: collections.deque[str] = collections.deque(maxlen=8)
_listeners: list[list[str]] = []
_GGML_LOG_LEVEL_WARN, _GGML_LOG_LEVEL_ERROR = 3, 4


def library_dir() -> Path:
    """Return the folder of the patched libraries: `RETAKE_LIBRARY_DIR`, or the package's own lib/.

    Raises:
        NativeError: there is no libllama in it.
    """
    folder = Path(os.environ.get(LIBRARY_DIR_VARIABLE) or Path(__file__).parents[1] / "lib")
    if not any(folder.glob("*llama.*")):
        raise NativeError(
            f"There is no libllama in {folder}; build the patched llama.cpp with 'make' or "
            f"'pip install .', or point {LIBRARY_DIR_VARIABLE} at a build."
        )
    return folder.resolve()


@lru_cache(maxsize=1)
def load_libraries() -> ModuleType:
    """Load libllama and libmtmd and return the bindings of libllama.

    Raises:
        NativeError: the libraries are missing, cannot be loaded, or lack the PivotKV symbols.
    """
    folder = library_dir()
    try:
        llama_cpp = importlib.import_module(f"{_BINDINGS}.llama_cpp")
        mtmd_cpp = importlib.import_module(f"{_BINDINGS}.mtmd_cpp")
    except (ImportError, RuntimeError, OSError, AttributeError) as error:
        raise NativeError(
            f"The libraries in {folder} cannot be loaded ({error}); rebuild them."
        ) from error
    _require_abi(llama_cpp._lib, folder)
    _require_own_ggml(llama_cpp._lib, folder)
    _route_logs(llama_cpp, mtmd_cpp)
    llama_cpp.llama_backend_init()
    return llama_cpp


def origin() -> str:
    """Return which llama.cpp the bindings were made for, as the build noted it.

    Raises:
        NativeError: the package was not built.
    """
    try:
        return str(importlib.import_module(_BINDINGS).ORIGIN)
    except ImportError as error:
        raise NativeError(
            f"The bindings of llama.cpp are missing ({error}); build them with 'make' or "
            "'pip install .'."
        ) from error


def load_mtmd() -> ModuleType:
    """Return the bindings of libmtmd, loaded from the same folder."""
    load_libraries()
    return importlib.import_module(f"{_BINDINGS}.mtmd_cpp")


def _require_abi(lib: ctypes.CDLL, folder: Path) -> None:
    if not hasattr(lib, "retake_abi_version"):
        raise NativeError(
            f"The libllama in {folder} is a plain llama.cpp; build retake-edge's "
            "patched one with 'make' or 'pip install .'."
        )
    lib.retake_abi_version.restype = ctypes.c_int32
    found = lib.retake_abi_version()
    if found != ABI_VERSION:
        raise NativeError(
            f"The libllama in {folder} is of version {found}, but this retake-edge needs "
            f"{ABI_VERSION}; rebuild it."
        )


class _SymbolInfo(ctypes.Structure):
    """Dl_info of dladdr(3)."""

    _fields_ = (
        ("file", ctypes.c_char_p),
        ("base", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("address", ctypes.c_void_p),
    )


def _require_own_ggml(lib: ctypes.CDLL, folder: Path) -> None:
    """Refuse a ggml that another package has loaded before under the same name."""
    info = _SymbolInfo()
    symbol = ctypes.cast(lib.ggml_backend_dev_count, ctypes.c_void_p)
    found = ctypes.CDLL(None).dladdr(symbol, ctypes.byref(info)) and info.file
    if found and Path(os.fsdecode(found)).resolve().parent != folder:
        raise NativeError(
            f"Another package of this process has loaded {os.fsdecode(found)}, which stands in "
            f"the place of the one in {folder}; use retake_edge in a process of its own."
        )


def _route_logs(llama_cpp: Any, mtmd_cpp: Any) -> None:
    """Send llama.cpp's log to Python's logging, and remember the last errors for messages."""
    llama_cpp.llama_log_set(_log_callback(llama_cpp), None)
    mtmd_cpp.mtmd_log_set(_log_callback(llama_cpp), None)
    mtmd_cpp.mtmd_helper_log_set(_log_callback(llama_cpp), None)


@lru_cache(maxsize=1)
def _log_callback(llama_cpp: Any) -> Any:
    def write(level: int, text: bytes, _user_data: object) -> None:
        line = text.decode("utf-8", "replace").rstrip()
        if not line:
            return
        if level == _GGML_LOG_LEVEL_ERROR:
            _recent_errors.append(line)
        for lines in _listeners:
            lines.append(line)
        _log.debug("%s", line)

    CALLBACKS.add(write.__code__)
    return llama_cpp.llama_log_callback(write)


def load_callback(llama_cpp: ModuleType, progress: Callable[[float], None]) -> Any:
    """Return a `progress_callback`: it tells the share loaded, and gives up when asked to stop."""

    def tell(share: float, _user_data: object) -> bool:
        progress(share)
        return not stopping.is_requested()

    CALLBACKS.add(tell.__code__)
    return llama_cpp.llama_progress_callback(tell)


@contextmanager
def captured_log() -> Iterator[list[str]]:
    """Collect llama.cpp's log, line by line, while the block runs."""
    lines: list[str] = []
    _listeners.append(lines)
    try:
        yield lines
    finally:
        _listeners.remove(lines)


def last_error() -> str:
    """Return llama.cpp's latest error line, and forget the collected ones ('' if none)."""
    line = _recent_errors[-1] if _recent_errors else ""
    _recent_errors.clear()
    return line
