"""PivotKV in numpy: one layer's cache update, spelled out. This is what the C++ must compute.

Slow and plain on purpose. Heads come first: q is [n_head, n, d], k and v are [n_kv, n, d].

Source: ReTaKe (arXiv 2412.20504), section 3.3, as video-ReTaKe at e268c32 computes it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from retake_edge.errors import ModelError

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]


_YARN_BETA_FAST, _YARN_BETA_SLOW = 32.0, 1.0


@dataclass(frozen=True)
class Rope:
    """Rotary embedding of positions on three axes (t, h, w).

    `inverse_frequency`: f32 [d/2]; `axis`: int [d/2], the axis that turns each pair; `pairs`:
    'halves' joins dimension i with i + d/2 (NEOX), 'neighbours' 2i with 2i + 1; `magnitude`
    scales the rotated vectors (YaRN), 1 otherwise.
    """

    inverse_frequency: Floats
    axis: Ints
    pairs: str = "halves"
    magnitude: float = 1.0

    def rotate(self, x: Floats, positions: Ints, *, back: bool = False) -> Floats:
        """Turn x [heads, n, d] to positions int [3, n]; `back` undoes it, magnitude included."""
        angles = positions[self.axis].T.astype(np.float32) * self.inverse_frequency
        cos, sin = np.cos(angles), np.sin(angles)
        scale = self.magnitude
        if back:
            sin, scale = -sin, 1 / scale
        half = x.shape[-1] // 2
        neighbours = self.pairs == "neighbours"
        a, b = (x[..., 0::2], x[..., 1::2]) if neighbours else (x[..., :half], x[..., half:])
        turned = (a * cos - b * sin, a * sin + b * cos)
        if neighbours:
            both = np.stack(turned, axis=-1).reshape(x.shape)
        else:
            both = np.concatenate(turned, axis=-1)
        return np.asarray(both * np.float32(scale), np.float32)


def make_rope(kind: str, head_dim: int, base: float, sections: tuple[int, ...] = ()) -> Rope:
    """Return the rotary embedding of a model.

    `kind`: norm, neox (both turn by t alone), mrope (`sections`: pairs per axis, one axis after
    the other) or imrope (the axes interleaved).

    Raises:
        ModelError: another kind.
    Source: transformers, apply_multimodal_rotary_pos_emb; ggml, ggml_mrope_cache_init.
    """
    half = head_dim // 2
    exponent = np.arange(half, dtype=np.float32) / np.float32(half)
    frequency = np.asarray(1 / np.float32(base) ** exponent, np.float32)
    axis = np.zeros(half, np.int32)
    if kind == "mrope":
        axis = np.repeat(np.arange(3, dtype=np.int32), sections[:3])
    elif kind == "imrope":
        pair = np.arange(half)
        for a in (1, 2):
            axis[(pair % 3 == a) & (pair < 3 * sections[a])] = a
    elif kind not in ("norm", "neox"):
        raise ModelError(f"Rotary embeddings of kind {kind!r} are not supported.")
    return Rope(frequency, axis, "neighbours" if kind == "norm" else "halves")


def with_yarn(rope: Rope, base: float, factor: float, n_ctx_train: int) -> Rope:
    """Return the rotary embedding stretched `factor` times by YaRN with its standard betas.

    `n_ctx_train`: the context that the unstretched model was trained with.

    Source: Peng et al. 2023 (arXiv 2309.00071); transformers, _compute_yarn_parameters.
    """
    half = len(rope.inverse_frequency)

    def pair_with(turns: float) -> float:
        """The pair that makes this many turns within the trained context."""
        return half * math.log(n_ctx_train / (turns * 2 * math.pi)) / math.log(base)

    low = max(np.floor(pair_with(_YARN_BETA_FAST)), 0)
    high = min(np.ceil(pair_with(_YARN_BETA_SLOW)), 2 * half - 1)
    if low == high:
        high += 0.001
    stretched = np.clip((np.arange(half, dtype=np.float32) - low) / (high - low), 0, 1)
    share = stretched.astype(np.float32)
    frequency = rope.inverse_frequency * (share / np.float32(factor) + (1 - share))
    magnitude = 0.1 * math.log(factor) + 1.0 if factor > 1 else 1.0
    return replace(rope, inverse_frequency=frequency.astype(np.float32), magnitude=magnitude)


def chunk_scores(q: Floats, k: Floats) -> Floats:
    """Return the attention that each token receives from its own chunk, f32 [n].

    The softmax runs over the chunk's keys only, without a causal mask; then sum over queries and
    mean over query heads. The mean score is 1. Fewer queries than keys scale up by n_k / n_q.
    """
    n_head, n_q, d = q.shape
    n_kv, n_k, _ = k.shape
    total = np.zeros(n_k, np.float64)
    for head in range(n_head):
        logits = q[head] @ k[head * n_kv // n_head].T * np.float32(d**-0.5)
        total += softmax(logits).sum(axis=0, dtype=np.float64)
    return np.asarray(total * (n_k / n_q) / n_head, np.float32)


def softmax(x: Floats) -> Floats:
    """Return the softmax along the last axis."""
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True), np.float32)


def keep_count(ratio: float, n: int) -> int:
    """Return how many of n tokens the reference keeps: max(1, int(ratio * n))."""
    return max(1, int(ratio * n))


def move_keys(k: Floats, rope: Rope, old: Ints, new: Ints) -> Floats:
    """Re-rotate keys [n_kv, n, d] from positions `old` to `new`, int [3, n] each."""
    return rope.rotate(rope.rotate(k, old, back=True), new)
