"""Models with a LLaVA projector: frames one after another, each as many tokens as patches.

What these projectors have in common is all that is used: mtmd brings a frame into the tower's
square (padded, as LLaVA-1.5 was trained), and no text tells frames apart. LLaVA-OneVision and
LLaVA-Video pool a frame's features in a way that llama.cpp has not, and are refused.
"""

from __future__ import annotations

from retake_edge.errors import ModelError
from retake_edge.families.family import Family, projector_type
from retake_edge.gguf_file import GgufFile
from retake_edge.models import FrameRule, Layout

_PROJECTORS = ("mlp", "mlp_norm", "ldp", "ldpv2")
_POOLING = ("onevision", "llava-video", "llava_video")
_VIDEO = "<video>\n"


def family(lm: GgufFile, mmproj: GgufFile) -> Family | None:
    """Return the family of a pair with a LLaVA projector.

    Raises:
        ModelError: it is LLaVA-OneVision or LLaVA-Video.
    """
    kind = projector_type(mmproj)
    if kind not in _PROJECTORS:
        return None
    _refuse_pooling(lm, mmproj)
    side_px = int(mmproj.get("clip.vision.image_size", 336))
    patches = (side_px // int(mmproj.get("clip.vision.patch_size", 14))) ** 2
    frames = FrameRule(
        long_side_px=side_px,
        multiple_px=1,
        resample="bicubic",
        frames_per_step=1,
        tokens_per_step=patches // 4 if kind.startswith("ldp") else patches,
    )
    return Family("LLaVA", frames, Layout("linear"), _VIDEO, _VIDEO, fps=1.0)


def _refuse_pooling(lm: GgufFile, mmproj: GgufFile) -> None:
    """Refuse the two by name, or by what only they combine: Qwen2 with tiles of a square tower."""
    names = " ".join(str(file.get("general.name", "")) for file in (lm, mmproj)).lower()
    tiled = mmproj.get("clip.vision.mm_patch_merge_type") == "spatial_unpad"
    if any(name in names for name in _POOLING) or (tiled and lm.architecture == "qwen2"):
        raise ModelError(
            f"{lm.path} is LLaVA-OneVision or LLaVA-Video, which llama.cpp cannot run on video "
            "(it lacks the pooling of their frames); use a Qwen-VL, InternVL or SmolVLM2 model."
        )
