"""Toys of InternVL3 (on Qwen2.5) and InternVL3.5 (on Qwen3), saved as the original checkpoints are.

The converter reads the original names; from a checkpoint in the format of transformers it makes a
projector without tensors.
"""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as hf
from safetensors.torch import save_file

from parity.linear import LINEAR_CASES, TEXT, Made, linear_stages, text_ids
from parity.tokenizer import qwen_tokenizer
from parity.toy import Case, Stages, Toy
from parity.weights import randomise

SIDE, PATCH, TOKENS = 112, 14, 16
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SPECIALS = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<img>",
    "</img>",
    "<IMG_CONTEXT>",
    "<video>",
]
# What the published template writes for texts and videos, told in our own words.
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.content is string %}{{ m.content }}"
    "{% else %}{% for part in m.content %}{% if part.type == 'video' %}<video>\n"
    "{% elif 'text' in part %}{{ part.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
VISION = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "layer_norm_eps": 1e-6,
    "hidden_act": "gelu",
}
# Names in transformers, and in the original checkpoints.
ORIGINAL_NAMES = {
    "vision_tower.": "vision_model.",
    "embeddings.cls_token": "embeddings.class_embedding",
    "position_embeddings": "position_embedding",
    "patch_embeddings.projection": "patch_embedding",
    "encoder.layer.": "encoder.layers.",
    "attention.projection_layer": "attn.proj",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "lambda_": "ls",
    "multi_modal_projector.layer_norm": "mlp1.0",
    "multi_modal_projector.linear_1": "mlp1.1",
    "multi_modal_projector.linear_2": "mlp1.3",
}


def make(text_config: Any, language_model: str, folder: Path, seed: int) -> Made:
    """Save a toy in the original format, and return it in that of transformers."""
    special = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    tokenizer = qwen_tokenizer(SPECIALS, extra_special_tokens=special)
    text = text_config(**TEXT, **text_ids(tokenizer, "<|im_end|>"))
    text.architectures = [language_model]
    config = hf.InternVLConfig(
        text_config=text,
        vision_config={
            **VISION,
            "attention_bias": True,
            "image_size": [SIDE, SIDE],
            "patch_size": [PATCH, PATCH],
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=TOKENS,
        tie_word_embeddings=False,
    )
    model = hf.InternVLForConditionalGeneration(config).eval().float()
    randomise(model, seed)
    save_original(model, folder)
    tokenizer.save_pretrained(folder)
    size = {"height": SIDE, "width": SIDE}
    processor = hf.InternVLProcessor(
        hf.GotOcr2ImageProcessor(size=size, image_mean=MEAN, image_std=STD),
        tokenizer,
        hf.InternVLVideoProcessor(size=size, image_mean=MEAN, image_std=STD),
        image_seq_length=TOKENS,
        chat_template=TEMPLATE,
    )
    return Made(model, processor, config.image_token_id)


def save_original(model: Any, folder: Path) -> None:
    """Write config, weights and preprocessor settings as the original checkpoints have them."""
    text = model.config.text_config.to_dict()
    config = {
        "architectures": ["InternVLChatModel"],
        "model_type": "internvl_chat",
        "downsample_ratio": model.config.downsample_ratio,
        "min_dynamic_patch": 1,
        "max_dynamic_patch": 12,
        "llm_config": text,
        "vision_config": {
            **VISION,
            "architectures": ["InternVisionModel"],
            "model_type": "intern_vit_6b",
            "image_size": SIDE,
            "patch_size": PATCH,
            "num_channels": 3,
            "norm_type": "layer_norm",
            "qkv_bias": True,
        },
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    pictures = {"image_mean": MEAN, "image_std": STD, "size": SIDE, "crop_size": SIDE}
    (folder / "preprocessor_config.json").write_text(json.dumps(pictures), encoding="utf-8")
    save_file(original_weights(model), folder / "model.safetensors")


def original_weights(model: Any) -> dict[str, torch.Tensor]:
    """Return the weights by their original names; queries, keys and values are one matrix there."""
    weights = {}
    state = {
        name.removeprefix("model.").replace("language_model.", "language_model.model."): value
        for name, value in model.state_dict().items()
    }
    for name, value in state.items():
        if name == "lm_head.weight":
            name = "language_model.lm_head.weight"
        elif "vision_tower" in name and "attention.q_proj" in name:
            parts = (name.replace("q_proj", f"{part}_proj") for part in "qkv")
            value = torch.cat([state[part] for part in parts])
            name = name.replace("attention.q_proj", "attn.qkv")
        elif "vision_tower" in name and re.search(r"attention\.[kv]_proj", name):
            continue
        if not name.startswith("language_model"):
            for new, old in ORIGINAL_NAMES.items():
                name = name.replace(new, old)
        weights[name] = value.contiguous()
    return weights


def stages(made: Made, frames: np.ndarray, indices: list[int], case: Case) -> Stages:
    """Run processor and model on the frames."""
    return linear_stages(made, frames, {"do_sample_frames": False})


def _toy(name: str, text_config: Any, language_model: str) -> Toy:
    builder = partial(make, text_config, language_model)
    return Toy(name, builder, stages, LINEAR_CASES, MEAN, STD)


TOYS = [
    _toy("internvl3", hf.Qwen2Config, "Qwen2ForCausalLM"),
    _toy("internvl3.5", hf.Qwen3Config, "Qwen3ForCausalLM"),
]
