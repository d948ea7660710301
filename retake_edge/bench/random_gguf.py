"""Write a GGUF pair of a given shape with random weights, tensor by tensor.

A pool of normal numbers is quantized once, and every matrix is filled from a random place of it:
gigabytes are written at the speed of the disk, and memory stays flat. The vocabulary is 256 bytes
and placeholders, so that any text can be tokenized and the output matrix has its true size.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retake_edge.bench.shapes import ModelShape, VisionShape
from retake_edge.errors import ConfigError

QUANTIZATIONS = ("q8_0", "q4_0", "f16")
_POOL_VALUES = 1 << 22
_SCALE = 0.02
_BLOCK = 32
_SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>")


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
    model, mmproj = folder / f"{name}-{quantization}.gguf", folder / f"mmproj-{name}-f16.gguf"
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


@dataclass
class _Gguf:
    """Tensors announced first, and written one after the other at the end."""

    writer: Any
    seed: int
    tensors: list[tuple[tuple[int, ...], str, float | None]] = field(default_factory=list)

    def add(
        self, name: str, shape: tuple[int, ...], kind: str, constant: float | None = None
    ) -> None:
        """Announce a tensor of `shape` (rows first): random, or one constant."""
        from gguf import GGMLQuantizationType

        packed, dtype = _packed_shape(shape, kind)
        n_bytes = int(np.prod(packed)) * np.dtype(dtype).itemsize
        raw = GGMLQuantizationType[kind.upper()]
        self.writer.add_tensor_info(name, packed, np.dtype(dtype), n_bytes, raw)
        self.tensors.append((shape, kind, constant))

    def add_norm(self, name: str, n: int, *, bias: bool = False) -> None:
        self.add(f"{name}.weight", (n,), "f32", 1.0)
        if bias:
            self.add(f"{name}.bias", (n,), "f32", 0.0)

    def add_linear(self, name: str, n_in: int, n_out: int, kind: str, *, bias: bool) -> None:
        self.add(f"{name}.weight", (n_out, n_in), kind)
        if bias:
            self.add(f"{name}.bias", (n_out,), "f32", 0.0)

    def finish(self) -> None:
        """Write everything to the file."""
        self.writer.write_header_to_file()
        self.writer.write_kv_data_to_file()
        self.writer.write_ti_data_to_file()
        pools = _Pools(self.seed)
        for shape, kind, constant in self.tensors:
            self.writer.write_tensor_data(pools.tensor(shape, kind, constant))
        self.writer.close()


class _Pools:
    """Random values of each type, from which tensors are cut."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        values = self._rng.standard_normal(_POOL_VALUES, dtype=np.float32)
        self._values = values * np.float32(_SCALE)
        self._packed: dict[str, npt.NDArray[Any]] = {}

    def tensor(self, shape: tuple[int, ...], kind: str, constant: float | None) -> npt.NDArray[Any]:
        packed, dtype = _packed_shape(shape, kind)
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


def _packed_shape(shape: tuple[int, ...], kind: str) -> tuple[tuple[int, ...], type]:
    """The shape as stored: quantized rows are bytes."""
    if kind in ("f32", "f16"):
        return shape, np.float32 if kind == "f32" else np.float16
    block_bytes = {"q8_0": 34, "q4_0": 18}[kind]
    return (*shape[:-1], shape[-1] // _BLOCK * block_bytes), np.uint8


def _write_model(shape: ModelShape, quantization: str, path: Path, seed: int) -> None:
    import gguf

    writer = gguf.GGUFWriter(path, shape.arch)
    writer.add_name(f"{shape.name}, random weights")
    writer.add_context_length(1 << 20)
    writer.add_embedding_length(shape.n_embd)
    writer.add_block_count(shape.n_layer)
    writer.add_feed_forward_length(shape.n_ff)
    writer.add_head_count(shape.n_head)
    writer.add_head_count_kv(shape.n_head_kv)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_sections(list(shape.rope_sections))
    writer.add_vocab_size(shape.n_vocab)
    if shape.vision.deepstack:
        writer.add_num_deepstack_layers(len(shape.vision.deepstack))
    _add_vocabulary(writer, shape.n_vocab)
    file = _Gguf(writer, seed)
    _add_language_layers(file, shape, quantization)
    file.finish()


def _add_language_layers(file: _Gguf, shape: ModelShape, kind: str) -> None:
    file.add("token_embd.weight", (shape.n_vocab, shape.n_embd), kind)
    file.add_norm("output_norm", shape.n_embd)
    if not shape.tied:
        file.add("output.weight", (shape.n_vocab, shape.n_embd), kind)
    n_q, n_kv = shape.n_head * shape.head_dim, shape.n_head_kv * shape.head_dim
    is_qwen3 = shape.arch == "qwen3vl"
    for i in range(shape.n_layer):
        block = f"blk.{i}"
        for norm in ("attn_norm", "ffn_norm"):
            file.add_norm(f"{block}.{norm}", shape.n_embd)
        for part, n_out in (("q", n_q), ("k", n_kv), ("v", n_kv)):
            file.add_linear(f"{block}.attn_{part}", shape.n_embd, n_out, kind, bias=not is_qwen3)
        if is_qwen3:
            file.add_norm(f"{block}.attn_q_norm", shape.head_dim)
            file.add_norm(f"{block}.attn_k_norm", shape.head_dim)
        file.add_linear(f"{block}.attn_output", n_q, shape.n_embd, kind, bias=False)
        for part in ("gate", "up"):
            file.add_linear(f"{block}.ffn_{part}", shape.n_embd, shape.n_ff, kind, bias=False)
        file.add_linear(f"{block}.ffn_down", shape.n_ff, shape.n_embd, kind, bias=False)


def _add_vocabulary(writer: Any, n_vocab: int) -> None:
    from gguf import TokenType

    texts = [*_byte_letters(), *_SPECIALS]
    kinds = [TokenType.NORMAL] * 256 + [TokenType.CONTROL] * len(_SPECIALS)
    n_spare = n_vocab - len(texts)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(texts + [f"<|spare_{i}|>" for i in range(n_spare)])
    writer.add_token_types(kinds + [TokenType.UNUSED] * n_spare)
    # The loader wants the key; no two bytes are ever joined by a pair that no text contains.
    writer.add_token_merges(["\u0100 \u0100"])
    writer.add_eos_token_id(256)
    writer.add_bos_token_id(256)
    writer.add_add_bos_token(False)


def _byte_letters() -> Iterator[str]:
    """The letter that stands for each byte in GPT-2's vocabulary."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    spare = iter(range(256, 512))
    for byte in range(256):
        yield chr(byte if byte in printable else next(spare))


def _write_mmproj(shape: ModelShape, _quantization: str, path: Path, seed: int) -> None:
    import gguf

    vision = shape.vision
    writer = gguf.GGUFWriter(path, "clip")
    writer.add_name(f"{shape.name} vision, random weights")
    writer.add_clip_has_vision_encoder(True)
    writer.add_clip_projector_type(f"{vision.kind}_merger")
    # The side of the grid that the position table was trained on, where there is one.
    writer.add_vision_image_size(
        round(vision.n_positions**0.5) * vision.patch_px if vision.n_positions else 560
    )
    writer.add_vision_patch_size(vision.patch_px)
    writer.add_vision_spatial_merge_size(2)
    writer.add_vision_embedding_length(vision.n_embd)
    writer.add_vision_feed_forward_length(vision.n_ff)
    writer.add_vision_block_count(vision.n_layer)
    writer.add_vision_head_count(vision.n_head)
    writer.add_vision_projection_dim(shape.n_embd)
    writer.add_vision_attention_layernorm_eps(1e-6)
    writer.add_vision_image_mean([0.5] * 3)
    writer.add_vision_image_std([0.5] * 3)
    if vision.kind == "qwen2.5vl":
        writer.add_vision_use_silu(True)
        writer.add_vision_n_wa_pattern(vision.full_attention_every)
    else:
        writer.add_vision_use_gelu(True)
        writer.add_vision_is_deepstack_layers(
            [i in vision.deepstack for i in range(vision.n_layer)]
        )
    file = _Gguf(writer, seed)
    _add_vision_layers(file, vision, shape.n_embd)
    file.finish()


def _add_vision_layers(file: _Gguf, vision: VisionShape, n_out: int) -> None:
    n, side, is_qwen3 = vision.n_embd, vision.patch_px, vision.kind == "qwen3vl"
    for name in ("v.patch_embd.weight", "v.patch_embd.weight.1"):
        file.add(name, (n, 3, side, side), "f16")
    if is_qwen3:
        file.add("v.patch_embd.bias", (n,), "f32", 0.0)
        file.add("v.position_embd.weight", (vision.n_positions, n), "f32")
    for i in range(vision.n_layer):
        block = f"v.blk.{i}"
        for norm in ("ln1", "ln2"):
            file.add_norm(f"{block}.{norm}", n, bias=is_qwen3)
        if is_qwen3:
            file.add_linear(f"{block}.attn_qkv", n, 3 * n, "f16", bias=True)
        else:
            for part in "qkv":
                file.add_linear(f"{block}.attn_{part}", n, n, "f16", bias=True)
            file.add_linear(f"{block}.ffn_gate", n, vision.n_ff, "f16", bias=True)
        file.add_linear(f"{block}.attn_out", n, n, "f16", bias=True)
        file.add_linear(f"{block}.ffn_up", n, vision.n_ff, "f16", bias=True)
        file.add_linear(f"{block}.ffn_down", vision.n_ff, n, "f16", bias=True)
        if i in vision.deepstack:
            file.add_norm(f"v.deepstack.{i}.norm", 4 * n, bias=True)
            file.add_linear(f"v.deepstack.{i}.fc1", 4 * n, 4 * n, "f16", bias=True)
            file.add_linear(f"v.deepstack.{i}.fc2", 4 * n, n_out, "f16", bias=True)
    file.add_norm("v.post_ln", n, bias=is_qwen3)
    file.add_linear("mm.0", 4 * n, 4 * n, "f16", bias=True)
    file.add_linear("mm.2", 4 * n, n_out, "f16", bias=True)
