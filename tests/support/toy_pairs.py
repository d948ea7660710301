"""Tiny GGUF pairs (language model and projector) with random weights, one a kind of memory.

They have a vocabulary of bytes and answer nonsense; what they show is that a real file of such an
architecture goes through the whole tool: loaded, seen with, decoded, asked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFWriter, TokenType

from retake_edge.models.manifest import ModelFiles
from retake_edge.models.shape_gguf import byte_letters

N_EMBD, N_HEAD, N_HEAD_KV, HEAD_DIM, N_FF = 64, 4, 2, 32, 128
VISION_EMBD, VISION_FF, PATCH_PX = 32, 48, 14
_SPECIALS = [
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"),
    *("<bos>", "<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<end_of_image>"),
    *("<|media_start|>", "<|media_content|>", "<|media_end|>", "<|image>", "<image|>"),
    *("<|image_start|>", "<|image_end|>"),
]
Shapes = dict[str, tuple[int, ...]]


def write_pair(folder: Path, kind: str, *, seed: int = 0) -> ModelFiles:
    """Write the pair of `kind` (see `KINDS`) into `folder`, or find it there."""
    files = ModelFiles(folder / f"{kind}.gguf", folder / f"mmproj-{kind}.gguf")
    if not files.mmproj.is_file():
        language, vision = KINDS[kind]
        language(files.model, seed)
        vision(files.mmproj, seed)
    return files


def _qwen35(path: Path, seed: int) -> None:
    """Every other layer attends, the others are gated delta nets."""
    n_layer, state, n_key, n_value = 4, 16, 2, 4
    writer = _language_writer(path, "qwen35", n_layer)
    writer.add_rope_dimension_sections([6, 5, 5, 0])
    writer.add_ssm_conv_kernel(4)
    writer.add_ssm_inner_size(state * n_value)
    writer.add_ssm_state_size(state)
    writer.add_ssm_time_step_rank(n_value)
    writer.add_ssm_group_count(n_key)
    writer.add_full_attention_interval(2)
    d_conv = state * (2 * n_key + n_value)
    recurrent: Shapes = {
        "attn_qkv.weight": (d_conv, N_EMBD),
        "attn_gate.weight": (state * n_value, N_EMBD),
        "ssm_conv1d.weight": (d_conv, 4),
        "ssm_dt.bias": (n_value,),
        "ssm_a": (n_value,),
        "ssm_beta.weight": (n_value, N_EMBD),
        "ssm_alpha.weight": (n_value, N_EMBD),
        "ssm_norm.weight": (state,),
        "ssm_out.weight": (N_EMBD, state * n_value),
    }
    blocks = []
    for layer in range(n_layer):
        own = _attention(n_query=2) | _head_norms() if layer % 2 else recurrent
        block = own | _ffn() | {"post_attention_norm.weight": (N_EMBD,)}
        del block["ffn_norm.weight"]
        blocks.append(block)
    _finish(writer, seed, blocks)


def _lfm2(path: Path, seed: int) -> None:
    """Short convolutions, and attention in every other layer, told by its number of heads."""
    head_dim = N_EMBD // N_HEAD
    heads = [0, N_HEAD_KV] * 2
    writer = _language_writer(path, "lfm2", 4, n_head_kv=heads, head_dims=(head_dim, head_dim))
    writer.add_shortconv_l_cache(3)
    convolution: Shapes = {
        "shortconv.conv.weight": (N_EMBD, 3),
        "shortconv.in_proj.weight": (3 * N_EMBD, N_EMBD),
        "shortconv.out_proj.weight": (N_EMBD, N_EMBD),
    }
    attention: Shapes = {
        "attn_q.weight": (N_EMBD, N_EMBD),
        "attn_k.weight": (N_HEAD_KV * head_dim, N_EMBD),
        "attn_v.weight": (N_HEAD_KV * head_dim, N_EMBD),
        "attn_output.weight": (N_EMBD, N_EMBD),
        "attn_q_norm.weight": (head_dim,),
        "attn_k_norm.weight": (head_dim,),
    }
    blocks = [(attention if n else convolution) | _ffn() for n in heads]
    _finish(writer, seed, blocks, norm="token_embd_norm")


def write_llama(
    path: Path, seed: int = 0, n_ctx: int = 4096, scaling: Mapping[str, Any] | None = None
) -> None:
    """Plain attention over 1-D positions; `scaling`: what stands in the file after 'rope.'."""
    writer = _language_writer(path, "llama", 2, n_ctx=n_ctx)
    for key, value in (scaling or {}).items():
        add = writer.add_string if isinstance(value, str) else writer.add_float32
        add = writer.add_uint32 if isinstance(value, int) else add
        add(f"llama.rope.{key}", value)
    _finish(writer, seed, [_attention() | _ffn()] * 2)


def _gemma3(path: Path, seed: int) -> None:
    """Five layers with a sliding window, then one without; images are seen both ways."""
    writer = _language_writer(path, "gemma3", 6)
    writer.add_sliding_window(32)
    writer.add_bos_token_id(256 + _SPECIALS.index("<bos>"))
    norms: Shapes = {"post_attention_norm.weight": (N_EMBD,), "post_ffw_norm.weight": (N_EMBD,)}
    _finish(writer, seed, [_attention() | _head_norms() | _ffn() | norms] * 6)


def _gemma4(path: Path, seed: int) -> None:
    """Sliding windows, layers that share the cells of earlier ones, embeddings for each layer."""
    n_layer, n_shared, d_own = 6, 2, 8
    writer = _language_writer(path, "gemma4", n_layer)
    writer.add_sliding_window(32)
    writer.add_sliding_window_pattern([True, False] * 3)
    writer.add_shared_kv_layers(n_shared)
    writer.add_key_length_swa(HEAD_DIM)
    writer.add_value_length_swa(HEAD_DIM)
    writer.add_embedding_length_per_layer_input(d_own)
    writer.add_bos_token_id(256 + _SPECIALS.index("<bos>"))
    own: Shapes = {
        "post_attention_norm.weight": (N_EMBD,),
        "post_ffw_norm.weight": (N_EMBD,),
        "inp_gate.weight": (d_own, N_EMBD),
        "proj.weight": (N_EMBD, d_own),
        "post_norm.weight": (N_EMBD,),
    }
    shared: Shapes = {
        "per_layer_token_embd.weight": (256 + len(_SPECIALS), d_own * n_layer),
        "per_layer_model_proj.weight": (d_own * n_layer, N_EMBD),
        "per_layer_proj_norm.weight": (d_own,),
        "rope_freqs.weight": (HEAD_DIM // 2,),
    }
    _finish(writer, seed, [_attention() | _head_norms() | _ffn() | own] * n_layer, shared)


def _mla(path: Path, seed: int) -> None:
    """DeepSeek's latent attention: one compressed row a token, no values of their own."""
    lora, rope, nope, value = 32, 16, 16, 16
    writer = _language_writer(path, "deepseek2", 3, n_head_kv=1, head_dims=(lora + rope, lora))
    writer.add_rope_dimension_count(rope)
    writer.add_q_lora_rank(lora)
    writer.add_kv_lora_rank(lora)
    writer.add_key_length_mla(nope + rope)
    writer.add_value_length_mla(value)
    writer.add_leading_dense_block_count(3)
    writer.add_expert_feed_forward_length(N_FF)
    writer.add_expert_shared_count(1)
    block: Shapes = {
        "attn_norm.weight": (N_EMBD,),
        "attn_q_a_norm.weight": (lora,),
        "attn_kv_a_norm.weight": (lora,),
        "attn_q_a.weight": (lora, N_EMBD),
        "attn_q_b.weight": (N_HEAD * (nope + rope), lora),
        "attn_kv_a_mqa.weight": (lora + rope, N_EMBD),
        "attn_k_b.weight": (N_HEAD, lora, nope),
        "attn_v_b.weight": (N_HEAD, value, lora),
        "attn_output.weight": (N_EMBD, N_HEAD * value),
    }
    _finish(writer, seed, [block | _ffn()] * 3)


def _language_writer(
    path: Path,
    arch: str,
    n_layer: int,
    *,
    n_head_kv: int | list[int] = N_HEAD_KV,
    head_dims: tuple[int, int] = (HEAD_DIM, HEAD_DIM),
    n_ctx: int = 4096,
) -> GGUFWriter:
    writer = GGUFWriter(path, arch)
    writer.add_context_length(n_ctx)
    writer.add_embedding_length(N_EMBD)
    writer.add_block_count(n_layer)
    writer.add_feed_forward_length(N_FF)
    writer.add_head_count(N_HEAD)
    writer.add_head_count_kv(n_head_kv)
    writer.add_key_length(head_dims[0])
    writer.add_value_length(head_dims[1])
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10000.0)
    _add_vocabulary(writer)
    return writer


def _add_vocabulary(writer: GGUFWriter) -> None:
    texts = [*byte_letters(), *_SPECIALS]
    kinds = [TokenType.NORMAL] * 256 + [TokenType.CONTROL] * len(_SPECIALS)
    writer.add_vocab_size(len(texts))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(texts)
    writer.add_token_types(kinds)
    writer.add_token_merges(["\u0100 \u0100"])
    writer.add_eos_token_id(256)


def _attention(n_query: int = 1) -> Shapes:
    """Plain attention; `n_query`: widths of a query, of which a second one gates."""
    d_q, d_kv = N_HEAD * HEAD_DIM, N_HEAD_KV * HEAD_DIM
    return {
        "attn_q.weight": (n_query * d_q, N_EMBD),
        "attn_k.weight": (d_kv, N_EMBD),
        "attn_v.weight": (d_kv, N_EMBD),
        "attn_output.weight": (N_EMBD, d_q),
    }


def _head_norms() -> Shapes:
    return {"attn_q_norm.weight": (HEAD_DIM,), "attn_k_norm.weight": (HEAD_DIM,)}


def _ffn() -> Shapes:
    return {
        "attn_norm.weight": (N_EMBD,),
        "ffn_norm.weight": (N_EMBD,),
        "ffn_gate.weight": (N_FF, N_EMBD),
        "ffn_up.weight": (N_FF, N_EMBD),
        "ffn_down.weight": (N_EMBD, N_FF),
    }


def _finish(
    writer: GGUFWriter,
    seed: int,
    blocks: list[Shapes],
    shared: Shapes | None = None,
    norm: str = "output_norm",
) -> None:
    n_vocab = 256 + len(_SPECIALS)
    shapes: Shapes = {"token_embd.weight": (n_vocab, N_EMBD), f"{norm}.weight": (N_EMBD,)}
    shapes |= {"output.weight": (n_vocab, N_EMBD)} | (shared or {})
    for i, block in enumerate(blocks):
        shapes |= {f"blk.{i}.{name}": shape for name, shape in block.items()}
    _write(writer, seed, shapes)


# --- projectors -------------------------------------------------------------------------------


def _vision_qwen3(path: Path, seed: int) -> None:
    writer = _vision_writer(path, "qwen3vl_merger", image_px=16 * 8, patch_px=16)
    writer.add_vision_spatial_merge_size(2)
    writer.add_vision_use_gelu(True)
    writer.add_vision_is_deepstack_layers([False, False])
    patch = (VISION_EMBD, 3, 16, 16)
    shapes = _tower(patch_px=16, n_positions=64, fused=True)
    shapes["v.patch_embd.weight.1"] = patch
    wide = 4 * VISION_EMBD
    shapes |= _linear("mm.0", wide, wide) | _linear("mm.2", wide, N_EMBD)
    _write(writer, seed, shapes)


def _vision_gemma3(path: Path, seed: int) -> None:
    writer = _vision_writer(path, "gemma3", image_px=8 * PATCH_PX)
    writer.add_vision_projector_scale_factor(2)
    writer.add_vision_use_gelu(True)
    shapes = _tower(n_positions=64)
    shapes |= {
        "mm.input_projection.weight": (VISION_EMBD, N_EMBD),
        "mm.soft_emb_norm.weight": (VISION_EMBD,),
    }
    _write(writer, seed, shapes)


def _vision_gemma4(path: Path, seed: int) -> None:
    writer = _vision_writer(path, "gemma4v", image_px=8 * PATCH_PX)
    writer.add_vision_projector_scale_factor(2)
    writer.add_vision_use_gelu(True)
    shapes = {
        name: shape
        for name, shape in _tower(n_positions=64).items()
        if not name.endswith("bias") and "post_ln" not in name
    }
    shapes["v.position_embd.weight"] = (2, 64, VISION_EMBD)  # one table an axis
    shapes["mm.input_projection.weight"] = (N_EMBD, VISION_EMBD)
    for i in range(2):
        shapes[f"v.blk.{i}.ffn_gate.weight"] = (VISION_FF, VISION_EMBD)
    _write(writer, seed, shapes)


def vision_llava(path: Path, seed: int) -> None:
    """Sixteen tokens a frame, and nothing that tells frames apart."""
    writer = _vision_writer(path, "mlp", image_px=4 * PATCH_PX)
    shapes = _tower(n_positions=16)
    shapes |= _linear("mm.0", VISION_EMBD, N_EMBD) | _linear("mm.2", N_EMBD, N_EMBD)
    _write(writer, seed, shapes)


def _vision_lfm2(path: Path, seed: int) -> None:
    _vision_mlp(path, seed, "lfm2")


def _vision_kimi(path: Path, seed: int) -> None:
    _vision_mlp(path, seed, "kimivl")


def _vision_mlp(path: Path, seed: int, kind: str) -> None:
    """Two by two patches, through two matrices."""
    writer = _vision_writer(path, kind, image_px=8 * PATCH_PX)
    writer.add_vision_projector_scale_factor(2)
    writer.add_vision_use_gelu(True)
    wide = 4 * VISION_EMBD
    shapes = _tower(n_positions=64) | _linear("mm.1", wide, wide) | _linear("mm.2", wide, N_EMBD)
    d_norm = VISION_EMBD if kind == "kimivl" else wide
    shapes |= {"mm.input_norm.weight": (d_norm,), "mm.input_norm.bias": (d_norm,)}
    _write(writer, seed, shapes)


def _vision_writer(path: Path, kind: str, image_px: int, patch_px: int = PATCH_PX) -> GGUFWriter:
    writer = GGUFWriter(path, "clip")
    writer.add_clip_has_vision_encoder(True)
    writer.add_clip_projector_type(kind)
    writer.add_vision_image_size(image_px)
    writer.add_vision_patch_size(patch_px)
    writer.add_vision_embedding_length(VISION_EMBD)
    writer.add_vision_feed_forward_length(VISION_FF)
    writer.add_vision_block_count(2)
    writer.add_vision_head_count(2)
    writer.add_vision_projection_dim(N_EMBD)
    writer.add_vision_attention_layernorm_eps(1e-6)
    writer.add_vision_image_mean([0.5] * 3)
    writer.add_vision_image_std([0.5] * 3)
    return writer


def _tower(*, n_positions: int, patch_px: int = PATCH_PX, fused: bool = False) -> Shapes:
    shapes: Shapes = {
        "v.patch_embd.weight": (VISION_EMBD, 3, patch_px, patch_px),
        "v.patch_embd.bias": (VISION_EMBD,),
        "v.position_embd.weight": (n_positions, VISION_EMBD),
        "v.post_ln.weight": (VISION_EMBD,),
        "v.post_ln.bias": (VISION_EMBD,),
    }
    for i in range(2):
        block = f"v.blk.{i}"
        for norm in ("ln1", "ln2"):
            shapes |= {f"{block}.{norm}.{part}": (VISION_EMBD,) for part in ("weight", "bias")}
        parts = {"qkv": 3 * VISION_EMBD} if fused else dict.fromkeys("qkv", VISION_EMBD)
        for part, width in parts.items():
            shapes |= _linear(f"{block}.attn_{part}", VISION_EMBD, width)
        shapes |= _linear(f"{block}.attn_out", VISION_EMBD, VISION_EMBD)
        shapes |= _linear(f"{block}.ffn_up", VISION_EMBD, VISION_FF)
        shapes |= _linear(f"{block}.ffn_down", VISION_FF, VISION_EMBD)
    return shapes


def _linear(name: str, n_in: int, n_out: int) -> Shapes:
    return {f"{name}.weight": (n_out, n_in), f"{name}.bias": (n_out,)}


def _write(writer: GGUFWriter, seed: int, shapes: Shapes) -> None:
    rng = np.random.default_rng(seed)
    for name, shape in shapes.items():
        writer.add_tensor(name, _weights(rng, name, shape))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _weights(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> Any:
    if name.endswith("ssm_a"):
        return -np.linspace(0.5, 2.0, shape[0], dtype=np.float32)
    if "norm" in name or ".ln" in name or "post_ln" in name or "rope_freqs" in name:
        return np.full(shape, name.endswith("weight"), np.float32)
    fan_in = shape[-1] if len(shape) > 1 else 100 * shape[0]
    values = rng.standard_normal(shape).astype(np.float32) / np.float32(np.sqrt(fan_in))
    return values.astype(np.float16) if "patch_embd.weight" in name else values


KINDS: dict[str, tuple[Callable[[Path, int], None], Callable[[Path, int], None]]] = {
    "hybrid": (_qwen35, _vision_qwen3),
    "convolution": (_lfm2, _vision_lfm2),
    "sliding": (_gemma3, _vision_gemma3),
    "shared": (_gemma4, _vision_gemma4),
    "latent": (_mla, _vision_kimi),
}
