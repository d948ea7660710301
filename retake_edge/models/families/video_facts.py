"""A projector file's own facts about video, under `retake.video.`.

`retake_edge.convert` writes it, the family reads it: llama.cpp has no keys for how frames are
pooled, where the learned row stands, and what the model is told.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from retake_edge.errors import ModelError
from retake_edge.llama.gguf import GgufFile
from retake_edge.models.pooling import Pooling

PREFIX = "retake.video."
FORMAT = 1
NEWLINES = ("row", "frame", "end", "none")
NEWLINE_TENSOR = "v.image_newline"


@dataclass(frozen=True)
class VideoFacts:
    """The form in which a model wants a video.

    `family`: its name for people; `pool_mode`, `pool_stride`: as `Pooling` ('none': no pooling);
    `newline`: the learned row stands after each 'row' of a frame's grid, after each 'frame', at the
    'end' of the video, or not at all ('none'); `fps`, `max_frames`: what is sampled;
    `spreads_frames`: short videos get `max_frames`, too; `chat_template`: in place of the language
    model's ('': that one); `time_sentence`: what stands between video and question, with the
    fields of `Prompt.closing` ('': nothing).
    """

    family: str
    pool_mode: str
    pool_stride: int
    newline: str
    max_frames: int
    fps: float = 1.0
    spreads_frames: bool = False
    chat_template: str = ""
    time_sentence: str = ""

    @property
    def pooling(self) -> Pooling | None:
        """Pooling of a frame's features, None if there is none.

        Raises:
            ModelError: the mode is not known.
        """
        return None if self.pool_mode == "none" else Pooling(self.pool_mode, self.pool_stride)

    def metadata(self) -> dict[str, Any]:
        """Return the keys and values that a GGUF file carries."""
        values = {"format": FORMAT, **asdict(self)}
        return {PREFIX + name: value for name, value in values.items() if value != ""}


def read_video_facts(mmproj: GgufFile) -> VideoFacts | None:
    """Return what a projector says of video; None if it says nothing.

    Raises:
        ModelError: it says something that this version does not know.
    """
    said = {
        key.removeprefix(PREFIX): value
        for key, value in mmproj.metadata.items()
        if key.startswith(PREFIX)
    }
    found = said.pop("format", None)
    if found is None:
        return None
    if found != FORMAT:
        raise ModelError(
            f"{mmproj.path} tells how it wants video in format {found}, and this version of "
            f"retake-edge knows format {FORMAT}; take another version, or convert the model again."
        )
    try:
        facts = VideoFacts(**said)
    except TypeError as error:
        raise ModelError(
            f"{mmproj.path} does not tell all of how it wants video ({error}); convert it again."
        ) from None
    if facts.newline not in NEWLINES:
        raise ModelError(
            f"{mmproj.path} has its learned row at {facts.newline!r}, but known are "
            f"{', '.join(NEWLINES)}; convert it again."
        )
    return facts
