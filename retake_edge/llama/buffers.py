"""A context's share of each device's memory, as llama.cpp itself counts it.

On a model without weights nothing is allocated and the figures are what would be: every cache type,
architecture and backend is counted by the code that will allocate it, so there is no formula here
that could drift from it.
"""

from __future__ import annotations

import ctypes
import os
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from retake_edge.errors import NativeError
from retake_edge.llama import library
from retake_edge.llama.context import Context

_NAME_LENGTH = 64
_MAX_PARTS = 64
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class BufferUse:
    """One kind of buffer; sizes in bytes.

    `name`: llama.cpp's ('CPU', 'CPU_REPACK', 'CUDA0'); `device`: whose memory it is, '' for this
    machine's own; `device_free`, `device_total`: the device's account (0: it keeps none).
    """

    name: str
    device: str
    weights: int
    cells: int
    compute: int
    device_free: int
    device_total: int


class _Part(ctypes.Structure):
    """struct retake_memory_part, retake-memory.h."""

    _fields_ = (
        ("name", ctypes.c_char * _NAME_LENGTH),
        ("device", ctypes.c_char * _NAME_LENGTH),
        ("on_host", ctypes.c_int32),
        ("reserved", ctypes.c_int32),
        ("weights", ctypes.c_uint64),
        ("cells", ctypes.c_uint64),
        ("compute", ctypes.c_uint64),
        ("device_free", ctypes.c_uint64),
        ("device_total", ctypes.c_uint64),
    )


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL:
    lib: ctypes.CDLL = library.load_libraries()._lib
    lib.retake_memory_parts.argtypes = [ctypes.c_void_p, ctypes.POINTER(_Part), ctypes.c_int32]
    lib.retake_memory_parts.restype = ctypes.c_int32
    return lib


def buffers_of(context: Context) -> list[BufferUse]:
    """Return what a context and its model take, by kind of buffer.

    Raises:
        NativeError: llama.cpp cannot say.
    """
    parts = (_Part * _MAX_PARTS)()
    n = _library().retake_memory_parts(context.handle, parts, _MAX_PARTS)
    if not 0 < n <= _MAX_PARTS:
        raise NativeError(f"llama.cpp does not say what the context takes (status {n}).")
    return [
        BufferUse(
            part.name.decode(),
            "" if part.on_host else part.device.decode(),
            *(part.weights, part.cells, part.compute, part.device_free, part.device_total),
        )
        for part in parts[:n]
    ]


def available_memory_bytes() -> int | None:
    """Return the memory this machine can still give (None where that is not known).

    Within a container that is what its own limit leaves.
    """
    known = [n for n in (_machine_available(), _cgroup_available()) if n is not None]
    return min(known, default=None)


def _machine_available() -> int | None:
    found = _status_line(Path("/proc/meminfo"), "MemAvailable")
    if found is not None:
        return found
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _cgroup_available() -> int | None:
    """Return the bytes that the container's limit leaves, or None if they are not known.

    File pages can be given up, so they do not count as used.
    """
    try:
        limit = int((_CGROUP / "memory.max").read_text())
        used = int((_CGROUP / "memory.current").read_text())
        stat = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
        return max(0, limit - used + int(stat["inactive_file"]) + int(stat["active_file"]))
    except (OSError, ValueError, KeyError):  # no container, no limit ('max'), or another version
        return None


def peak_memory_bytes() -> int:
    """Return the most memory that this program has had resident.

    On Linux ru_maxrss is handed on to the programs that a process starts, so it may be the
    parent's; VmHWM is this program's own.
    """
    found = _status_line(Path("/proc/self/status"), "VmHWM")
    if found is not None:
        return found
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def resident_memory_bytes() -> int | None:
    """Return the memory that this program has resident now (None where that is not known)."""
    return _status_line(Path("/proc/self/status"), "VmRSS")


def _status_line(file: Path, name: str) -> int | None:
    """A value in kB of one of Linux's status files, in bytes."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return None
    found = (line.split()[1] for line in lines if line.startswith(f"{name}:"))
    kilobytes = next(found, None)
    return None if kilobytes is None else int(kilobytes) * 1024
