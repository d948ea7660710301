"""Toys of the LLaVA models that pool their frames: OneVision in transformers, Video by its rules.

transformers has no LLaVA-Video. Its published rules are spelled out here on the same parts: pooling
of 2 x 2, a learned row after each row of the grid, the sentence about length and times.
"""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as hf
from PIL import Image
from safetensors.torch import save_file
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2.functional import resize

from parity.linear import LINEAR_CASES, TEXT, text_ids
from parity.tokenizer import qwen_tokenizer
from parity.toy import CLIP_FPS, QUESTION, Case, Stages, Toy
from parity.weights import randomise
from retake_edge.convert.llava import convert

SIDE, PATCH, LAYERS, HEADS = 98, 14, 3, 16
"""7 x 7 patches, which become 4 x 4: as 27 x 27 become 14 x 14, no even half."""

N_CLIP_FRAMES = 60
MEAN = STD = (0.5, 0.5, 0.5)
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>"]
# What the published template writes for videos and texts, told in our own words.
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }} {% if m.content is string %}\n{{ m.content }}"
    "{% else %}{% for part in m.content %}{% if part.type == 'video' %}<video>"
    "{% elif 'text' in part %}\n{{ part.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
VISION = {
    "model_type": "siglip_vision_model",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "image_size": SIDE,
    "patch_size": PATCH,
    "vision_use_head": False,
}
SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"


@dataclass(frozen=True)
class Made:
    """A toy ready to be run."""

    model: Any
    tokenizer: Any
    processor: Any


def _toy(seed: int) -> Made:
    tokenizer = qwen_tokenizer(SPECIALS)
    ids = tokenizer.convert_tokens_to_ids
    config = hf.LlavaOnevisionConfig(
        vision_config=VISION,
        text_config=hf.Qwen2Config(**TEXT, **text_ids(tokenizer, "<|im_end|>")),
        image_token_id=ids("<image>"),
        video_token_id=ids("<video>"),
    )
    model = hf.LlavaOnevisionForConditionalGeneration(config).eval().float()
    randomise(model, seed)
    size = {"height": SIDE, "width": SIDE}
    processor = hf.LlavaOnevisionProcessor(
        hf.LlavaOnevisionImageProcessor(size=size, image_mean=MEAN, image_std=STD),
        tokenizer,
        hf.LlavaOnevisionVideoProcessor(size=size, image_mean=MEAN, image_std=STD),
        num_image_tokens=(SIDE // PATCH) ** 2,
        vision_feature_select_strategy="full",
        chat_template=TEMPLATE,
    )
    return Made(model, tokenizer, processor)


def make_onevision(folder: Path, seed: int) -> Made:
    """Save a toy as transformers does."""
    made = _toy(seed)
    made.model.save_pretrained(folder)
    made.processor.save_pretrained(folder)
    return made


def make_video(folder: Path, seed: int) -> Made:
    """Save a toy as the authors of LLaVA-Video do."""
    made = _toy(seed)
    made.tokenizer.save_pretrained(folder)
    text = made.model.config.text_config.to_dict()
    config = {
        **text,
        "architectures": ["LlavaQwenForCausalLM"],
        "model_type": "llava_qwen",
        "rope_theta": text["rope_parameters"]["rope_theta"],
        "rope_scaling": None,
        "mm_projector_type": "mlp2x_gelu",
        "mm_patch_merge_type": "spatial_unpad",
        "mm_newline_position": "grid",
        "mm_spatial_pool_mode": "bilinear",
        "mm_spatial_pool_stride": 2,
        "mm_vision_select_layer": -2,
        "add_time_instruction": True,
        "add_faster_video": False,
    }
    del config["rope_parameters"]
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(_authors_weights(made.model), folder / "model.safetensors")
    return made


def _authors_weights(model: Any) -> dict[str, torch.Tensor]:
    names = {
        "model.language_model.": "model.",
        "model.vision_tower.": "model.vision_tower.vision_tower.vision_model.",
        "model.multi_modal_projector.linear_1.": "model.mm_projector.0.",
        "model.multi_modal_projector.linear_2.": "model.mm_projector.2.",
    }
    weights = {}
    for name, value in model.state_dict().items():
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        weights[name] = value.contiguous()
    return weights


def written(folder: Path, model: Path, mmproj: Path) -> None:
    """Convert with our own converter: llama.cpp's knows neither layout."""
    files = convert(folder, folder / "out", "f32")
    shutil.move(files.model, model)
    shutil.move(files.mmproj, mmproj)


def onevision_stages(made: Made, frames: np.ndarray, indices: list[int], case: Case) -> Stages:
    """Run processor and model on the frames."""
    content = [{"type": "video"}, {"type": "text", "text": QUESTION}]
    text = made.processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    inputs = made.processor(
        text=[text], videos=[frames], return_tensors="pt", do_sample_frames=False
    )
    seen: list[torch.Tensor] = []
    hook = made.model.model.get_decoder().rotary_emb.register_forward_pre_hook(
        lambda module, positional, named: seen.append(named.get("position_ids", positional[-1])),
        with_kwargs=True,
    )
    output = made.model(**inputs)
    hook.remove()
    pixels = inputs["pixel_values_videos"]
    rows = made.model.model.get_video_features(pixels).pooler_output[0]
    ids = inputs["input_ids"][0]
    return Stages(
        input_ids=ids.numpy(),
        is_video=(ids == made.model.config.video_token_id).numpy(),
        positions=seen[0][0].numpy(),
        pixels=pixels[0].permute(0, 2, 3, 1).numpy(),
        features=rows[:-1].reshape(len(frames), -1, rows.shape[-1]).numpy(),
        logits=output.logits[0, -1].numpy(),
    )


def video_stages(made: Made, frames: np.ndarray, indices: list[int], case: Case) -> Stages:
    """Do what the published code of LLaVA-Video does with the frames."""
    pixels = torch.stack([_pixels(frame) for frame in frames])
    features = pooled(_projected(made.model.model, pixels), "bilinear")
    with_rows = _with_a_row_after_each(made.model.model.image_newline, features)
    times = ",".join(f"{index / CLIP_FPS:.2f}s" for index in indices)
    told = (
        f"The video lasts for {N_CLIP_FRAMES / CLIP_FPS:.2f} seconds, and {len(frames)} frames are "
        f"uniformly sampled from it. These frames are located at {times}.Please answer the "
        "following questions related to this video."
    )
    before = made.tokenizer(SYSTEM).input_ids
    after = f"\n{told}\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
    after = made.tokenizer(after).input_ids
    table = made.model.get_input_embeddings()
    embeddings = torch.cat([table(torch.tensor(before)), with_rows, table(torch.tensor(after))])
    n, n_video = len(embeddings), len(with_rows)
    output = made.model.lm_head(
        made.model.model.language_model(inputs_embeds=embeddings[None]).last_hidden_state
    )
    is_video = np.zeros(n, np.bool_)
    is_video[len(before) : len(before) + n_video] = True
    return Stages(
        input_ids=np.array([*before, *[0] * n_video, *after]),
        is_video=is_video,
        positions=np.arange(n),
        pixels=pixels.permute(0, 2, 3, 1).numpy(),
        features=features.flatten(1, 2).numpy(),
        logits=output[0, -1].numpy(),
    )


def _pixels(frame: np.ndarray) -> torch.Tensor:
    """A frame as SigLipImageProcessor gives it, f32 [3, SIDE, SIDE].

    That one resizes with Pillow, which differs from torchvision by one level here and there; this
    program resizes as torchvision does, as the processors of transformers 5.
    """
    planes = torch.from_numpy(frame).permute(2, 0, 1)
    resized = resize(planes, [SIDE, SIDE], InterpolationMode.BICUBIC, antialias=True)
    by_pillow = Image.fromarray(frame).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    off = np.abs(np.array(by_pillow).transpose(2, 0, 1) - resized.numpy().astype(np.int64))
    assert off.max() <= 1, "Pillow resizes in another way"
    return (resized / 255 - 0.5) / 0.5


def _projected(model: Any, pixels: torch.Tensor) -> torch.Tensor:
    """What the last layer gives, without the norm behind it, through the projector [T, h, w, C]."""
    hidden: list[torch.Tensor] = []
    last = model.vision_tower.encoder.layers[-1]
    hook = last.register_forward_hook(
        lambda module, given, made: hidden.append(made if torch.is_tensor(made) else made[0])
    )
    model.vision_tower(pixels)
    hook.remove()
    side = SIDE // PATCH
    return model.multi_modal_projector(hidden[0]).reshape(len(pixels), side, side, -1)


def pooled(features: torch.Tensor, mode: str, stride: int = 2) -> torch.Tensor:
    """Pool features [T, h, w, C] as get_2dPool of LLaVA-NeXT does."""
    planes = features.permute(0, 3, 1, 2)
    if mode == "average":
        planes = torch.nn.functional.avg_pool2d(planes, stride)
    elif mode == "max":
        planes = torch.nn.functional.max_pool2d(planes, stride)
    else:
        size = [math.ceil(side / stride) for side in planes.shape[2:]]
        planes = torch.nn.functional.interpolate(planes, size=size, mode="bilinear")
    return planes.permute(0, 2, 3, 1)


def _with_a_row_after_each(newline: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """Features [T, h, w, C] with `newline` after each row of the grid, [T * h * (w + 1), C]."""
    n_frames, height, _, width = features.shape
    ends = newline.expand(n_frames, height, 1, width)
    return torch.cat([features, ends], dim=2).reshape(-1, width)


_SHARED = (LINEAR_CASES, MEAN, STD)
TOYS = [
    Toy("llava-onevision", make_onevision, onevision_stages, *_SHARED, convert=written),
    Toy("llava-video", make_video, video_stages, *_SHARED, convert=written),
]
