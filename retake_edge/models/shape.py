"""The shape of a published model: enough to say what it takes, before any of it is downloaded.

A manifest carries it as `[shape]` and `[shape.vision]`. Source: the models' published config.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

_MIN_VOCAB = 512


@dataclass(frozen=True)
class VisionShape:
    """A vision tower with what joins it to the language model.

    `kind`: 'qwen2vl', 'qwen2.5vl' (RMS norm, SwiGLU, windows), 'qwen3vl' (deepstack), 'internvl',
    'smolvlm'. `merge`: `merge` x `merge` patches become one token. `image_px`: the side of the one
    picture that the tower takes, 0 for any; `n_positions`: rows of its table of places.
    `full_attention_every`: windows in the layers between. `weights`: ggml's type of its matrices in
    the published file.
    """

    kind: str
    n_layer: int
    n_embd: int
    n_ff: int
    n_head: int
    patch_px: int
    full_attention_every: int = 0
    n_positions: int = 0
    deepstack: tuple[int, ...] = ()
    merge: int = 2
    image_px: int = 0
    weights: str = "f16"


@dataclass(frozen=True)
class ModelShape:
    """A language model with its vision tower. `tied`: the output matrix is the embedding table.

    `n_ctx_train`: tokens of the longest text that it was trained with.
    """

    name: str
    arch: str
    n_layer: int
    n_embd: int
    n_ff: int
    n_head: int
    n_head_kv: int
    head_dim: int
    n_vocab: int
    rope_base: float
    rope_sections: tuple[int, ...]
    tied: bool
    vision: VisionShape
    n_ctx_train: int = 1 << 20

    def cut(self, n_layer: int) -> ModelShape:
        """Return the shape with at most `n_layer` layers; tower and vocabulary are cut alike.

        Then every part does the same share of the work as in the whole. The first layers stay, so
        a small cut of a tower with windows may have none of its few layers without; deepstack
        enters all layers but the last.
        """
        kept = min(self.n_layer, n_layer)
        n_vision = max(1, round(self.vision.n_layer * kept / self.n_layer))
        deepstack = tuple(range(min(len(self.vision.deepstack), n_layer - 1, n_vision)))
        vision = replace(self.vision, n_layer=n_vision, deepstack=deepstack)
        n_vocab = max(_MIN_VOCAB, self.n_vocab * kept // self.n_layer)
        return replace(self, n_layer=kept, n_vocab=n_vocab, vision=vision)


def shape_from(name: str, data: Mapping[str, Any]) -> ModelShape:
    """Return the shape that a manifest's `[shape]` holds.

    Raises:
        KeyError, TypeError: a value is missing, or one too many.
    """
    vision = dict(data["vision"])
    vision["deepstack"] = tuple(vision.get("deepstack", ()))
    rest = {key: value for key, value in data.items() if key != "vision"}
    rest["rope_sections"] = tuple(rest.get("rope_sections", ()))
    return ModelShape(name=name, vision=VisionShape(**vision), **rest)
