"""The vision side of a LLaVA: SigLIP up to the layer in use, projector, learned row, and facts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import isqrt
from pathlib import Path
from typing import Any

from retake_edge.convert.checkpoint import Checkpoint
from retake_edge.convert.gguf_out import OutTensor, add_values, matrix_kind, write_gguf
from retake_edge.convert.layout import Parts
from retake_edge.errors import ModelError
from retake_edge.models.families.video_facts import NEWLINE_TENSOR, VideoFacts

_LAYERS = "vision.encoder.layers."


@dataclass(frozen=True)
class Tower:
    """Facts of a SigLIP that shapes do not tell: features are those after `n_layer` layers."""

    n_layer: int
    n_head: int
    eps: float
    mean: Sequence[float]
    std: Sequence[float]


def write_vision(
    checkpoint: Checkpoint,
    parts: Parts,
    path: Path,
    name: str,
    kind: str,
    tower: Tower,
    facts: VideoFacts,
) -> None:
    """Write tower and projector with matrices of type `kind`.

    Raises:
        ModelError: something is missing, or not known. OSError: the file cannot be written.
    """

    def fill(writer: Any) -> None:
        writer.add_name(name)
        writer.add_type("mmproj")
        add_values(writer, _values(checkpoint, parts, tower))
        add_values(writer, facts.metadata())

    write_gguf(path, "clip", fill, _tensors(checkpoint, parts, tower, kind))


def _values(checkpoint: Checkpoint, parts: Parts, tower: Tower) -> dict[str, Any]:
    def shape(part: str) -> tuple[int, ...]:
        return checkpoint.shape(parts.names[part])

    n_embd, _, patch_px, _ = shape("vision.embeddings.patch_embedding.weight")
    n_side = isqrt(shape("vision.embeddings.position_embedding.weight")[0])
    given = checkpoint.config.get("vision_config", {}).get("image_size")
    vision = {
        # The tower cuts what is left of the last patch: 384 px are 27 patches of 14 px.
        "image_size": int(given or _size_px(n_side, patch_px)),
        "patch_size": patch_px,
        "embedding_length": n_embd,
        "feed_forward_length": shape(f"{_LAYERS}0.mlp.fc1.weight")[0],
        "projection_dim": shape("projector.2.weight")[0],
        "attention.head_count": tower.n_head,
        "block_count": tower.n_layer,
        "attention.layer_norm_epsilon": tower.eps,
        "feature_layer": [tower.n_layer],
        "image_mean": [float(value) for value in tower.mean],
        "image_std": [float(value) for value in tower.std],
    }
    return {
        "clip.has_vision_encoder": True,
        "clip.projector_type": "mlp",
        "clip.use_gelu": True,
        **{f"clip.vision.{key}": value for key, value in vision.items()},
    }


def _size_px(n_side: int, patch_px: int) -> int:
    """The side of the tower's square where no setting tells it."""
    return 384 if (n_side, patch_px) == (27, 14) else n_side * patch_px


def _tensors(checkpoint: Checkpoint, parts: Parts, tower: Tower, kind: str) -> list[OutTensor]:
    from gguf import MODEL_ARCH, get_tensor_name_map

    names, tensors = get_tensor_name_map(MODEL_ARCH.MMPROJ, tower.n_layer), []
    for part, original in parts.names.items():
        name = _name(part, tower, names)
        if name is None:
            continue
        shape, load = checkpoint.shape(original), partial(checkpoint.array, original)
        is_table = name == "v.position_embd.weight"
        tensors.append(
            OutTensor(name, shape, "f32" if is_table else matrix_kind(shape, kind), load)
        )
    return tensors


def _name(part: str, tower: Tower, names: Any) -> str | None:
    """llama.cpp's name of a part of the vision side; None if it is not used."""
    if part == "newline":
        return NEWLINE_TENSOR
    if part.startswith("projector."):
        return part.replace("projector.", "mm.")
    if not part.startswith("vision."):
        return None
    inner = part.removeprefix("vision.")
    if part.startswith(_LAYERS) and int(inner.split(".")[2]) >= tower.n_layer:
        return None
    name = names.get_name(f"vision_tower.vision_model.{inner}", try_suffixes=(".weight", ".bias"))
    if name is None or "class_embd" in name:
        raise ModelError(f"The vision tower has a tensor {inner}, which SigLIP has not.")
    return str(name)
