"""The vision tower of a toy LLaVA-1.5, with its class token and the layer that it stops at.

    PYTHONPATH=scripts python -m parity.llava tests/golden/llava

No converter of the pinned llama.cpp reads CLIP towers any more, so the file is written here, under
the names that llama.cpp's loader knows.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

import parity.torchvision_stub  # noqa: F401 (before transformers)

# isort: split
import torch
import transformers as hf
from gguf import GGUFWriter

from parity.weights import randomise

SEED, SIDE, LAYERS, STOP = 20261123, 56, 4, -2
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
NAMES = {
    "embeddings.class_embedding": "v.class_embd",
    "embeddings.patch_embedding": "v.patch_embd",
    "embeddings.position_embedding": "v.position_embd",
    "pre_layrnorm": "v.pre_ln",
    "encoder.layers.": "v.blk.",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.out_proj": "attn_out",
    "layer_norm1": "ln1",
    "layer_norm2": "ln2",
    "mlp.fc1": "ffn_up",
    "mlp.fc2": "ffn_down",
    "linear_1": "mm.0",
    "linear_2": "mm.2",
}


def toy() -> Any:
    """Return a LLaVA-1.5 whose language model takes features of width 64."""
    vision = hf.CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        image_size=SIDE,
        patch_size=14,
    )
    text = hf.LlamaConfig(
        vocab_size=32,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
    )
    config = hf.LlavaConfig(vision_config=vision, text_config=text, vision_feature_layer=STOP)
    model = hf.LlavaForConditionalGeneration(config).eval().float()
    randomise(model, SEED)
    return model


def write(model: Any, path: Path) -> None:
    """Write tower and projector as a GGUF file, f32."""
    config = model.config.vision_config
    used = LAYERS + 1 + STOP
    writer = GGUFWriter(path, "clip")
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_bool("clip.use_gelu", False)  # CLIP's is the quick one
    writer.add_string("clip.projector_type", "mlp")
    for key, value in {
        "image_size": SIDE,
        "patch_size": config.patch_size,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "projection_dim": 64,
        "attention.head_count": config.num_attention_heads,
        "block_count": used,
    }.items():
        writer.add_uint32(f"clip.vision.{key}", value)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", config.layer_norm_eps)
    writer.add_array("clip.vision.feature_layer", [used])
    writer.add_array("clip.vision.image_mean", list(MEAN))
    writer.add_array("clip.vision.image_std", list(STD))
    parts = model.model.vision_tower.state_dict() | model.model.multi_modal_projector.state_dict()
    for name, value in parts.items():
        if "post_layernorm" in name or f"layers.{used}." in name:
            continue
        for old, new in NAMES.items():
            name = name.replace(old, new)
        writer.add_tensor(name, value.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    """Write the tower, two pictures, and what transformers makes of them."""
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    model = toy()
    write(model, out / "mmproj.gguf")
    pictures = np.random.default_rng(SEED).integers(0, 256, (2, SIDE, SIDE, 3), dtype=np.uint8)
    pixels = torch.from_numpy((pictures / 255 - np.array(MEAN)) / np.array(STD)).float()
    with torch.no_grad():
        found = model.model.get_image_features(pixels.permute(0, 3, 1, 2)).pooler_output
    features = torch.stack(list(found)).numpy()
    np.savez_compressed(out / "features.npz", pictures=pictures, features=features)


if __name__ == "__main__":
    main()
