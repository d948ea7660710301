"""Models with a LLaVA projector: frames one after another, at positions in one row.

LLaVA-OneVision and LLaVA-Video pool a frame's features after the projector and put a learned row
between them. No key of llama.cpp says how, so `retake_edge.convert` writes it into the projector's
file; without that they are refused. For all others what these projectors have in common is all
that is used: mtmd brings a frame into the tower's square (padded, as LLaVA-1.5 was trained), and
no text tells frames apart.
"""

from __future__ import annotations

from retake_edge.errors import ModelError
from retake_edge.llama.gguf import GgufFile
from retake_edge.models.families.family import Family, projector_type
from retake_edge.models.families.video_facts import NEWLINE_TENSOR, VideoFacts, read_video_facts
from retake_edge.models.manifest import FrameRule, PositionRule

_PROJECTORS = ("mlp", "mlp_norm", "ldp", "ldpv2")
_POOLING = ("onevision", "llava-video", "llava_video")
_SLOT = "<video>"
_VIDEO = f"{_SLOT}\n"
_ANY_RATE_FPS = 1000.0
"""More than any video has: as many frames as are taken are spread over its length."""


def family(header: GgufFile, mmproj: GgufFile) -> Family | None:
    """Return the family of a pair with a LLaVA projector.

    Raises:
        ModelError: it is LLaVA-OneVision or LLaVA-Video, and does not tell how frames are pooled.
    """
    kind = projector_type(mmproj)
    if kind not in _PROJECTORS:
        return None
    facts = read_video_facts(mmproj)
    if facts is not None:
        return _pooled(mmproj, facts)
    _refuse_pooling(header, mmproj)
    side_px, n_side = _tower(mmproj)
    frames = FrameRule(
        long_side_px=side_px,
        multiple_px=1,
        resample="bicubic",
        frames_per_step=1,
        tokens_per_step=n_side**2 // 4 if kind.startswith("ldp") else n_side**2,
    )
    return Family("LLaVA", frames, PositionRule("linear"), _VIDEO, _SLOT + "\n", fps=1.0)


def _pooled(mmproj: GgufFile, facts: VideoFacts) -> Family:
    """The family of a model that pools its frames.

    Source: transformers, LlavaOnevisionProcessor, LlavaOnevisionModel.get_video_features;
    LLaVA-NeXT, prepare_inputs_labels_for_multimodal, SigLipImageProcessor, its demo for video.
    """
    side_px, n_side = _tower(mmproj)
    pooling = facts.pooling
    n_side = pooling.side(n_side) if pooling else n_side
    frames = FrameRule(
        side_px,
        side_px,
        fit="stretch",
        resample="bicubic",
        frames_per_step=1,
        tokens_per_step=n_side**2,
        pooling=pooling,
    )
    rule = PositionRule(
        "linear",
        newlines_per_step={"row": n_side, "frame": 1}.get(facts.newline, 0),
        ends_with_newline=facts.newline == "end",
    )
    time_text = f"{facts.time_sentence}\n" if facts.time_sentence else ""
    return Family(
        facts.family,
        frames,
        rule,
        video=_VIDEO + time_text,
        slot=_SLOT,
        fps=_ANY_RATE_FPS if facts.spreads_frames else facts.fps,
        max_frames=facts.max_frames,
        template=facts.chat_template or None,
        tells_video=bool(time_text),
    )


def _tower(mmproj: GgufFile) -> tuple[int, int]:
    """The side of the vision tower's square, in pixels and in patches."""
    side_px = int(mmproj.get("clip.vision.image_size", 336))
    return side_px, side_px // int(mmproj.get("clip.vision.patch_size", 14))


def _refuse_pooling(header: GgufFile, mmproj: GgufFile) -> None:
    """Refuse the two by name, or by what only they combine with Qwen2.

    That is tiles of a square tower, or a learned row beside a tower without a class token. Which of
    the two a pair is, and so how it pools, no tensor tells.
    """
    names = " ".join(str(file.get("general.name", "")) for file in (header, mmproj)).lower()
    is_tiled = mmproj.get("clip.vision.mm_patch_merge_type") == "spatial_unpad"
    tensors = mmproj.tensor_shapes
    has_row = NEWLINE_TENSOR in tensors and "v.class_embd" not in tensors
    is_qwen = header.architecture == "qwen2"
    if any(name in names for name in _POOLING) or (is_qwen and (is_tiled or has_row)):
        raise ModelError(
            f"{header.path} is LLaVA-OneVision or LLaVA-Video, and its projector does not say how "
            "frames are pooled; convert the original checkpoint with `python -m "
            "retake_edge.convert CHECKPOINT OUT`."
        )
