"""Published model shapes, to be filled with random weights: speed needs no trained ones."""

from __future__ import annotations

from retake_edge.errors import ConfigError
from retake_edge.models.shape import ModelShape, VisionShape

__all__ = ["SHAPES", "ModelShape", "VisionShape", "shape_of"]

_QWEN25_VISION = VisionShape("qwen2.5vl", 32, 1280, 3420, 16, 14, full_attention_every=8)
_QWEN3_VISION = VisionShape(
    "qwen3vl", 24, 1024, 4096, 16, 16, n_positions=2304, deepstack=(5, 11, 17)
)

SHAPES = {
    shape.name: shape
    for shape in (
        ModelShape(
            "qwen2.5-vl-3b",
            "qwen2vl",
            n_layer=36,
            n_embd=2048,
            n_ff=11008,
            n_head=16,
            n_head_kv=2,
            head_dim=128,
            n_vocab=151936,
            rope_base=1e6,
            rope_sections=(16, 24, 24, 0),
            tied=True,
            vision=_QWEN25_VISION,
        ),
        ModelShape(
            "qwen2.5-vl-7b",
            "qwen2vl",
            n_layer=28,
            n_embd=3584,
            n_ff=18944,
            n_head=28,
            n_head_kv=4,
            head_dim=128,
            n_vocab=152064,
            rope_base=1e6,
            rope_sections=(16, 24, 24, 0),
            tied=False,
            vision=_QWEN25_VISION,
        ),
        ModelShape(
            "qwen3-vl-4b",
            "qwen3vl",
            n_layer=36,
            n_embd=2560,
            n_ff=9728,
            n_head=32,
            n_head_kv=8,
            head_dim=128,
            n_vocab=151936,
            rope_base=5e6,
            rope_sections=(24, 20, 20, 0),
            tied=True,
            vision=_QWEN3_VISION,
        ),
    )
}
"""Shapes by name. Source: the models' published config.json."""


def shape_of(name: str, n_layer: int | None) -> ModelShape:
    """Return a shape by name, cut to `n_layer` layers if that is given.

    Raises:
        ConfigError: there is no such shape, or the cut has one layer only.
    """
    if name not in SHAPES:
        raise ConfigError(f"There is no shape {name!r}; there are {', '.join(SHAPES)}.")
    if n_layer is None:
        return SHAPES[name]
    check_layers(n_layer, f"{name} cut to {n_layer}")
    return SHAPES[name].cut(n_layer)


N_LAYER_MIN = 2


def check_layers(n_layer: int, what: str) -> None:
    """Refuse a model whose last layer is its only one.

    Raises:
        ConfigError: it has fewer than two layers.
    """
    if n_layer < N_LAYER_MIN:
        raise ConfigError(
            f"{what}: llama.cpp computes the last layer's feed-forward network for output rows "
            "only, so a model of one layer leaves out most of a layer's work; measure two cuts "
            "of at least 2 layers, as --layers 2,4."
        )
