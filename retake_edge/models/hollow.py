"""The GGUF pair of a shape without its weights, to plan with: the headers, and holes for the rest.

llama.cpp loads such a file without weights and accounts for it as for the published one.
"""

from __future__ import annotations

import os
from pathlib import Path

from retake_edge.llama.gguf import read_gguf
from retake_edge.models.manifest import ModelFiles
from retake_edge.models.shape import ModelShape
from retake_edge.models.shape_gguf import GgufLayout, TypeOf, mmproj_layout, model_layout

_BLOCKS = {"q4_k": 256, "q6_k": 256, "q8_0": 32, "q4_0": 32}
_ABOUT = "no weights"


def hollow_pair(shape: ModelShape, quant: str, folder: Path) -> ModelFiles:
    """Write a shape's pair into `folder`; `quant`: what the language model's file is named after.

    The files have the size of the published ones, but take no room on the disk.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = ModelFiles(folder / f"{shape.name}.gguf", folder / f"mmproj-{shape.name}.gguf")
    _finish(model_layout(shape, files.model, types_of(quant, shape), _ABOUT), files.model)
    vision = vision_types(shape.vision.weights)
    _finish(mmproj_layout(shape, files.mmproj, vision, _ABOUT), files.mmproj)
    return files


def _finish(layout: GgufLayout, path: Path) -> None:
    layout.write_head()
    layout.writer.close()
    header = read_gguf(path)
    end = max(header.tensor_offsets[name] + size for name, size in header.tensor_bytes.items())
    alignment = 32
    os.truncate(path, -(-end // alignment) * alignment)


def types_of(quant: str, shape: ModelShape) -> TypeOf:
    """Return the type of each matrix in a file of that quant, as llama.cpp's quantize chooses it.

    Known are Q4_K_M, a mixture, and the plain types. Source: llama.cpp, llama_tensor_get_type.
    """
    if quant.upper() != "Q4_K_M":
        return lambda _name, _shape: quant.lower()
    n_eighth = shape.n_layer // 8

    def mixed(name: str, _shape: tuple[int, ...]) -> str:
        if name == "output.weight" or (name == "token_embd.weight" and shape.tied):
            return "q6_k"
        if ".attn_v." in name or ".ffn_down." in name:
            layer = int(name.split(".")[1])
            is_edge = layer < n_eighth or layer >= 7 * shape.n_layer // 8
            return "q6_k" if is_edge or (layer - n_eighth) % 3 == 2 else "q4_k"
        return "q4_k"

    return mixed


def vision_types(kind: str) -> TypeOf:
    """Return the type of a projector's matrices: rows that do not divide into blocks stay f16."""
    return lambda _name, shape: kind if shape[-1] % _BLOCKS.get(kind, 1) == 0 else "f16"
