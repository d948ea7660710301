"""A chunk of random features under a capture, and the kinds of models and caches it runs on."""

from __future__ import annotations

import math
from typing import Any

import native_support as ns
import numpy as np
from gguf import GGMLQuantizationType
from gguf.quants import dequantize
from native_support import Kvc, decode, make_chunk
from random_models import HEAD_DIM

from retake_edge.llama.context import Context
from retake_edge.llama.model import Model

KINDS = ["golden", "norm", "neox", "imrope", "yarn"]
CACHES = {
    "f32": {"type_k": "f32", "type_v": "f32", "flash_attention": "off"},
    "f16": {"type_k": "f16", "type_v": "f16", "flash_attention": "off"},
    "f32 flash": {"type_k": "f32", "type_v": "f32", "flash_attention": "on"},
    "f16 flash": {"type_k": "f16", "type_v": "f16", "flash_attention": "on"},
    "q8_0 flash": {"type_k": "q8_0", "type_v": "q8_0", "flash_attention": "on"},
    "q4_0 flash": {"type_k": "q4_0", "type_v": "q4_0", "flash_attention": "on"},
}
N_TEXT = 3
# how a capture's graphs are run: as this backend would, and as another one
RUNS = {
    "as it is": 0,
    "scheduled": ns.SCHEDULED,
    "no outer product": ns.NO_OUT_PROD,
    "scheduled, no outer product": ns.SCHEDULED | ns.NO_OUT_PROD,
}


def start(context: Context, kvc: Kvc, chunk: ns.Chunk, **begin: Any) -> None:
    """Text, then the chunk under a capture."""
    context.decode_tokens([1, 2, 3], 0)
    assert kvc.begin(len(chunk), **begin) == ns.OK, kvc.reason
    decode(context, chunk)


def chunk_of(model: Model, *, seed: int = 0) -> ns.Chunk:
    """72 tokens (three ubatches of 32) after the text."""
    return make_chunk(model, 6, (3, 4), N_TEXT, seed)


def random_keep(n_layer: int, n: int, n_keep: int, seed: int = 1) -> ns.Array:
    """A kept set a layer, all different."""
    rng = np.random.default_rng(seed)
    return np.stack([np.sort(rng.choice(n, n_keep, replace=False)) for _ in range(n_layer)])


def positions_for(chunk: ns.Chunk, n_keep: int) -> ns.Array:
    """Non-decreasing cell positions that end at the chunk's last one."""
    return np.asarray(chunk.positions[0][-n_keep:])


def head_scale(model: Model) -> float:
    head_dim = 32 if model.path == ns.GOLDEN_MODEL else HEAD_DIM
    return 1 / math.sqrt(head_dim)


def as_floats(rows: ns.Array, cache: str) -> ns.Array:
    kind = GGMLQuantizationType[cache.split()[0].upper()]
    if kind in (GGMLQuantizationType.F32, GGMLQuantizationType.F16):
        dtype = np.float32 if kind == GGMLQuantizationType.F32 else np.float16
        return np.ascontiguousarray(rows).view(dtype).astype(np.float32)
    return np.asarray(dequantize(rows, kind))


def undo_hadamard(rows: ns.Array) -> ns.Array:
    matrix = np.array([[1.0]])
    while len(matrix) < 64:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return np.asarray((rows.reshape(len(rows), -1, 64) @ matrix / 8).reshape(rows.shape))
