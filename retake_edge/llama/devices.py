"""Devices of this machine, and those that the built libraries can use."""

from __future__ import annotations

import ctypes
import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retake_edge.llama import library

_KINDS = {0: "cpu", 1: "gpu", 2: "igpu", 3: "accelerator"}
# A graphics card's maker, as its PCI vendor id or driver says, and the ggml backends for it.
BACKENDS_OF = {
    "NVIDIA": ("CUDA", "Vulkan"),
    "AMD": ("ROCm", "Vulkan"),
    "Intel": ("Vulkan", "SYCL"),
    "Apple": ("MTL", "Metal"),
}
BUILD_OPTION_OF = {
    "NVIDIA": "-DGGML_CUDA=on",
    "AMD": "-DGGML_VULKAN=on",
    "Intel": "-DGGML_VULKAN=on",
    "Apple": "-DGGML_METAL=on",
}
_PCI_VENDORS = {"0x10de": "NVIDIA", "0x1002": "AMD", "0x8086": "Intel"}
# Instructions that ggml has kernels for: the system's name for each, and ggml's.
INSTRUCTIONS = {
    "avx": "AVX",
    "avx2": "AVX2",
    "fma": "FMA",
    "f16c": "F16C",
    "avx512f": "AVX512",
    "asimddp": "DOTPROD",
    "i8mm": "MATMUL_INT8",
}


@dataclass(frozen=True)
class Device:
    """A device that the libraries compute on.

    `kind`: cpu, gpu, igpu (a GPU in the processor) or accelerator. `backend`: ggml's name of the
    code for it, such as CPU, CUDA, MTL or Vulkan. `free_bytes`, `total_bytes`: its memory (0: not
    told).
    """

    name: str
    description: str
    kind: str
    backend: str
    free_bytes: int
    total_bytes: int

    @property
    def is_gpu(self) -> bool:
        """True if it is a graphics processor, discrete or not."""
        return self.kind in ("gpu", "igpu")


def devices() -> list[Device]:
    """Return all devices that the libraries find, in ggml's order.

    Raises:
        NativeError: the libraries cannot be loaded.
    """
    ggml = _ggml()
    return [_device(ggml, ggml.ggml_backend_dev_get(i)) for i in range(_n(ggml, "dev"))]


def backends() -> list[str]:
    """Return the names of the backends that the libraries were built with.

    Raises:
        NativeError: the libraries cannot be loaded.
    """
    ggml = _ggml()
    registered = [ggml.ggml_backend_reg_get(i) for i in range(_n(ggml, "reg"))]
    return [ggml.ggml_backend_reg_name(entry).decode() for entry in registered]


def library_instructions() -> set[str]:
    """Return the instructions (ggml's names) that the CPU code was compiled with.

    Raises:
        NativeError: the libraries cannot be loaded.
    """
    said: str = library.load_libraries().llama_print_system_info().decode()
    return set(re.findall(r"(\w+) = 1", said)) & set(INSTRUCTIONS.values())


def machine_instructions() -> set[str] | None:
    """Return the instructions (ggml's names) that this processor has; None if that is not told."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    if found is None:
        return None
    words = set(found[1].split())
    return {name for word, name in INSTRUCTIONS.items() if word in words}


def graphics_cards(root: Path = Path("/")) -> set[str]:
    """Return the makers of this machine's graphics cards that ggml has a backend for."""
    if platform.system() == "Darwin":
        return {"Apple"} if platform.machine() == "arm64" else set()
    makers = set()
    for file in root.glob("sys/class/drm/card*/device/vendor"):
        vendor = _read(file)
        if vendor in _PCI_VENDORS:
            makers.add(_PCI_VENDORS[vendor])
    if any(root.glob("proc/driver/nvidia/gpus/*")) or (root / "dev/nvidia0").exists():
        makers.add("NVIDIA")
    return makers


def total_memory_bytes() -> int | None:
    """Return the machine's memory (None where that is not told)."""
    if "SC_PHYS_PAGES" not in os.sysconf_names:
        return None
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _n(ggml: Any, what: str) -> int:
    return int(getattr(ggml, f"ggml_backend_{what}_count")())


def _device(ggml: Any, handle: int) -> Device:
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    ggml.ggml_backend_dev_memory(handle, ctypes.byref(free), ctypes.byref(total))
    return Device(
        ggml.ggml_backend_dev_name(handle).decode(),
        ggml.ggml_backend_dev_description(handle).decode("utf-8", "replace").strip(),
        _KINDS.get(ggml.ggml_backend_dev_type(handle), "other"),
        ggml.ggml_backend_reg_name(ggml.ggml_backend_dev_backend_reg(handle)).decode(),
        free.value,
        total.value,
    )


def _ggml() -> ctypes.CDLL:
    """Return ggml's calls, found through the libllama that is loaded: the same instance."""
    ggml = ctypes.CDLL(library.load_libraries()._lib._name)
    pointer, sizes = ctypes.c_void_p, ctypes.POINTER(ctypes.c_size_t)
    for name in ("dev", "reg"):
        getattr(ggml, f"ggml_backend_{name}_count").restype = ctypes.c_size_t
        getattr(ggml, f"ggml_backend_{name}_get").argtypes = [ctypes.c_size_t]
        getattr(ggml, f"ggml_backend_{name}_get").restype = pointer
        getattr(ggml, f"ggml_backend_{name}_name").argtypes = [pointer]
        getattr(ggml, f"ggml_backend_{name}_name").restype = ctypes.c_char_p
    ggml.ggml_backend_dev_description.argtypes = [pointer]
    ggml.ggml_backend_dev_description.restype = ctypes.c_char_p
    ggml.ggml_backend_dev_type.argtypes = [pointer]
    ggml.ggml_backend_dev_backend_reg.argtypes = [pointer]
    ggml.ggml_backend_dev_backend_reg.restype = pointer
    ggml.ggml_backend_dev_memory.argtypes = [pointer, sizes, sizes]
    ggml.ggml_backend_dev_memory.restype = None
    return ggml
