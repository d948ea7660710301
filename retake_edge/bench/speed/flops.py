"""Operations of a language model's layers, by which measured seconds are checked.

llama.cpp sends only the rows whose logits are wanted through the last layer's feed-forward
network. In prefill that is one row of a batch, so a cut of one layer computes next to nothing of
what is most of a layer's work.
"""

from __future__ import annotations

from collections.abc import Sequence

from retake_edge.models.shape import ModelShape

CUTS_FACTOR = 1.25
"""Seconds of two cuts may differ from the ratio of their operations by this factor."""
LENGTHS_FACTOR = 1.5
"""The same for a layer at two lengths: an operation of attention takes longer than of a matrix."""

Chunks = Sequence[tuple[int, int]]
"""Of each chunk: its tokens, and the cells before it."""


def attention_matrix_flops(shape: ModelShape) -> int:
    """Operations of a token in one layer's four attention matrices."""
    n_q, n_kv = shape.n_head * shape.head_dim, shape.n_head_kv * shape.head_dim
    return 2 * shape.n_embd * (2 * n_q + 2 * n_kv)


def ffn_flops(shape: ModelShape) -> int:
    """Operations of a token in one layer's feed-forward network (gate, up and down)."""
    return 2 * 3 * shape.n_embd * shape.n_ff


def attention_flops(shape: ModelShape, n_tokens: int, n_before: int) -> int:
    """Operations of a chunk's queries with the keys and values that they may see."""
    n_pairs = n_tokens * n_before + n_tokens * (n_tokens + 1) // 2
    return 4 * shape.n_head * shape.head_dim * n_pairs


def layer_flops(shape: ModelShape, chunks: Chunks) -> int:
    """Operations of one whole layer in prefill."""
    of_token = attention_matrix_flops(shape) + ffn_flops(shape)
    return sum(of_token * n + attention_flops(shape, n, before) for n, before in chunks)


def prefill_flops(shape: ModelShape, chunks: Chunks) -> int:
    """Operations that a prefill does: all layers, less the last one's feed-forward network."""
    n_tokens = sum(n for n, _ in chunks)
    return shape.n_layer * layer_flops(shape, chunks) - n_tokens * ffn_flops(shape)
