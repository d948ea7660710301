"""A folder of safetensors files with its settings, read one tensor at a time."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retake_edge.errors import ModelError

Floats = npt.NDArray[np.float32]
_DTYPES = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16}


@dataclass(frozen=True)
class Checkpoint:
    """Content of a folder: `config` is its config.json, `tensors` name to gguf's LocalTensor."""

    folder: Path
    config: dict[str, Any]
    tensors: dict[str, Any]

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape."""
        shape: tuple[int, ...] = self.tensors[name].shape
        return shape

    def array(self, name: str) -> Floats:
        """Return a tensor as f32.

        Raises:
            ModelError: its type is none of F32, F16, BF16.
        """
        tensor = self.tensors[name]
        if tensor.dtype not in _DTYPES:
            raise ModelError(
                f"The tensor {name} in {self.folder} is {tensor.dtype}, and only "
                f"{', '.join(_DTYPES)} can be read; take the original checkpoint."
            )
        values = tensor.mmap_bytes().view(_DTYPES[tensor.dtype]).reshape(tensor.shape)
        if tensor.dtype == "BF16":
            values = (values.astype(np.uint32) << 16).view(np.float32)
        return np.asarray(values, np.float32)

    def json(self, name: str) -> dict[str, Any]:
        """Return a JSON file of the folder, {} if there is none."""
        path = self.folder / name
        return read_json(path) if path.is_file() else {}


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        ModelError: it is missing or damaged.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{path} cannot be read ({error}); download the checkpoint again."
        ) from None
    if not isinstance(found, dict):
        raise ModelError(f"{path} holds no settings; download the checkpoint again.")
    return found


def open_checkpoint(folder: Path) -> Checkpoint:
    """Open a folder.

    Raises:
        ModelError: it holds no settings or no weights, or a file of them is missing or damaged.
    """
    if not folder.is_dir():
        raise ModelError(f"There is no folder {folder}; give the folder of a checkpoint.")
    config = read_json(folder / "config.json")
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        files = [folder / name for name in sorted(set(read_json(index)["weight_map"].values()))]
    else:
        files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ModelError(f"{folder} has no *.safetensors file; download the whole checkpoint.")
    tensors: dict[str, Any] = {}
    for file in files:
        tensors |= _tensors(file)
    return Checkpoint(folder, config, tensors)


def _tensors(file: Path) -> dict[str, Any]:
    from gguf.utility import SafetensorsLocal

    try:
        tensors = SafetensorsLocal(file).tensors
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{file} cannot be read ({error}); download it again.") from None
    end = max((t.data_range.offset + t.data_range.size for t in tensors.values()), default=0)
    if end > file.stat().st_size:
        raise ModelError(f"{file} is cut off; download it again.")
    return dict(tensors)
