"""A GGUF file written one tensor at a time: no more than one of them is in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
OUT_TYPES = ("f16", "bf16", "f32")


@dataclass(frozen=True)
class OutTensor:
    """A tensor to be written: `load` gives it as f32 of `shape`; `kind` is one of OUT_TYPES."""

    name: str
    shape: tuple[int, ...]
    kind: str
    load: Callable[[], Floats]


def matrix_kind(shape: tuple[int, ...], kind: str) -> str:
    """Return the type of a weight of that shape: matrices get `kind`, all else f32."""
    return kind if len(shape) == 2 else "f32"


def add_values(writer: Any, values: Mapping[str, Any]) -> None:
    """Add metadata by the types of its values."""
    for key, value in values.items():
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        else:
            writer.add_array(key, list(value))


def write_gguf(
    path: Path, arch: str, fill: Callable[[Any], None], tensors: list[OutTensor]
) -> None:
    """Write a file of that architecture; `fill` adds the metadata to gguf's writer.

    Raises:
        OSError: it cannot be written.
    """
    from gguf import GGUFWriter

    writer = GGUFWriter(path, arch)
    fill(writer)
    for tensor in tensors:
        _announce(writer, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor in tensors:
        writer.write_tensor_data(_packed(tensor))
    writer.close()


def _announce(writer: Any, tensor: OutTensor) -> None:
    from gguf import GGMLQuantizationType

    width = {"f16": 2, "bf16": 2, "f32": 4}[tensor.kind]
    shape, dtype = tensor.shape, {"f16": np.float16, "f32": np.float32}.get(tensor.kind, np.uint8)
    if tensor.kind == "bf16":
        shape = (*shape[:-1], shape[-1] * width)
    n_bytes = int(np.prod(tensor.shape)) * width
    kind = GGMLQuantizationType[tensor.kind.upper()]
    writer.add_tensor_info(tensor.name, shape, np.dtype(dtype), n_bytes, kind)


def _packed(tensor: OutTensor) -> npt.NDArray[Any]:
    from gguf import GGMLQuantizationType, quantize

    values = np.ascontiguousarray(tensor.load(), np.float32)
    assert values.shape == tensor.shape, tensor.name
    packed: npt.NDArray[Any] = quantize(values, GGMLQuantizationType[tensor.kind.upper()])
    return packed
