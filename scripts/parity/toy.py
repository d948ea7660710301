"""What a toy of a family is, and the cases that its goldens cover."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

CLIP_FPS = 10
QUESTION = "What happens in the video, and when?"


@dataclass(frozen=True)
class Case:
    """One way of looking at the clip.

    The frames `start`, `start + every`, ... below `stop` of the clip; `repeat`: each so many times
    (a processor that refuses a single frame gets it twice). `long_side_px`: the cap given to
    retake-edge (None: its own); `processor`: arguments with which the processor comes to the same
    frame size (empty: its defaults). `text_after_video`: 'as is', or 'follows its last position'
    where the processor's own rule is not taken over; the family's page says why.
    """

    name: str
    start: int
    stop: int
    every: int
    long_side_px: int | None = None
    processor: dict[str, Any] = field(default_factory=dict)
    repeat: int = 1
    text_after_video: str = "as is"

    def frames(self) -> list[int]:
        """The numbers of the clip's frames."""
        return [i for i in range(self.start, self.stop, self.every) for _ in range(self.repeat)]

    def retake(self) -> dict[str, Any]:
        """How retake-edge is asked for the same frames."""
        return {
            "fps": CLIP_FPS / self.every,
            "start_s": self.start / CLIP_FPS,
            "end_s": self.stop / CLIP_FPS,
            "long_side_px": self.long_side_px,
        }


@dataclass(frozen=True)
class Stages:
    """What the family's processor and model make of one case, stage by stage.

    `input_ids` int [n], the whole prompt; `is_video` bool [n]: which of them are features;
    `positions` int [3, n] (t, h, w) or [n]; `pixels` f32 [B, H, W, 3], normalised, in the order of
    the frames; `features` f32 [T, N, C] a grid frame, as the language model gets them (with further
    columns for deepstack); `logits` f32 [n_vocab] after the last token.
    """

    input_ids: np.ndarray
    is_video: np.ndarray
    positions: np.ndarray
    pixels: np.ndarray
    features: np.ndarray
    logits: np.ndarray


@dataclass(frozen=True)
class Toy:
    """A toy of one family.

    `make(folder, seed)` saves model, tokenizer and processor there, as a published model is saved,
    and returns what `stages(made, frames, indices, case)` needs: frames u8 [B, H, W, 3] RGB of the
    clip, and their numbers in it. `pre_tokenizer`: llama.cpp's name of how text is cut into words,
    which the converter tells from a hash of the published tokenizers. `mean`, `std`: what pixels
    are normalised with. `frame_size(width, height, n_frames)`: the size of the frames of such a
    video, where the processor has a rule for it. `convert(folder, model, mmproj)`: writes the f32
    pair of what `make` saved, where llama.cpp's converter does not know it.
    """

    name: str
    make: Callable[[Path, int], Any]
    stages: Callable[[Any, np.ndarray, list[int], Case], Stages]
    cases: tuple[Case, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    pre_tokenizer: str = "qwen2"
    frame_size: Callable[[int, int, int], tuple[int, int]] | None = None
    convert: Callable[[Path, Path, Path], None] | None = None
