"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL: pairs of frames, of their own shape, on three axes.

What the three share: a grid frame is made of two frames (the last one twice where their number is
odd), 2 x 2 patches become one token, and rows and columns have positions of their own. They differ
in what tells the time: the number of the grid frame, its seconds, or text before it.
"""

from __future__ import annotations

from retake_edge.llama.gguf import GgufFile
from retake_edge.models.families.family import Family, projector_type
from retake_edge.models.manifest import FrameRule, PositionRule
from retake_edge.video.frame_size import PixelLimits

_VIDEO = "<|vision_start|><|video_pad|><|vision_end|>"
_TOKENS_PER_SECOND = 2.0
"""Qwen2.5-VL's `tokens_per_second` of all published sizes; a GGUF does not say it."""


def family(header: GgufFile, mmproj: GgufFile) -> Family | None:
    """Return the Qwen-VL family of a pair.

    Qwen3.5 sees a video as Qwen3-VL does: the processor is the same, and so are the positions.

    Source: transformers, the processors and get_rope_index of qwen2_vl, qwen2_5_vl, qwen3_vl and
    qwen3_5.
    """
    kind = projector_type(mmproj)
    if kind == "qwen2vl_merger":
        return Family(
            "Qwen2-VL", _frames(mmproj, 14), PositionRule("mrope"), _VIDEO, "<|video_pad|>"
        )
    if kind == "qwen2.5vl_merger":
        rule = PositionRule("mrope-time", positions_per_second=_TOKENS_PER_SECOND)
        return Family("Qwen2.5-VL", _frames(mmproj, 14), rule, _VIDEO, "<|video_pad|>")
    if kind == "qwen3vl_merger" and header.architecture.startswith(("qwen3vl", "qwen35")):
        rule = PositionRule(
            "timestamps",
            before_frame="<{middle_s:.1f} seconds><|vision_start|>",
            after_frame="<|vision_end|>",
        )
        return Family("Qwen3-VL", _frames(mmproj, 16), rule, _VIDEO, "<|video_pad|>")
    return None


def _frames(mmproj: GgufFile, patch_px: int) -> FrameRule:
    """Frames as the video processors of transformers bring them into shape by default."""
    patch_px = int(mmproj.get("clip.vision.patch_size", patch_px))
    token_px = patch_px * int(mmproj.get("clip.vision.spatial_merge_size", 2))
    area = token_px**2
    if patch_px == 16:  # Qwen3-VL: the video as a whole has a least size
        limits = PixelLimits(4096, 768 * area, 24_576 * area, of_video=True)
    else:
        limits = PixelLimits(128 * area, 768 * area, 2 * int(128_000 * area * 0.9))
    return FrameRule(fit="stretch", multiple_px=token_px, resample="bicubic", limits=limits)
