"""A toy of SmolVLM2."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import transformers as hf

from parity.linear import LINEAR_CASES, TEXT, Made, linear_stages, text_ids
from parity.tokenizer import smollm_tokenizer
from parity.toy import CLIP_FPS, Case, Stages, Toy
from parity.weights import randomise

SIDE, PATCH, SCALE, TOKENS = 128, 16, 2, 16
MEAN = STD = (0.5, 0.5, 0.5)
N_CLIP_FRAMES = 60
SPECIALS = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<fake_token_around_image>",
    "<image>",
    "<video>",
    "<end_of_utterance>",
    "<global-img>",
    "<row_1_col_1>",
]
# The published settings have one size for pictures, which are cut into tiles, and another one for
# the frames of videos; transformers takes the first for both.
PICTURES = {
    "size": {"longest_edge": 4 * SIDE},
    "max_image_size": {"longest_edge": SIDE},
    "image_mean": MEAN,
    "image_std": STD,
    "video_sampling": {"fps": 1, "max_frames": 64, "video_size": {"longest_edge": SIDE}},
    "image_processor_type": "SmolVLMImageProcessor",
    "processor_class": "SmolVLMProcessor",
}


def make(folder: Path, seed: int) -> Made:
    """Save a toy model, its tokenizer and its processor."""
    tokenizer = smollm_tokenizer(SPECIALS)
    text = hf.LlamaConfig(**TEXT, **text_ids(tokenizer, "<end_of_utterance>"), rms_norm_eps=1e-5)
    text.architectures = ["VLlama3ForCausalLM"]
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "image_size": SIDE,
        "patch_size": PATCH,
    }
    config = hf.SmolVLMConfig(
        text_config=text,
        vision_config={"model_type": "smolvlm_vision", **vision},
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=SCALE,
        tie_word_embeddings=False,
    )
    model = hf.SmolVLMForConditionalGeneration(config).eval().float()
    randomise(model, seed)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PICTURES), encoding="utf-8")
    processor = hf.SmolVLMProcessor(
        hf.SmolVLMImageProcessor.from_pretrained(folder),
        tokenizer,
        hf.SmolVLMVideoProcessor.from_pretrained(folder),
        image_seq_len=TOKENS,
    )
    return Made(model, processor, config.image_token_id)


def stages(made: Made, frames: np.ndarray, indices: list[int], case: Case) -> Stages:
    """Run processor and model on the frames."""
    clip = {
        "fps": float(CLIP_FPS),
        "total_num_frames": N_CLIP_FRAMES,
        "duration": N_CLIP_FRAMES / CLIP_FPS,
        "frames_indices": list(indices),
    }
    return linear_stages(made, frames, {"video_metadata": [clip], "do_sample_frames": False})


TOYS = [Toy("smolvlm2", make, stages, LINEAR_CASES, MEAN, STD, pre_tokenizer="smollm")]
