"""The GGUF pair of a shape: every key and tensor of a published model, with any content or none.

The vocabulary is 256 bytes, the marks and words that families write between frames, and
placeholders: any text can be tokenized, time text has its true length, and the output matrix its
true size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retake_edge.models.shape import ModelShape, VisionShape

_SPECIALS = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"),
    *("<img>", "</img>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>"),
)
_WORDS = ("Frame", " from", " seconds")
_PROJECTORS = {
    "qwen2vl": "qwen2vl_merger",
    "qwen2.5vl": "qwen2.5vl_merger",
    "qwen3vl": "qwen3vl_merger",
    "internvl": "internvl",
    "smolvlm": "idefics3",
}
_TILES_A_SIDE = 4  # SmolVLM2 enlarges pictures to this many towers' sides
TypeOf = Callable[[str, tuple[int, ...]], str]
"""From a matrix' name and shape (rows first) to ggml's type of it."""


@dataclass
class GgufLayout:
    """A GGUF file of which keys and tensors are announced; whoever finishes it fills them."""

    writer: Any
    type_of: TypeOf
    tensors: list[tuple[tuple[int, ...], str, float | None]] = field(default_factory=list)

    def add(
        self, name: str, shape: tuple[int, ...], kind: str, constant: float | None = None
    ) -> None:
        """Announce a tensor of `shape` (rows first): weights, or one constant."""
        import numpy as np
        from gguf import GGMLQuantizationType

        packed, dtype = packed_shape(shape, kind)
        n_bytes = int(np.prod(packed)) * np.dtype(dtype).itemsize
        raw = GGMLQuantizationType[kind.upper()]
        self.writer.add_tensor_info(name, packed, np.dtype(dtype), n_bytes, raw)
        self.tensors.append((shape, kind, constant))

    def add_norm(self, name: str, n: int, *, bias: bool = False) -> None:
        """Announce a norm."""
        self.add(f"{name}.weight", (n,), "f32", 1.0)
        if bias:
            self.add(f"{name}.bias", (n,), "f32", 0.0)

    def add_linear(self, name: str, n_in: int, n_out: int, *, bias: bool = False) -> None:
        """Announce a matrix, in the type that the file's rule gives it."""
        weight = f"{name}.weight"
        self.add(weight, (n_out, n_in), self.type_of(weight, (n_out, n_in)))
        if bias:
            self.add(f"{name}.bias", (n_out,), "f32", 0.0)

    def write_head(self) -> None:
        """Write everything that stands before the weights."""
        self.writer.write_header_to_file()
        self.writer.write_kv_data_to_file()
        self.writer.write_ti_data_to_file()


def packed_shape(shape: tuple[int, ...], kind: str) -> tuple[tuple[int, ...], type]:
    """Return a tensor's shape and type as stored: quantized rows are bytes."""
    import numpy as np
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    if kind in ("f32", "f16"):
        return shape, np.float32 if kind == "f32" else np.float16
    n_block, n_bytes = GGML_QUANT_SIZES[GGMLQuantizationType[kind.upper()]]
    return (*shape[:-1], shape[-1] // int(n_block) * int(n_bytes)), np.uint8


def model_layout(shape: ModelShape, path: Path, type_of: TypeOf, about: str) -> GgufLayout:
    """Announce the language model of a shape; `about` follows its name."""
    import gguf

    writer = gguf.GGUFWriter(path, shape.arch)
    writer.add_name(f"{shape.name}, {about}")
    writer.add_context_length(shape.n_ctx_train)
    writer.add_embedding_length(shape.n_embd)
    writer.add_block_count(shape.n_layer)
    writer.add_feed_forward_length(shape.n_ff)
    writer.add_head_count(shape.n_head)
    writer.add_head_count_kv(shape.n_head_kv)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_layer_norm_rms_eps(1e-6)
    if shape.rope_sections:
        writer.add_rope_dimension_sections(list(shape.rope_sections))
    writer.add_vocab_size(shape.n_vocab)
    if shape.vision.deepstack:
        writer.add_num_deepstack_layers(len(shape.vision.deepstack))
    _add_vocabulary(writer, shape.n_vocab)
    layout = GgufLayout(writer, type_of)
    _add_language_layers(layout, shape)
    return layout


def _add_language_layers(file: GgufLayout, shape: ModelShape) -> None:
    file.add_linear("token_embd", shape.n_embd, shape.n_vocab)
    file.add_norm("output_norm", shape.n_embd)
    if not shape.tied:
        file.add_linear("output", shape.n_embd, shape.n_vocab)
    n_q, n_kv = shape.n_head * shape.head_dim, shape.n_head_kv * shape.head_dim
    has_bias, has_norms = shape.arch.startswith("qwen2"), shape.arch.startswith("qwen3")
    for i in range(shape.n_layer):
        block = f"blk.{i}"
        for norm in ("attn_norm", "ffn_norm"):
            file.add_norm(f"{block}.{norm}", shape.n_embd)
        for part, n_out in (("q", n_q), ("k", n_kv), ("v", n_kv)):
            file.add_linear(f"{block}.attn_{part}", shape.n_embd, n_out, bias=has_bias)
        if has_norms:
            file.add_norm(f"{block}.attn_q_norm", shape.head_dim)
            file.add_norm(f"{block}.attn_k_norm", shape.head_dim)
        file.add_linear(f"{block}.attn_output", n_q, shape.n_embd)
        for part in ("gate", "up"):
            file.add_linear(f"{block}.ffn_{part}", shape.n_embd, shape.n_ff)
        file.add_linear(f"{block}.ffn_down", shape.n_ff, shape.n_embd)


def _add_vocabulary(writer: Any, n_vocab: int) -> None:
    from gguf import TokenType

    letters = list(byte_letters())
    words = ["".join(letters[byte] for byte in word.encode()) for word in _WORDS]
    parts = [(word[:end], word[end]) for word in words for end in range(1, len(word))]
    texts = [*letters, *_SPECIALS, *("".join(pair) for pair in parts)]
    kinds = [TokenType.NORMAL] * 256 + [TokenType.CONTROL] * len(_SPECIALS)
    kinds += [TokenType.NORMAL] * len(parts)
    n_spare = n_vocab - len(texts)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(texts + [f"<|spare_{i}|>" for i in range(n_spare)])
    writer.add_token_types(kinds + [TokenType.UNUSED] * n_spare)
    writer.add_token_merges([f"{front} {letter}" for front, letter in parts])
    writer.add_eos_token_id(256)
    writer.add_bos_token_id(256)
    writer.add_add_bos_token(False)


def byte_letters() -> Iterator[str]:
    """Yield the letter that stands for each byte in GPT-2's vocabulary."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    spare = iter(range(256, 512))
    for byte in range(256):
        yield chr(byte if byte in printable else next(spare))


def mmproj_layout(shape: ModelShape, path: Path, type_of: TypeOf, about: str) -> GgufLayout:
    """Announce the projector of a shape; `about` follows its name."""
    import gguf

    vision = shape.vision
    writer = gguf.GGUFWriter(path, "clip")
    writer.add_name(f"{shape.name} vision, {about}")
    writer.add_clip_has_vision_encoder(True)
    writer.add_clip_projector_type(_PROJECTORS[vision.kind])
    # Of a tower for any size: the side of the grid that its table of places was trained on.
    side_px = round(vision.n_positions**0.5) * vision.patch_px if vision.n_positions else 560
    writer.add_vision_image_size(vision.image_px or side_px)
    writer.add_vision_patch_size(vision.patch_px)
    writer.add_vision_embedding_length(vision.n_embd)
    writer.add_vision_feed_forward_length(vision.n_ff)
    writer.add_vision_block_count(vision.n_layer)
    writer.add_vision_head_count(vision.n_head)
    writer.add_vision_projection_dim(shape.n_embd)
    writer.add_vision_attention_layernorm_eps(1e-6)
    writer.add_vision_image_mean([0.5] * 3)
    writer.add_vision_image_std([0.5] * 3)
    _add_vision_kind(writer, vision)
    layout = GgufLayout(writer, type_of)
    _add_vision_layers(layout, vision, shape.n_embd)
    return layout


def _add_vision_kind(writer: Any, vision: VisionShape) -> None:
    if vision.image_px:
        writer.add_vision_projector_scale_factor(vision.merge)
    else:
        writer.add_vision_spatial_merge_size(vision.merge)
    if vision.kind == "qwen2.5vl":
        writer.add_vision_use_silu(True)
        writer.add_vision_n_wa_pattern(vision.full_attention_every)
    else:
        writer.add_vision_use_gelu(True)
    if vision.kind == "qwen3vl":
        writer.add_vision_is_deepstack_layers(
            [i in vision.deepstack for i in range(vision.n_layer)]
        )
    if vision.kind == "smolvlm":
        writer.add_vision_preproc_image_size(_TILES_A_SIDE * vision.image_px)


def _add_vision_layers(file: GgufLayout, vision: VisionShape, n_out: int) -> None:
    n, side = vision.n_embd, vision.patch_px
    is_rms = vision.kind == "qwen2.5vl"
    sees_pairs = vision.kind.startswith("qwen")
    for name in ("v.patch_embd.weight", "v.patch_embd.weight.1")[: 1 + sees_pairs]:
        file.add(name, (n, 3, side, side), "f16")
    if vision.n_positions:
        file.add("v.patch_embd.bias", (n,), "f32", 0.0)
        file.add("v.position_embd.weight", (vision.n_positions, n), "f32")
    for i in range(vision.n_layer):
        block = f"v.blk.{i}"
        for norm in ("ln1", "ln2"):
            file.add_norm(f"{block}.{norm}", n, bias=not is_rms)
        if vision.kind == "qwen3vl":
            file.add_linear(f"{block}.attn_qkv", n, 3 * n, bias=True)
        else:
            for part in "qkv":
                file.add_linear(f"{block}.attn_{part}", n, n, bias=True)
        if is_rms:
            file.add_linear(f"{block}.ffn_gate", n, vision.n_ff, bias=True)
        file.add_linear(f"{block}.attn_out", n, n, bias=True)
        file.add_linear(f"{block}.ffn_up", n, vision.n_ff, bias=True)
        file.add_linear(f"{block}.ffn_down", vision.n_ff, n, bias=True)
        if i in vision.deepstack:
            file.add_norm(f"v.deepstack.{i}.norm", 4 * n, bias=True)
            file.add_linear(f"v.deepstack.{i}.fc1", 4 * n, 4 * n, bias=True)
            file.add_linear(f"v.deepstack.{i}.fc2", 4 * n, n_out, bias=True)
    _add_joint(file, vision, n_out)


def _add_joint(file: GgufLayout, vision: VisionShape, n_out: int) -> None:
    """Add the layers that join the tower to the language model."""
    n_merged = vision.merge**2 * vision.n_embd
    if vision.kind == "internvl":
        file.add_norm("mm.model.mlp.0", n_merged, bias=True)
        file.add_linear("mm.model.mlp.1", n_merged, n_out, bias=True)
        file.add_linear("mm.model.mlp.3", n_out, n_out, bias=True)
        return
    file.add_norm("v.post_ln", vision.n_embd, bias=vision.kind != "qwen2.5vl")
    if vision.kind == "smolvlm":
        file.add_linear("mm.model.fc", n_merged, n_out)
        return
    file.add_linear("mm.0", n_merged, n_merged, bias=True)
    file.add_linear("mm.2", n_merged, n_out, bias=True)
