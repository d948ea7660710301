"""Write a GGUF pair of a given shape with random weights, tensor by tensor.

A pool of normal numbers is quantized once, and every matrix is filled from a random place of it:
gigabytes are written at the speed of the disk, and memory stays flat.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retake_edge.errors import ConfigError
from retake_edge.models.shape import ModelShape
from retake_edge.models.shape_gguf import GgufLayout, mmproj_layout, model_layout, packed_shape

QUANTIZATIONS = ("q8_0", "q4_0", "f16")
_POOL_VALUES = 1 << 22
_SCALE = 0.02
_BLOCK = 32
_ABOUT = "random weights"


def random_pair(
    shape: ModelShape, quantization: str, folder: Path, seed: int = 0
) -> tuple[Path, Path]:
    """Return the paths (language model, mmproj) of a shape in `folder`, written if missing.

    Raises:
        ConfigError: an unknown quantization, or the folder cannot be written.
    """
    if quantization not in QUANTIZATIONS:
        raise ConfigError(
            f"--quant is {quantization!r}, but must be one of {', '.join(QUANTIZATIONS)}."
        )
    name = f"{shape.name}-{shape.n_layer}-layers"
    tower = f"{name}-{shape.vision.n_layer}-in-the-tower"
    model, mmproj = folder / f"{name}-{quantization}.gguf", folder / f"mmproj-{tower}-f16.gguf"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, write in ((model, _write_model), (mmproj, _write_mmproj)):
            if not path.is_file():
                part = path.with_name(f".{path.name}.{os.getpid()}.part")
                write(shape, quantization, part, seed)
                part.replace(path)
    except OSError as error:
        raise ConfigError(f"Cannot write {folder} ({error.strerror}); free some space.") from None
    return model, mmproj


class _Pools:
    """Random values of each type, from which tensors are cut."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        values = self._rng.standard_normal(_POOL_VALUES, dtype=np.float32)
        self._values = values * np.float32(_SCALE)
        self._packed: dict[str, npt.NDArray[Any]] = {}

    def tensor(self, shape: tuple[int, ...], kind: str, constant: float | None) -> npt.NDArray[Any]:
        packed, dtype = packed_shape(shape, kind)
        if constant is not None:
            return np.full(packed, constant, dtype)
        pool, n = self._pool(kind), int(np.prod(packed))
        half = len(pool) // 2
        block = half * _BLOCK // _POOL_VALUES  # entries that one block of values takes
        start = int(self._rng.integers(_POOL_VALUES // _BLOCK)) * block
        cut = pool[start : start + half]
        return (cut[:n] if n <= half else np.resize(cut, n)).reshape(packed)

    def _pool(self, kind: str) -> npt.NDArray[Any]:
        """The pool twice in a row, so that it can be cut anywhere."""
        if kind not in self._packed:
            self._packed[kind] = np.tile(_pack(self._values, kind), 2)
        return self._packed[kind]


def _pack(values: npt.NDArray[np.float32], kind: str) -> npt.NDArray[Any]:
    from gguf import GGMLQuantizationType, quants

    if kind == "f32":
        return values
    if kind == "f16":
        return values.astype(np.float16)
    packed = quants.quantize(values.reshape(-1, _BLOCK), GGMLQuantizationType[kind.upper()])
    return np.ascontiguousarray(packed).ravel()


def _write_model(shape: ModelShape, quantization: str, path: Path, seed: int) -> None:
    layout = model_layout(shape, path, lambda _name, _shape: quantization, _ABOUT)
    write_random(layout, seed)


def _write_mmproj(shape: ModelShape, _quantization: str, path: Path, seed: int) -> None:
    layout = mmproj_layout(shape, path, lambda _name, _shape: "f16", _ABOUT)
    write_random(layout, seed)


def write_random(layout: GgufLayout, seed: int = 0) -> None:
    """Write an announced file, its weights random."""
    layout.write_head()
    pools = _Pools(seed)
    for shape, kind, constant in layout.tensors:
        layout.writer.write_tensor_data(pools.tensor(shape, kind, constant))
    layout.writer.close()
