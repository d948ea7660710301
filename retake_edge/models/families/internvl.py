"""InternVL3 and InternVL3.5: each frame squeezed into one square tile, with its number before it.

Their files hold the chat template of the language model that they were made from, which names
another assistant. The processor has one without a system message; that is used.
"""

from __future__ import annotations

from retake_edge.llama.gguf import GgufFile
from retake_edge.models.families.family import Family, projector_type
from retake_edge.models.families.template import CHATML
from retake_edge.models.manifest import FrameRule, PositionRule

_VIDEO = "<video>\n"


def family(header: GgufFile, mmproj: GgufFile) -> Family | None:
    """Return the family of an InternVL pair.

    The processor has no frame rate of its own (its caller says how many frames); one a second is
    ours.

    Source: transformers, InternVLProcessor and InternVLVideoProcessor.
    """
    if projector_type(mmproj) != "internvl":
        return None
    rule = PositionRule("linear", before_frame="Frame{number}: <img>", after_frame="</img>\n")
    frames = square_tile(mmproj, "bicubic")
    return Family("InternVL", frames, rule, _VIDEO, _VIDEO, fps=1.0, template=CHATML)


def square_tile(mmproj: GgufFile, resample: str, via_px: int | None = None) -> FrameRule:
    """Return the rule of frames that fill the vision tower's one size, whatever their shape.

    Source: mtmd; patches are merged in squares of `scale_factor` x `scale_factor`.
    """
    side_px = int(mmproj.get("clip.vision.image_size", 448))
    patch_px = int(mmproj.get("clip.vision.patch_size", 14))
    merged = int(mmproj.get("clip.vision.projector.scale_factor", 1))
    return FrameRule(
        side_px,
        side_px,
        fit="stretch",
        resample=resample,
        via_px=via_px,
        frames_per_step=1,
        tokens_per_step=(side_px // patch_px // merged) ** 2,
    )
