"""The language model of a LLaVA, Qwen2, with its tokenizer, as llama.cpp's converter writes it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from retake_edge.convert.checkpoint import Checkpoint
from retake_edge.convert.gguf_out import OutTensor, add_values, matrix_kind, write_gguf
from retake_edge.convert.layout import Parts
from retake_edge.errors import ModelError

_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5  # llama.cpp's kinds of tokens
_EMBEDDINGS = "model.embed_tokens.weight"


def write_language(
    checkpoint: Checkpoint, parts: Parts, path: Path, name: str, kind: str, template: str
) -> None:
    """Write a Qwen2 with matrices of type `kind`; `template`: its chat template, '' for none.

    Raises:
        ModelError: something is missing, or not known. OSError: the file cannot be written.
    """
    settings = checkpoint.config.get("text_config") or checkpoint.config
    n_layer = parts.n_layers("model.layers.")

    def fill(writer: Any) -> None:
        writer.add_name(name)
        add_values(writer, _values(checkpoint, parts, settings, n_layer))
        _add_tokenizer(writer, checkpoint, checkpoint.shape(parts.names[_EMBEDDINGS])[0], template)

    write_gguf(path, "qwen2", fill, _tensors(checkpoint, parts, n_layer, kind, settings))


def _values(
    checkpoint: Checkpoint, parts: Parts, settings: dict[str, Any], n_layer: int
) -> dict[str, Any]:
    """Metadata; what a shape tells is not taken from the settings, where defaults are left out."""
    n_embd = checkpoint.shape(parts.names[_EMBEDDINGS])[1]
    layer = parts.under("model.layers.0.")
    n_q, n_kv, n_ff = (
        checkpoint.shape(layer[f"{part}.weight"])[0]
        for part in ("self_attn.q_proj", "self_attn.k_proj", "mlp.gate_proj")
    )
    n_head = int(settings.get("num_attention_heads", 32))
    rope = settings.get("rope_parameters") or settings.get("rope_scaling") or {}
    rope_type = rope.get("rope_type", rope.get("type", "default"))
    if rope_type != "default":
        raise ModelError(
            f"{checkpoint.folder} stretches positions by {rope_type!r}, which is not converted; "
            "set rope_scaling to null in its config.json."
        )
    theta = settings.get("rope_theta", rope.get("rope_theta", 10_000.0))
    return {
        "qwen2.block_count": n_layer,
        "qwen2.context_length": int(settings.get("max_position_embeddings", 32768)),
        "qwen2.embedding_length": n_embd,
        "qwen2.feed_forward_length": n_ff,
        "qwen2.attention.head_count": n_head,
        "qwen2.attention.head_count_kv": n_kv // (n_q // n_head),
        "qwen2.attention.layer_norm_rms_epsilon": float(settings.get("rms_norm_eps", 1e-6)),
        "qwen2.rope.freq_base": float(theta),
    }


def _tensors(
    checkpoint: Checkpoint, parts: Parts, n_layer: int, kind: str, settings: dict[str, Any]
) -> list[OutTensor]:
    from gguf import MODEL_ARCH, get_tensor_name_map

    names = get_tensor_name_map(MODEL_ARCH.QWEN2, n_layer)
    is_tied = bool(settings.get("tie_word_embeddings"))
    tensors = []
    for part, original in parts.names.items():
        if part.startswith(("vision.", "projector.", "newline")):
            continue
        if part == "lm_head.weight" and is_tied:
            continue
        name = names.get_name(part, try_suffixes=(".weight", ".bias"))
        if name is None:
            raise ModelError(f"The tensor {original} is none of Qwen2; it cannot be converted.")
        shape, load = checkpoint.shape(original), partial(checkpoint.array, original)
        tensors.append(OutTensor(name, shape, matrix_kind(shape, kind), load))
    return tensors


def _add_tokenizer(writer: Any, checkpoint: Checkpoint, n_vocab: int, template: str) -> None:
    from gguf import SpecialVocab

    tokens, kinds = _vocabulary(checkpoint, n_vocab)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    special = SpecialVocab(checkpoint.folder, load_merges=True, n_vocab=n_vocab)
    special.chat_template = template or None
    special.add_to_gguf(writer, quiet=True)


def _vocabulary(checkpoint: Checkpoint, n_vocab: int) -> tuple[list[str], list[int]]:
    """Texts and kinds of all tokens; the table of embeddings has rows that none uses."""
    whole = checkpoint.json("tokenizer.json")
    vocab: dict[str, int] = whole.get("model", {}).get("vocab") or checkpoint.json("vocab.json")
    if not vocab:
        raise ModelError(f"{checkpoint.folder} has no tokenizer.json; download it as well.")
    tokens, kinds = [f"[PAD{i}]" for i in range(n_vocab)], [_UNUSED] * n_vocab
    added = whole.get("added_tokens") or [
        {"id": number, "content": text, "special": True}
        for text, number in checkpoint.json("added_tokens.json").items()
    ]
    for text, number in vocab.items():
        tokens[number], kinds[number] = text, _NORMAL
    for token in added:
        is_special = token.get("special", True)
        tokens[token["id"]] = token["content"]
        kinds[token["id"]] = _CONTROL if is_special else _USER_DEFINED
    return tokens, kinds
