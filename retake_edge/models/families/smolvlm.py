"""SmolVLM2: each frame squeezed into one square tile, with its time before it.

Pictures are cut into tiles, and so mtmd cuts every frame; the processor takes a video's frames
whole, as the last tile is.
"""

from __future__ import annotations

from dataclasses import replace

from retake_edge.llama.gguf import GgufFile
from retake_edge.models.families.family import Family, projector_type
from retake_edge.models.families.internvl import square_tile
from retake_edge.models.manifest import PositionRule

_INTRO = (
    "You are provided the following series of {n_frames_in_words} frames from a {duration} "
    "[H:MM:SS] video.\n"
)
_CHAT = (
    "<|im_start|>{% for m in messages %}{{ m.role | capitalize }}: {{ m.content }}"
    "<end_of_utterance>\n{% endfor %}Assistant:"
)
_TILES_A_SIDE = 4


def family(header: GgufFile, mmproj: GgufFile) -> Family | None:
    """Return the family of a SmolVLM2 pair (or of SmolVLM and Idefics3, which saw no video).

    Frames are first enlarged to the size that pictures have before they are cut into tiles: the
    published processors do so since they are given one size for both.

    Source: transformers, SmolVLMProcessor and SmolVLMVideoProcessor.
    """
    if projector_type(mmproj) != "idefics3":
        return None
    tile_px = int(mmproj.get("clip.vision.image_size", 512))
    via_px = int(mmproj.get("clip.vision.preproc_image_size", _TILES_A_SIDE * tile_px))
    rule = PositionRule(
        "linear",
        before_frame=(
            "\nFrame from {minutes:02d}:{seconds:02d}:<fake_token_around_image><global-img>"
        ),
        after_frame="<fake_token_around_image>",
    )
    return Family(
        "SmolVLM2",
        replace(square_tile(mmproj, "lanczos", via_px), overview=True),
        rule,
        video=f"{_INTRO}<video>\n\n",
        slot="<video>",
        fps=1.0,
        max_frames=64,
        template=_CHAT,
    )
