"""Toys of Qwen2-VL, Qwen2.5-VL and Qwen3-VL."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as hf

from parity.tokenizer import qwen_tokenizer
from parity.toy import CLIP_FPS, QUESTION, Case, Stages, Toy
from parity.weights import randomise

SPECIALS = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
]
# What the published chat templates write for texts and videos, told in our own words.
_PARTS = (
    "{% for m in messages %}SYSTEM<|im_start|>{{ m.role }}\n"
    "{% if m.content is string %}{{ m.content }}{% else %}{% for part in m.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part.type == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif 'text' in part %}{{ part.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_SYSTEM = (
    "{% if loop.first and m.role != 'system' %}<|im_start|>system\n"
    "You are a helpful assistant.<|im_end|>\n{% endif %}"
)
_TEXT = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
}


@dataclass(frozen=True)
class Made:
    """A toy ready to be run."""

    model: Any
    processor: Any


def _text(tokenizer: Any, rope: dict[str, Any]) -> dict[str, Any]:
    ids = tokenizer.convert_tokens_to_ids
    return {
        **_TEXT,
        "vocab_size": len(tokenizer),
        "bos_token_id": ids("<|endoftext|>"),
        "eos_token_id": ids("<|im_end|>"),
        "rope_parameters": rope,
        "tie_word_embeddings": False,
    }


def _marks(tokenizer: Any) -> dict[str, int]:
    ids = tokenizer.convert_tokens_to_ids
    return {
        "image_token_id": ids("<|image_pad|>"),
        "video_token_id": ids("<|video_pad|>"),
        "vision_start_token_id": ids("<|vision_start|>"),
        "vision_end_token_id": ids("<|vision_end|>"),
    }


def _rope(sections: list[int], **more: Any) -> dict[str, Any]:
    return {"rope_type": "default", "rope_theta": 1e6, "mrope_section": sections, **more}


def qwen2_config(tokenizer: Any) -> Any:
    """Qwen2-VL: `embed_dim` is the tower's width, `hidden_size` the language model's."""
    vision = {"depth": 3, "embed_dim": 32, "hidden_size": 64, "num_heads": 2, "mlp_ratio": 4}
    text = _text(tokenizer, _rope([2, 3, 3]))
    return hf.Qwen2VLConfig(text_config=text, vision_config=vision, **_marks(tokenizer))


def qwen2_5_config(tokenizer: Any) -> Any:
    """Qwen2.5-VL: windows of 112 px but for every second layer."""
    vision = {
        "depth": 4,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "out_hidden_size": 64,
        "window_size": 112,
        "fullatt_block_indexes": [1, 3],
        "tokens_per_second": 2,
    }
    text = _text(tokenizer, _rope([2, 3, 3]))
    return hf.Qwen2_5_VLConfig(text_config=text, vision_config=vision, **_marks(tokenizer))


def qwen3_config(tokenizer: Any) -> Any:
    """Qwen3-VL: features of two inner layers go into the language model's first layers, too."""
    vision = {
        "depth": 4,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "out_hidden_size": 64,
        "num_position_embeddings": 64,
        "deepstack_visual_indexes": [0, 2],
    }
    text = _text(tokenizer, _rope([3, 3, 2], mrope_interleaved=True)) | {"head_dim": 16}
    return hf.Qwen3VLConfig(text_config=text, vision_config=vision, **_marks(tokenizer))


def make(
    config_of: Callable[[Any], Any],
    model_class: Any,
    processor_class: Any,
    video_processor: Any,
    template: str,
    folder: Path,
    seed: int,
) -> Made:
    """Save a toy model, its tokenizer and its processor."""
    tokenizer = qwen_tokenizer(SPECIALS)
    tokenizer.chat_template = template
    model = model_class(config_of(tokenizer)).eval().float()
    randomise(model, seed)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    image_processor = hf.Qwen2VLImageProcessor(
        patch_size=video_processor.patch_size,
        image_mean=video_processor.image_mean,  # these two are what the converter writes down
        image_std=video_processor.image_std,
    )
    processor = processor_class(image_processor, tokenizer, video_processor, chat_template=template)
    processor.save_pretrained(folder)
    return Made(model, processor)


def stages(made: Made, frames: np.ndarray, indices: list[int], case: Case) -> Stages:
    """Run processor and model on the frames."""
    model, processor = made.model, made.processor
    content = [{"type": "video"}, {"type": "text", "text": QUESTION}]
    messages = [{"role": "user", "content": content}]
    text = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    every = case.every / case.repeat
    metadata = {
        "fps": float(CLIP_FPS),
        "frames_indices": list(indices),
        "total_num_frames": round(len(indices) * every),
    }
    inputs = processor(
        text=[text],
        videos=[frames],
        video_metadata=[metadata],
        do_sample_frames=False,
        return_tensors="pt",
        **({"size": case.processor} if case.processor else {}),
    )
    grid = inputs["video_grid_thw"]
    position_ids = positions(model, inputs, case)
    output = model(**inputs, position_ids=position_ids)
    return Stages(
        input_ids=inputs["input_ids"][0].numpy(),
        is_video=(inputs["input_ids"][0] == model.config.video_token_id).numpy(),
        positions=position_ids[:, 0].numpy(),
        pixels=unpatched(inputs["pixel_values_videos"], grid[0].tolist(), processor)[: len(frames)],
        features=features(model, inputs["pixel_values_videos"], grid),
        logits=output.logits[0, -1].numpy(),
    )


def positions(model: Any, inputs: Any, case: Case) -> torch.Tensor:
    """Return the model's position ids [3, 1, n]."""
    more = {k: inputs[k] for k in ("second_per_grid_ts",) if k in inputs}
    ids, _ = model.model.get_rope_index(
        inputs["input_ids"],
        inputs["mm_token_type_ids"],
        video_grid_thw=inputs["video_grid_thw"],
        attention_mask=inputs["attention_mask"],
        **more,
    )
    if case.text_after_video != "as is":
        is_video = inputs["input_ids"][0] == model.config.video_token_id
        first = int(is_video.nonzero().max()) + 1
        n = ids.shape[-1] - first
        ids[:, :, first:] = ids[:, :, :first].max() + 1 + torch.arange(n)
    return ids


def frame_size(video_processor: Any, width: int, height: int, n_frames: int) -> tuple[int, int]:
    """Return the (width, height) in which the processor hands frames to the model."""
    frames = torch.empty((1, n_frames, 3, height, width), dtype=torch.uint8, device="meta")
    resized = video_processor.resize(
        frames,
        size=video_processor.size,
        resample=video_processor.resample,
        factor=video_processor.patch_size * video_processor.merge_size,
        temporal_factor=video_processor.temporal_patch_size,
        cap_pixels_per_frame=True,
    )
    return int(resized.shape[-1]), int(resized.shape[-2])


def features(model: Any, pixels: torch.Tensor, grid: torch.Tensor) -> np.ndarray:
    """Return the features [T, N, C], those for the inner layers beside them."""
    found = model.model.get_video_features(pixels, grid)
    rows = torch.cat(list(found.pooler_output))
    inner = getattr(found, "deepstack_features", None)
    if inner is not None:
        flat = (torch.cat(list(layer)) if isinstance(layer, tuple) else layer for layer in inner)
        rows = torch.cat([rows, *flat], dim=-1)
    return np.asarray(rows.reshape(int(grid[0, 0]), -1, rows.shape[-1]))


def unpatched(patches: torch.Tensor, grid: list[int], processor: Any) -> np.ndarray:
    """Put patches back together: f32 [B, H, W, 3]."""
    video = processor.video_processor
    (t, h, w), p, m, k = grid, video.patch_size, video.merge_size, video.temporal_patch_size
    blocks = patches.reshape(t, h // m, w // m, m, m, 3, k, p, p)
    frames = blocks.permute(0, 6, 1, 3, 7, 2, 4, 8, 5)
    return np.asarray(frames.reshape(t * k, h * p, w * p, 3))


def _cases(
    long_side_px: int, pixels: int, least: int, *, of_video: bool = False, single: int = 1
) -> tuple[Case, ...]:
    """Ordinary frames at the processor's limits; smaller ones, where a cap is asked for.

    `pixels`: the most that a frame may have for the processor to come to the capped size; it
    counts those of the whole video with `of_video`.
    """

    def small(name: str, start: int, stop: int, every: int, repeat: int = 1) -> Case:
        case = Case(name, start, stop, every, long_side_px, repeat=repeat)
        n = len(case.frames()) if of_video else 1
        return replace(case, processor={"shortest_edge": least, "longest_edge": n * pixels})

    return (
        Case("default", 0, 20, 5, 448),
        small("capped", 0, 30, 5),
        small("odd", 15, 41, 4),
        small("single", 23, 24, 1, single),
    )


def _toy(
    name: str,
    config_of: Callable[[Any], Any],
    model: Any,
    processor: Any,
    video_processor: Any,
    template: str,
    cases: tuple[Case, ...],
) -> Toy:
    builder = partial(make, config_of, model, processor, video_processor, template)
    mean, std = video_processor.image_mean, video_processor.image_std
    return Toy(
        name,
        builder,
        stages,
        cases,
        tuple(mean),
        tuple(std),
        frame_size=partial(frame_size, video_processor),
    )


_CASES = _cases(168, 16_000, 784)
_LONG = replace(_CASES[1], name="long", stop=60, text_after_video="follows its last position")

TOYS = [
    _toy(
        "qwen2-vl",
        qwen2_config,
        hf.Qwen2VLForConditionalGeneration,
        hf.Qwen2VLProcessor,
        hf.Qwen2VLVideoProcessor(cap_pixels_per_frame=True),
        _PARTS.replace("SYSTEM", _SYSTEM),
        _CASES,
    ),
    _toy(
        "qwen2.5-vl",
        qwen2_5_config,
        hf.Qwen2_5_VLForConditionalGeneration,
        hf.Qwen2_5_VLProcessor,
        hf.Qwen2VLVideoProcessor(cap_pixels_per_frame=True),
        _PARTS.replace("SYSTEM", _SYSTEM),
        (*_CASES, _LONG),
    ),
    _toy(
        "qwen3-vl",
        qwen3_config,
        hf.Qwen3VLForConditionalGeneration,
        hf.Qwen3VLProcessor,
        hf.Qwen3VLVideoProcessor(
            cap_pixels_per_frame=True,
            size={"shortest_edge": 4096, "longest_edge": 25_165_824},  # as published
        ),
        _PARTS.replace("SYSTEM", ""),
        _cases(192, 22_500, 4096, of_video=True, single=2),
    ),
]
