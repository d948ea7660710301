"""Marks around each image of a model that no module here knows.

The texts are those that llama.cpp's multimodal library writes around an image of such a projector;
tests/session/test_uncompressed.py holds those of Gemma 3 and 4, Kimi-VL and LFM2-VL against it. A
projector that is not listed has none.
"""

from __future__ import annotations

IMAGE_MARKS = {
    "deepseekocr": ("", "\n"),
    "deepseekocr2": ("", "\n"),
    "dots_ocr": ("<|img|>", "<|endofimg|>"),
    "exaone4_5": ("<vision>", "</vision>"),
    "gemma3": ("<start_of_image>", "<end_of_image>"),
    "gemma3nv": ("<start_of_image>", "<end_of_image>"),
    "gemma4uv": ("<|image>", "<image|>"),
    "gemma4v": ("<|image>", "<image|>"),
    "glm4v": ("<|begin_of_image|>", "<|end_of_image|>"),
    "glm5v": ("<|begin_of_image|>", "<|end_of_image|>"),
    "granite4_vision": ("", "\n"),
    "internvl": ("<img>", "</img>"),
    "kimik25": ("<|media_begin|>", "<|media_end|>"),
    "kimivl": ("<|media_start|>", "<|media_end|>"),
    "lfm2": ("<|image_start|>", "<|image_end|>"),
    "lightonocr": ("<|im_start|>", "<|im_end|>"),
    "llama4": ("<|image_start|>", "<|image_end|>"),
    "mimovl": ("<|vision_start|>", "<|vision_end|>"),
    "minicpmv4_6": ("<image>", "</image>"),
    "muse_glimmer": ("<|image_start|>", "<|image_end|>"),
    "paddleocr": ("<|IMAGE_START|>", "<|IMAGE_END|>"),
    "pixtral": ("", "[IMG_END]"),
    "qwen3vl_merger": ("<|vision_start|>", "<|vision_end|>"),
    "resampler": ("<image>", "</image>"),
    "step3vl": ("<im_start>", "<im_end>"),
    "yasa2": ("<image>", "</image>"),
    "youtuvl": ("<|vision_start|>", "<|vision_end|>"),
}
"""Texts before and after an image, by the projector's kind."""
