"""A Qwen2-VL language model in numpy: what the engine is compared with, end to end.

Reads f32 (or any) GGUF weights of architecture qwen2vl and runs chunked prefill with PivotKV
under each position rule, the reference's per-layer one included, which no engine with a single
position input can run. For models of a few million parameters.

Source: transformers 4.48 Qwen2-VL; video-ReTaKe at e268c32 for the order of operations.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from retake_edge.errors import ModelError
from retake_edge.golden.reference.cache import Rope, make_rope, softmax, with_yarn

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]


@dataclass
class LayerCache:
    """One layer's cache: keys and values f32 [n_kv, m, d], and the positions int32 [3, m]."""

    k: Floats
    v: Floats
    positions: Ints


@dataclass(frozen=True)
class ForwardTrace:
    """The record of one forward pass: q f32 [L, n_head, n, d] (rotated) and logits f32 [vocab]."""

    q: Floats
    logits: Floats


class ReferenceModel:
    """Weights and a growing cache per layer.

    Raises:
        ModelError: the file is missing, no GGUF, or not of architecture qwen2vl.
    """

    def __init__(self, path: Path) -> None:
        from gguf import GGUFReader, dequantize

        if not path.is_file():
            raise ModelError(f"There is no model file {path}.")
        try:
            reader = GGUFReader(path)
        except (ValueError, IndexError) as error:
            raise ModelError(f"{path} is no readable GGUF ({error}).") from error

        def field(key: str) -> object:
            entry = reader.get_field(key)
            if entry is None:
                raise ModelError(f"{path} has no field {key}.")
            return entry.contents()

        arch = field("general.architecture")
        if arch != "qwen2vl":
            raise ModelError(f"{path} is of architecture {arch}, but the reference needs qwen2vl.")
        numbers = {
            name: float(str(field(f"qwen2vl.{key}")))
            for name, key in (
                ("n_layer", "block_count"),
                ("n_head", "attention.head_count"),
                ("n_kv", "attention.head_count_kv"),
                ("base", "rope.freq_base"),
                ("eps", "attention.layer_norm_rms_epsilon"),
                ("n_ctx_train", "context_length"),
            )
        }
        self.n_layer, self.n_head = int(numbers["n_layer"]), int(numbers["n_head"])
        self.n_kv, self._eps = int(numbers["n_kv"]), np.float32(numbers["eps"])
        self._weights = {
            t.name: np.asarray(dequantize(t.data, t.tensor_type), np.float32)
            for t in reader.tensors
        }
        self.head_dim = self._weights["blk.0.attn_q.weight"].shape[0] // self.n_head
        sections = field("qwen2vl.rope.dimension_sections")
        assert isinstance(sections, list)
        self.rope: Rope = make_rope("mrope", self.head_dim, numbers["base"], tuple(sections))
        self._base, self._n_ctx_train = numbers["base"], int(numbers["n_ctx_train"])
        self.cache: list[LayerCache] = []
        self.clear()

    def stretch(self, factor: float) -> None:
        """Stretch the rotary embedding by YaRN."""
        self.rope = with_yarn(self.rope, self._base, factor, self._n_ctx_train)

    def clear(self) -> None:
        """Empty the cache."""
        empty = np.zeros((self.n_kv, 0, self.head_dim), np.float32)
        self.cache = [
            LayerCache(empty, empty, np.zeros((3, 0), np.int32)) for _ in range(self.n_layer)
        ]

    def embed_tokens(self, tokens: Ints) -> Floats:
        """Return input embeddings, f32 [n, n_embd]."""
        return np.asarray(self._weights["token_embd.weight"][tokens], np.float32)

    def forward(self, rows: Floats, positions: Ints) -> ForwardTrace:
        """Run embeddings f32 [n, n_embd] at positions int32 [L, 3, n], a row per layer.

        Everything cached is visible, and of the new rows each sees itself and those before it.
        All rows are appended to the cache; logits are the last row's.
        """
        x, queries = rows, []
        for layer in range(self.n_layer):
            h = self._norm(x, f"blk.{layer}.attn_norm")
            attended, q = self._attend(layer, h, positions[layer])
            x = x + attended
            h = self._norm(x, f"blk.{layer}.ffn_norm")
            gate = self._linear(h, f"blk.{layer}.ffn_gate")
            up = self._linear(h, f"blk.{layer}.ffn_up")
            x = x + self._linear(gate / (1 + np.exp(-gate)) * up, f"blk.{layer}.ffn_down")
            queries.append(q)
        last = self._norm(x[-1:], "output_norm")
        head = self._weights.get("output.weight", self._weights["token_embd.weight"])
        return ForwardTrace(np.stack(queries), np.asarray((last @ head.T)[0], np.float32))

    def replace_tail(self, layer: int, n: int, k: Floats, v: Floats, positions: Ints) -> None:
        """Put k, v [n_kv, m, d] at positions int32 [3, m] in place of a layer's last n cells."""
        cell = self.cache[layer]
        m = cell.k.shape[1] - n
        self.cache[layer] = LayerCache(
            np.concatenate([cell.k[:, :m], k], axis=1),
            np.concatenate([cell.v[:, :m], v], axis=1),
            np.concatenate([cell.positions[:, :m], positions], axis=1),
        )

    def _attend(self, layer: int, x: Floats, positions: Ints) -> tuple[Floats, Floats]:
        n = len(x)
        q, k, v = (
            self._linear(x, f"blk.{layer}.attn_{name}").reshape(n, heads, -1).transpose(1, 0, 2)
            for name, heads in (("q", self.n_head), ("k", self.n_kv), ("v", self.n_kv))
        )
        q, k = self.rope.rotate(q, positions), self.rope.rotate(k, positions)
        self.replace_tail(layer, 0, k, v, positions)
        cell = self.cache[layer]
        m = cell.k.shape[1]
        hidden = np.triu(np.full((n, m), -np.inf, np.float32), m - n + 1)
        group = self.n_head // self.n_kv
        out = np.empty((n, self.n_head, self.head_dim), np.float32)
        for head in range(self.n_head):
            logits = q[head] @ cell.k[head // group].T * np.float32(self.head_dim**-0.5)
            out[:, head] = softmax(logits + hidden) @ cell.v[head // group]
        return self._linear(out.reshape(n, -1), f"blk.{layer}.attn_output"), q

    def _linear(self, x: Floats, name: str) -> Floats:
        y = x @ self._weights[f"{name}.weight"].T
        bias = self._weights.get(f"{name}.bias")
        return np.asarray(y if bias is None else y + bias, np.float32)

    def _norm(self, x: Floats, name: str) -> Floats:
        variance = np.mean(x * x, axis=-1, keepdims=True)
        scaled = x / np.sqrt(variance + self._eps)
        return np.asarray(scaled * self._weights[f"{name}.weight"], np.float32)
