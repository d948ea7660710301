"""Find and load the patched llama.cpp libraries, and refuse any others.

llama-cpp-python's low-level bindings are used as they are; they read the folder of the shared
libraries from the environment at import, so it is set here first. Both variables must name the
same folder, or macOS loads a second libllama.
"""

from __future__ import annotations

import collections
import ctypes
import importlib
import logging
import os
import sys
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

from retake_edge.errors import NativeError

ABI_VERSION = 1
LIBRARY_DIR_VARIABLE = "RETAKE_LIBRARY_DIR"

_log = logging.getLogger("retake_edge.llama")
_recent_errors: collections.deque[str] = collections.deque(maxlen=8)
_GGML_LOG_LEVEL_WARN, _GGML_LOG_LEVEL_ERROR = 3, 4


def library_dir() -> Path:
    """Return the folder of the patched libraries: `RETAKE_LIBRARY_DIR`, or the package's own lib/.

    Raises:
        NativeError: there is no libllama in it.
    """
    folder = Path(os.environ.get(LIBRARY_DIR_VARIABLE) or Path(__file__).parent / "lib")
    if not any(folder.glob("*llama.*")):
        raise NativeError(
            f"There is no libllama in {folder}; build the patched llama.cpp with 'make' or "
            f"'pip install .', or point {LIBRARY_DIR_VARIABLE} at a build."
        )
    return folder.resolve()


@lru_cache(maxsize=1)
def load_libraries() -> ModuleType:
    """Load libllama and libmtmd and return llama_cpp's low-level module.

    Raises:
        NativeError: the libraries are missing, cannot be loaded, or lack the PivotKV symbols.
    """
    folder = library_dir()
    if "llama_cpp" in sys.modules and os.environ.get("LLAMA_CPP_LIB_PATH") != str(folder):
        raise NativeError(
            "llama_cpp was imported before retake_edge with another libllama; import retake_edge "
            f"first, or set LLAMA_CPP_LIB_PATH and MTMD_CPP_LIB to {folder}."
        )
    os.environ["LLAMA_CPP_LIB_PATH"] = os.environ["MTMD_CPP_LIB"] = str(folder)
    try:
        llama_cpp = importlib.import_module("llama_cpp.llama_cpp")
        mtmd_cpp = importlib.import_module("llama_cpp.mtmd_cpp")
    except (ImportError, RuntimeError, OSError, AttributeError) as error:
        raise NativeError(
            f"The libraries in {folder} cannot be loaded ({error}); rebuild them."
        ) from error
    _require_abi(llama_cpp._lib, folder)
    _route_logs(llama_cpp, mtmd_cpp)
    llama_cpp.llama_backend_init()
    return llama_cpp


def load_mtmd() -> ModuleType:
    """Return llama_cpp's low-level mtmd module, loaded from the same folder."""
    load_libraries()
    return importlib.import_module("llama_cpp.mtmd_cpp")


def _require_abi(lib: ctypes.CDLL, folder: Path) -> None:
    if not hasattr(lib, "retake_abi_version"):
        raise NativeError(
            f"The libllama in {folder} is a plain llama.cpp without PivotKV; build retake-edge's "
            "patched one with 'make' or 'pip install .'."
        )
    lib.retake_abi_version.restype = ctypes.c_int32
    found = lib.retake_abi_version()
    if found != ABI_VERSION:
        raise NativeError(
            f"The libllama in {folder} speaks PivotKV version {found}, but this retake-edge needs "
            f"{ABI_VERSION}; rebuild it."
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
        _log.debug("%s", line)

    return llama_cpp.llama_log_callback(write)


def last_error() -> str:
    """Return llama.cpp's latest error line, and forget the collected ones ('' if none)."""
    line = _recent_errors[-1] if _recent_errors else ""
    _recent_errors.clear()
    return line
