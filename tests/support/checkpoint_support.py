"""Checkpoints of toy LLaVA models, made back from their GGUF pairs: no torch is needed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader

from retake_edge.llama.gguf import read_gguf

FAMILIES = Path(__file__).parents[1] / "golden" / "families"
_LANGUAGE = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "blk": "model.layers",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_VISION = {
    "blk": "encoder.layers",
    "patch_embd": "embeddings.patch_embedding",
    "position_embd": "embeddings.position_embedding",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_out": "self_attn.out_proj",
    "ln1": "layer_norm1",
    "ln2": "layer_norm2",
    "ffn_up": "mlp.fc1",
    "ffn_down": "mlp.fc2",
}


def tensors_of(path: Path) -> dict[str, np.ndarray]:
    """Return the tensors of an f32 GGUF file, by name."""
    return {tensor.name: np.array(tensor.data) for tensor in GGUFReader(path).tensors}


def authors_tensors(family: str = "llava-video") -> dict[str, np.ndarray]:
    """Return a toy's tensors under the names of LLaVA-Video's authors."""
    language, vision = (tensors_of(FAMILIES / family / f"{n}.gguf") for n in ("model", "mmproj"))
    named = {_translated(name, _LANGUAGE): value for name, value in language.items()}
    for name, value in vision.items():
        if name.startswith("mm."):
            named["model.mm_projector." + name.removeprefix("mm.")] = value
        elif name == "v.image_newline":
            named["model.image_newline"] = value
        else:
            inner = _translated(name.removeprefix("v."), _VISION)
            named[f"model.vision_tower.vision_tower.vision_model.{inner}"] = value
    return named


def transformers_tensors() -> dict[str, np.ndarray]:
    """Return a toy's tensors under the names of published LLaVA-OneVision checkpoints."""
    named = {}
    for name, value in authors_tensors("llava-onevision").items():
        name = name.replace("model.vision_tower.vision_tower.", "vision_tower.")
        name = name.replace("model.mm_projector.0", "multi_modal_projector.linear_1")
        name = name.replace("model.mm_projector.2", "multi_modal_projector.linear_2")
        name = name.replace("model.image_newline", "image_newline")
        is_language = name.startswith(("model.", "lm_head"))
        named[f"language_model.{name}" if is_language else name] = value
    return named


def _translated(name: str, names: dict[str, str]) -> str:
    return ".".join(names.get(part, part) for part in name.split("."))


def authors_config(**changed: Any) -> dict[str, Any]:
    """Return the settings of a toy LLaVA-Video."""
    return {
        "architectures": ["LlavaQwenForCausalLM"],
        "num_attention_heads": 4,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10_000.0,
        "rope_scaling": None,
        "mm_projector_type": "mlp2x_gelu",
        "mm_patch_merge_type": "spatial_unpad",
        "mm_newline_position": "grid",
        "mm_spatial_pool_mode": "bilinear",
        "mm_spatial_pool_stride": 2,
        "add_time_instruction": True,
        **changed,
    }


def transformers_config(**changed: Any) -> dict[str, Any]:
    """Return the settings of a toy LLaVA-OneVision, defaults left out."""
    return {
        "architectures": ["LlavaOnevisionForConditionalGeneration"],
        "text_config": {"num_attention_heads": 4, "rope_theta": 10_000.0},
        "vision_config": {"num_attention_heads": 16, "image_size": 98},
        "vision_feature_layer": -1,
        **changed,
    }


def save(
    folder: Path,
    config: dict[str, Any],
    tensors: dict[str, np.ndarray],
    family: str = "llava-video",
    dtype: str = "F32",
) -> Path:
    """Save a checkpoint with the tokenizer of a toy, in two files of weights, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    names = sorted(tensors)
    parts: dict[str, str] = {}
    for i, some in enumerate((names[::2], names[1::2])):
        file = f"model-{i}.safetensors"
        _save_tensors(folder / file, {name: tensors[name] for name in some}, dtype)
        parts |= dict.fromkeys(some, file)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": parts}))
    said = read_gguf(FAMILIES / family / "model.gguf")
    texts, kinds = said.get("tokenizer.ggml.tokens"), said.get("tokenizer.ggml.token_type")
    added = [
        {"id": i, "content": text, "special": True}
        for i, (text, kind) in enumerate(zip(texts, kinds, strict=True))
        if kind == 3
    ]
    vocab = {text: i for i, text in enumerate(texts) if kinds[i] == 1}
    model = {"vocab": vocab, "merges": said.get("tokenizer.ggml.merges")}
    (folder / "tokenizer.json").write_text(json.dumps({"model": model, "added_tokens": added}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|endoftext|>"}))
    if "vision_config" in config:
        template = {"chat_template": said.get("tokenizer.chat_template")}
        (folder / "chat_template.json").write_text(json.dumps(template))
        pictures = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
        (folder / "preprocessor_config.json").write_text(json.dumps(pictures))
    return folder


def _save_tensors(path: Path, tensors: dict[str, np.ndarray], dtype: str) -> None:
    head, content = {}, b""
    for name, value in tensors.items():
        data = value.astype(np.float32)
        if dtype == "BF16":
            raw = (data.view(np.uint32) >> 16).astype(np.uint16).tobytes()
        else:
            raw = data.astype({"F32": np.float32, "F16": np.float16}[dtype]).tobytes()
        offsets = [len(content), len(content) + len(raw)]
        head[name] = {"dtype": dtype, "shape": list(value.shape), "data_offsets": offsets}
        content += raw
    text = json.dumps(head).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content)
