"""A family of models: one record, filled by one function each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from retake_edge.errors import ModelError
from retake_edge.llama.gguf import GgufFile
from retake_edge.models.manifest import DEFAULT_FPS, DEFAULT_MAX_FRAMES, FrameRule, PositionRule


@dataclass(frozen=True)
class Family:
    """A kind of models, and the form in which they are shown a video.

    `frames`: size, filter and grid; `positions`: their rule, and text between frames; `fps`,
    `max_frames`: what the family's processor samples by default. `template`: a chat template in
    place of the file's, where the family's processor has one of its own for video.
    `video`: how the family writes a video into a user's message, for chat templates that take
    plain text only. `slot`: the part of it, also of what the family's own template writes, that the
    frames replace (with the text around them that `positions` says).
    `tells_video`: the text between video and question tells of the video, as `Prompt.closing` does.
    """

    name: str
    frames: FrameRule
    positions: PositionRule
    video: str
    slot: str
    fps: float = DEFAULT_FPS
    max_frames: int = DEFAULT_MAX_FRAMES
    template: str | None = None
    tells_video: bool = False


FamilyOf = Callable[[GgufFile, GgufFile], "Family | None"]
"""From a language model and its projector to their family, None if it is another one."""


def projector_type(mmproj: GgufFile) -> str:
    """Return the projector's kind, such as 'qwen2vl_merger'.

    Raises:
        ModelError: the file is no projector.
    """
    for key in ("clip.vision.projector_type", "clip.projector_type"):
        kind = mmproj.get(key)
        if kind:
            return str(kind)
    raise ModelError(f"{mmproj.path} is a GGUF file but no projector; check --mmproj.")
