"""What the families with positions in one row have in common: cases, language model, stages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from parity.toy import QUESTION, Case, Stages

TEXT = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 32768,
    "tie_word_embeddings": False,
}
LINEAR_CASES = (
    Case("default", 0, 60, 10),
    Case("many", 0, 60, 5),
    Case("later", 23, 60, 12),
    Case("single", 31, 32, 1),
)


@dataclass(frozen=True)
class Made:
    """A toy ready to be run; `feature_id`: the token in whose place features stand."""

    model: Any
    processor: Any
    feature_id: int


def text_ids(tokenizer: Any, end: str) -> dict[str, Any]:
    """Return what a language model's configuration says of its tokens."""
    ids = tokenizer.convert_tokens_to_ids
    return {
        "vocab_size": len(tokenizer),
        "bos_token_id": ids("<|im_start|>"),
        "eos_token_id": ids(end),
        "pad_token_id": ids("<|endoftext|>"),
    }


def linear_stages(made: Made, frames: np.ndarray, video_options: dict[str, Any]) -> Stages:
    """Run processor and model on frames u8 [B, H, W, 3]."""
    model, processor = made.model, made.processor
    content = [{"type": "video"}, {"type": "text", "text": QUESTION}]
    messages = [{"role": "user", "content": content}]
    text = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    inputs = processor(text=[text], videos=[frames], return_tensors="pt", **video_options)
    seen: list[torch.Tensor] = []
    language_model = model.model.get_decoder()
    hook = language_model.rotary_emb.register_forward_pre_hook(
        lambda module, positional, named: seen.append(named.get("position_ids", positional[-1])),
        with_kwargs=True,
    )
    output = model(**inputs)
    hook.remove()
    found = model.model.get_image_features(inputs["pixel_values"]).pooler_output
    rows = torch.cat(list(found)) if isinstance(found, (list, tuple)) else found
    pixels = inputs["pixel_values"].reshape(len(frames), *inputs["pixel_values"].shape[-3:])
    return Stages(
        input_ids=inputs["input_ids"][0].numpy(),
        is_video=(inputs["input_ids"][0] == made.feature_id).numpy(),
        positions=seen[0][0].numpy(),
        pixels=pixels.permute(0, 2, 3, 1).numpy(),
        features=rows.reshape(len(frames), -1, rows.shape[-1]).numpy(),
        logits=output.logits[0, -1].numpy(),
    )
