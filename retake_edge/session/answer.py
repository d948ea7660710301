"""An answer, with all that is needed to judge it and to get it again."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass
from typing import Any

from retake_edge.engine.trained_context import PositionUse
from retake_edge.llama.sampler import SamplerSettings
from retake_edge.session.evidence import Span
from retake_edge.session.second_look import LookedAgain
from retake_edge.session.video_map import VideoStats
from retake_edge.stages import Profile
from retake_edge.version import __version__


@dataclass(frozen=True)
class SavedState:
    """The origin of the video's cells.

    `key`: the session's name ('' if none is saved); `is_reused`: whether it was there before;
    `n_bytes`: its size on disk.
    """

    key: str = ""
    is_reused: bool = False
    n_bytes: int = 0


@dataclass(frozen=True)
class Answer:
    """An answer, and all that is needed to make it again.

    `seconds` by stage; 'first_token' is the part of 'generate' before the answer's first token.
    `profile`: the same, adding up to the time that it took to open the video and to answer.
    `evidence`: the spans of the video that it attended to, the heaviest first. `model`: its name,
    why it was used (`chosen_by`), its kind and its files' hashes. `sampler`: how the answer was
    drawn, the model file's own settings included. `positions`: those that the video and this answer
    took. `probability`: how sure the model was, the geometric mean of its tokens' probabilities
    (None: they were given). `looked_again`: the second look, None without one; then `evidence` is
    what the first answer looked at. Printed, an answer is its text.
    """

    question: str
    text: str
    n_tokens: int
    evidence: list[Span]
    video: VideoStats
    session: SavedState
    seconds: dict[str, float]
    profile: Profile
    peak_memory_bytes: int
    model: dict[str, str]
    config: dict[str, Any]
    versions: dict[str, str]
    sampler: SamplerSettings
    positions: PositionUse
    probability: float | None = None
    looked_again: LookedAgain | None = None

    def __str__(self) -> str:
        """The answer's text."""
        return self.text

    @property
    def was_looked_again(self) -> bool:
        """True if it is the answer of a second look."""
        return self.looked_again is not None and not self.looked_again.problem

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return asdict(self)

    def summary(self) -> str:
        """Return one line about the video, its frames, cells and positions."""
        return f"{self.video.summary()}; positions {self.positions}"


def versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    return {"retake_edge": __version__, "python": platform.python_version()}
