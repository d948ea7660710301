"""Small GGUF language models with random weights, one for each kind of attention the cache meets.

They have no vocabulary and answer nothing; their attention is far from uniform, which is what the
native tests need. The golden Qwen2-VL model covers M-RoPE.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from gguf import GGUFValueType, GGUFWriter, RopeScalingType

N_LAYER, N_HEAD, N_HEAD_KV, HEAD_DIM, N_FF, N_VOCAB = 3, 4, 2, 64, 128, 64
N_EMBD = N_HEAD * HEAD_DIM
N_STATE, N_KEY_STATES, N_VALUE_STATES = 16, 2, 4

# kind -> architecture: one position with either pairing, YaRN on top, three axes, attention in
# every other layer beside recurrent ones; then three memories that cannot be compressed, and
# a decoder whose attention is no plain softmax
ARCHITECTURES = {
    "norm": "llama",
    "neox": "qwen2",
    "yarn": "qwen2",
    "imrope": "qwen3vl",
    "hybrid": "qwen35",
    "alibi": "bloom",
    "sliding": "gemma3",
    "indexed": "qwen4exp",
    "biased": "t5",
}
N_STREAMS, STREAM_RANK, N_EXPERT, INDEX_DIM = 2, 8, 2, 32
NGRAM_DIM, NGRAM_ROWS = N_EMBD, 101
N_BUCKETS = 8


def write_model(path: Path, kind: str, *, seed: int = 0, n_layer: int = N_LAYER) -> Path:
    """Write the model of `kind` to `path`; equal seeds give equal weights within one kind.

    'yarn' has the weights of 'neox'.
    """
    arch = ARCHITECTURES[kind]
    writer = GGUFWriter(str(path), arch)
    _add_metadata(writer, arch, kind, n_layer)
    rng = np.random.default_rng(seed)
    for name, shape in _tensor_shapes(arch, n_layer).items():
        writer.add_tensor(name, _weights(rng, name, shape))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_metadata(writer: GGUFWriter, arch: str, kind: str, n_layer: int) -> None:
    writer.add_context_length(4096)
    writer.add_embedding_length(N_EMBD)
    writer.add_block_count(n_layer)
    writer.add_feed_forward_length(4 * N_EMBD if arch == "bloom" else N_FF)
    writer.add_head_count(N_HEAD_KV if arch == "t5" else N_HEAD)
    writer.add_head_count_kv(N_HEAD if arch == "bloom" else N_HEAD_KV)
    writer.add_key_length(HEAD_DIM)
    writer.add_value_length(HEAD_DIM)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_layer_norm_eps(1e-6)
    writer.add_rope_dimension_count(HEAD_DIM)
    writer.add_rope_freq_base(10000.0)
    writer.add_tokenizer_model("no_vocab")
    writer.add_vocab_size(N_VOCAB)
    if kind in ("imrope", "hybrid", "indexed"):
        writer.add_rope_dimension_sections([12, 10, 10, 0])
    if kind in ("hybrid", "indexed"):
        _add_recurrent_metadata(writer)
    if kind == "biased":
        writer.add_relative_attn_buckets_count(N_BUCKETS)
        writer.add_decoder_start_token_id(0)
    if kind == "indexed":
        _add_indexed_metadata(writer, arch)
    if kind == "sliding":
        writer.add_sliding_window(16)
    if kind == "yarn":
        writer.add_rope_scaling_type(RopeScalingType.YARN)
        writer.add_rope_scaling_factor(4.0)
        writer.add_rope_scaling_orig_ctx_len(1024)


def _add_recurrent_metadata(writer: GGUFWriter) -> None:
    """Gated delta nets, and attention in every other layer, from the second on."""
    writer.add_full_attention_interval(2)
    writer.add_ssm_conv_kernel(4)
    writer.add_ssm_state_size(N_STATE)
    writer.add_ssm_inner_size(N_STATE * N_VALUE_STATES)
    writer.add_ssm_time_step_rank(N_VALUE_STATES)
    writer.add_ssm_group_count(N_KEY_STATES)


def _add_indexed_metadata(writer: GGUFWriter, arch: str) -> None:
    """An index of the cells beside their keys, and a hash of the tokens before each token."""
    numbers = {
        "hyper_connection.count": N_STREAMS,
        "hyper_connection.low_rank": STREAM_RANK,
        "attention.indexer.head_count": 1,
        "attention.indexer.key_length": INDEX_DIM,
        "attention.indexer.top_k": 8,
        "expert_count": N_EXPERT,
        "expert_used_count": 1,
        "expert_feed_forward_length": N_FF,
        "expert_shared_feed_forward_length": N_FF,
        "embedding_length_per_layer_input": NGRAM_DIM,
        "ple.ngram_size": 2,
        "ple.heads_per_ngram": 1,
        "ple.conv_kernel": 4,
        "ple.eos_token_id": 0,
    }
    for name, number in numbers.items():
        writer.add_uint32(f"{arch}.{name}", number)
    u32, u64 = GGUFValueType.UINT32, GGUFValueType.UINT64
    for name, values, kind in (
        ("layers", [0], u32),
        ("layer_multipliers", [3, 5], u64),
        ("head_offsets", [0], u64),
        ("head_vocab_sizes", [NGRAM_ROWS], u64),
    ):
        writer.add_key_value(f"{arch}.ple.{name}", values, GGUFValueType.ARRAY, kind)


def _tensor_shapes(arch: str, n_layer: int) -> dict[str, tuple[int, ...]]:
    d_kv = N_HEAD_KV * HEAD_DIM
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (N_VOCAB, N_EMBD),
        "output_norm.weight": (N_EMBD,),
    }
    if arch == "bloom":
        return shapes | _bloom_shapes(n_layer)
    if arch == "qwen35":
        return shapes | _hybrid_shapes(n_layer)
    if arch == "t5":
        return _t5_shapes(n_layer)
    if arch == "qwen4exp":
        return _indexed_shapes(n_layer)
    if arch != "gemma3":
        shapes["output.weight"] = (N_VOCAB, N_EMBD)
    for layer in range(n_layer):
        block: dict[str, tuple[int, ...]] = {
            "attn_norm.weight": (N_EMBD,),
            "attn_q.weight": (N_EMBD, N_EMBD),
            "attn_k.weight": (d_kv, N_EMBD),
            "attn_v.weight": (d_kv, N_EMBD),
            "attn_output.weight": (N_EMBD, N_EMBD),
            "ffn_norm.weight": (N_EMBD,),
            "ffn_gate.weight": (N_FF, N_EMBD),
            "ffn_up.weight": (N_FF, N_EMBD),
            "ffn_down.weight": (N_EMBD, N_FF),
        }
        if arch == "qwen2":
            block |= {"attn_q.bias": (N_EMBD,), "attn_k.bias": (d_kv,), "attn_v.bias": (d_kv,)}
        if arch in ("qwen3vl", "gemma3"):
            block |= {"attn_q_norm.weight": (HEAD_DIM,), "attn_k_norm.weight": (HEAD_DIM,)}
        if arch == "gemma3":
            block |= {
                "post_attention_norm.weight": (N_EMBD,),
                "post_ffw_norm.weight": (N_EMBD,),
            }
        shapes |= {f"blk.{layer}.{name}": shape for name, shape in block.items()}
    return shapes


def _hybrid_shapes(n_layer: int) -> dict[str, tuple[int, ...]]:
    d_kv, d_value = N_HEAD_KV * HEAD_DIM, N_STATE * N_VALUE_STATES
    d_conv = 2 * N_STATE * N_KEY_STATES + d_value
    both: dict[str, tuple[int, ...]] = {
        "attn_norm.weight": (N_EMBD,),
        "post_attention_norm.weight": (N_EMBD,),
        "ffn_gate.weight": (N_FF, N_EMBD),
        "ffn_up.weight": (N_FF, N_EMBD),
        "ffn_down.weight": (N_EMBD, N_FF),
    }
    attention: dict[str, tuple[int, ...]] = {
        "attn_q.weight": (2 * N_EMBD, N_EMBD),  # with a gate beside each query
        "attn_k.weight": (d_kv, N_EMBD),
        "attn_v.weight": (d_kv, N_EMBD),
        "attn_output.weight": (N_EMBD, N_EMBD),
        "attn_q_norm.weight": (HEAD_DIM,),
        "attn_k_norm.weight": (HEAD_DIM,),
    }
    recurrent: dict[str, tuple[int, ...]] = {
        "attn_qkv.weight": (d_conv, N_EMBD),
        "attn_gate.weight": (d_value, N_EMBD),
        "ssm_conv1d.weight": (d_conv, 4),
        "ssm_dt.bias": (N_VALUE_STATES,),
        "ssm_a": (N_VALUE_STATES,),
        "ssm_beta.weight": (N_VALUE_STATES, N_EMBD),
        "ssm_alpha.weight": (N_VALUE_STATES, N_EMBD),
        "ssm_norm.weight": (N_STATE,),
        "ssm_out.weight": (N_EMBD, d_value),
    }
    shapes: dict[str, tuple[int, ...]] = {"output.weight": (N_VOCAB, N_EMBD)}
    for layer in range(n_layer):
        own = attention if layer % 2 else recurrent
        shapes |= {f"blk.{layer}.{name}": shape for name, shape in (both | own).items()}
    return shapes


def _indexed_shapes(n_layer: int) -> dict[str, tuple[int, ...]]:
    """The hybrid's layers with several residual streams, experts, an index and n-grams."""
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (N_VOCAB, N_EMBD),
        "per_layer_token_embd.weight": (NGRAM_ROWS, NGRAM_DIM),
    }
    shapes |= _stream_shapes("output_hc")
    shapes |= {
        name: shape
        for name, shape in _hybrid_shapes(n_layer).items()
        if not any(part in name for part in ("attn_norm", "post_attention_norm", "ffn_"))
    }
    for layer in range(n_layer):
        block: dict[str, tuple[int, ...]] = {
            "ffn_gate_inp.weight": (N_EXPERT, N_EMBD),
            "ffn_gate_exps.weight": (N_EXPERT, N_FF, N_EMBD),
            "ffn_up_exps.weight": (N_EXPERT, N_FF, N_EMBD),
            "ffn_down_exps.weight": (N_EXPERT, N_EMBD, N_FF),
            "ffn_gate_inp_shexp.weight": (N_EMBD,),
            "ffn_gate_shexp.weight": (N_FF, N_EMBD),
            "ffn_up_shexp.weight": (N_FF, N_EMBD),
            "ffn_down_shexp.weight": (N_EMBD, N_FF),
        }
        for part in ("hc_attn", "hc_ffn"):
            block |= _stream_shapes(part)
            block[f"{part}_inject.weight"] = (N_STREAMS, N_STREAMS * N_EMBD)
        if layer % 2:
            block |= {
                "indexer.q_proj.weight": (INDEX_DIM, N_EMBD),
                "indexer.k_proj.weight": (INDEX_DIM, N_EMBD),
                "indexer.q_norm.weight": (INDEX_DIM,),
                "indexer.k_norm.weight": (INDEX_DIM,),
            }
        if layer == 0:
            block |= {
                "ple_key.weight": (N_STREAMS * N_EMBD, N_EMBD),
                "ple_value.weight": (N_EMBD, N_EMBD),
                "ple_conv1d.weight": (N_STREAMS * N_EMBD, 4),
            }
            norms = ("ple_norm_key", "ple_norm_query", "ple_norm_conv")
            block |= {f"{norm}.weight": (N_STREAMS, N_EMBD) for norm in norms}
        shapes |= {f"blk.{layer}.{name}": shape for name, shape in block.items()}
    return shapes


def _stream_shapes(name: str) -> dict[str, tuple[int, ...]]:
    return {
        f"{name}_norm.weight": (N_STREAMS, N_EMBD),
        f"{name}_down.weight": (STREAM_RANK, N_STREAMS * N_EMBD),
        f"{name}_up.weight": (N_STREAMS * N_EMBD, STREAM_RANK),
    }


def _bloom_shapes(n_layer: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"output_norm.bias": (N_EMBD,)}
    both = {"weight": (N_EMBD,), "bias": (N_EMBD,)}
    shapes |= {f"token_embd_norm.{part}": shape for part, shape in both.items()}
    matrices = {
        "attn_qkv": (3 * N_EMBD, N_EMBD),
        "attn_output": (N_EMBD, N_EMBD),
        "ffn_up": (4 * N_EMBD, N_EMBD),
        "ffn_down": (N_EMBD, 4 * N_EMBD),
    }
    for layer in range(n_layer):
        for norm in ("attn_norm", "ffn_norm"):
            shapes |= {f"blk.{layer}.{norm}.{part}": shape for part, shape in both.items()}
        for name, shape in matrices.items():
            shapes[f"blk.{layer}.{name}.weight"] = shape
            shapes[f"blk.{layer}.{name}.bias"] = shape[:1]
    return shapes


def _t5_shapes(n_layer: int) -> dict[str, tuple[int, ...]]:
    """Encoder and decoder; a bias by distance is added to the decoder's attention logits."""
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (N_VOCAB, N_EMBD)}
    d_kv = N_HEAD_KV * HEAD_DIM
    attention = {"q": (d_kv, N_EMBD), "k": (d_kv, N_EMBD), "v": (d_kv, N_EMBD), "o": (N_EMBD, d_kv)}
    for side, kinds in (("enc", ("attn",)), ("dec", ("attn", "cross_attn"))):
        shapes[f"{side}.output_norm.weight"] = (N_EMBD,)
        for layer in range(n_layer):
            block = f"{side}.blk.{layer}"
            for kind in kinds:
                shapes[f"{block}.{kind}_norm.weight"] = (N_EMBD,)
                shapes |= {f"{block}.{kind}_{p}.weight": at for p, at in attention.items()}
            shapes[f"{block}.attn_rel_b.weight"] = (N_BUCKETS, N_HEAD_KV)
            shapes[f"{block}.ffn_norm.weight"] = (N_EMBD,)
            shapes[f"{block}.ffn_up.weight"] = (N_FF, N_EMBD)
            shapes[f"{block}.ffn_down.weight"] = (N_EMBD, N_FF)
    return shapes


def _weights(
    rng: np.random.Generator, name: str, shape: tuple[int, ...]
) -> npt.NDArray[np.float32]:
    if name.endswith("ssm_a"):  # decay: below zero
        return -np.linspace(0.2, 1.0, shape[0], dtype=np.float32)
    if "norm" in name:
        return np.full(shape, 1 if name.endswith("weight") else 0, np.float32)
    # queries and keys large enough for attention that differs clearly between tokens
    gain = 1.3 if "attn_q" in name or "attn_k" in name else 1.0
    fan_in = shape[-1] if len(shape) > 1 else 100 * shape[0]
    return np.asarray(rng.standard_normal(shape) * gain / np.sqrt(fan_in), np.float32)
