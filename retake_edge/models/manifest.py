"""A model's manifest: its files, and how it wants its frames, clock and prompt.

A manifest (models/NAME.toml) says it for a model by name, with the SHA-256 of each file, or names
a repository of the hub. For any GGUF pair without such a manifest, `models.families` tells the
same facts from the files' own metadata.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retake_edge.errors import ConfigError, ModelError
from retake_edge.files import file_sha256
from retake_edge.models.number_words import in_words
from retake_edge.models.pooling import Pooling
from retake_edge.video.frame_size import PixelLimits, SizeRule, limited_rule, long_side_rule

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from retake_edge.models.hub.naming import HubRef

MODELS_DIR_VARIABLE = "RETAKE_MODELS_DIR"
POSITION_KINDS = ("linear", "mrope", "mrope-time", "mrope-clock", "timestamps")
DEFAULT_FPS = 2.0
DEFAULT_MAX_FRAMES = 2048


@dataclass(frozen=True)
class FrameRule:
    """The rule that brings a frame to the size of the vision tower's training, and into tokens.

    The size: a fixed `width_px` x `height_px` (fit 'pad': letterboxed, 'stretch'), or the frame's
    own shape with its long side capped and both sides in multiples of `multiple_px`, within
    `limits` if there are any. `resample`: 'area' (swscale), or a filter of `video.resample`.
    `via_px`: the longer side of a first step, for processors that resize twice.
    `frames_per_step` frames become one grid frame, and each `token_px` x `token_px` square of it
    one token (None: `multiple_px`), or all of it `tokens_per_step` tokens. `overview`: mtmd cuts
    frames into tiles, and the whole frame after them is what is used. `pooling`: what becomes of a
    frame's features after the projector; `tokens_per_step` are those that it leaves.
    """

    width_px: int | None = None
    height_px: int | None = None
    fit: str = "pad"
    long_side_px: int = 448
    multiple_px: int = 28
    resample: str = "area"
    via_px: int | None = None
    limits: PixelLimits | None = None
    frames_per_step: int = 2
    token_px: int | None = None
    tokens_per_step: int | None = None
    overview: bool = False
    pooling: Pooling | None = None

    def size_rule(self, long_side_px: int | None) -> SizeRule | tuple[int, int]:
        """Return what frames are brought to: (width, height), or a rule for a video's own shape."""
        if self.width_px and self.height_px:
            return self.width_px, self.height_px
        cap = long_side_px or self.long_side_px
        if self.limits is None:
            return long_side_rule(cap, self.multiple_px)
        return limited_rule(self.limits, self.multiple_px, cap)

    def frame_size(
        self, width_px: int, height_px: int, n_frames: int, long_side_px: int | None = None
    ) -> tuple[int, int]:
        """Return the (width, height) in pixels of the frames of a video of that size."""
        rule = self.size_rule(long_side_px)
        return rule(width_px, height_px, n_frames) if callable(rule) else rule

    def n_vision_tokens(self, width_px: int, height_px: int) -> int:
        """Return the tokens of a grid frame of that size, as `frame_size` gives it."""
        if self.tokens_per_step is not None:
            return self.tokens_per_step
        side = self.token_px or self.multiple_px
        return (width_px // side) * (height_px // side)


@dataclass(frozen=True)
class PositionRule:
    """The rule by which video tokens get positions and the model is told the time.

    `kind`: linear (1-D positions); mrope (one span, t + 1 a grid frame: Qwen2-VL); mrope-time (t
    scaled by seconds: Qwen2.5-VL); mrope-clock (`positions_per_second`, and one M:SS token before
    each grid frame: tiny); timestamps (text between grid frames takes positions of its own:
    Qwen3-VL). `max_clock_s`: the last second the model has a word for.
    `before_frame`, `after_frame`: text around each grid frame, with {number} (from 1), {first_s}
    and {middle_s} (floats), {minutes} and {seconds} (whole, of its first frame's time); what
    follows the last grid frame stands in the prompt.
    `newlines_per_step`: how often the model's learned row stands in a grid frame, each time after
    an equal part of it (its rows, or all of it); `ends_with_newline`: once after the last one.
    Such a row counts as text: it is never evicted.
    """

    kind: str = "mrope"
    positions_per_second: float = 2.0
    max_clock_s: float | None = None
    before_frame: str = ""
    after_frame: str = ""
    newlines_per_step: int = 0
    ends_with_newline: bool = False

    def __post_init__(self) -> None:
        if self.kind not in POSITION_KINDS:
            raise ConfigError(
                f"positions.kind is {self.kind!r}, but must be one of {', '.join(POSITION_KINDS)}."
            )

    def frame_text(self, index: int, first_s: float, middle_s: float) -> str:
        """Return the text between grid frame `index` (from 0) and the one before it."""
        if self.kind == "mrope-clock":
            return f"{int(first_s) // 60}:{int(first_s) % 60:02d}"
        before = self.before_frame.format(
            number=index + 1,
            first_s=first_s,
            middle_s=middle_s,
            minutes=int(first_s) // 60,
            seconds=int(first_s) % 60,
        )
        return (self.after_frame if index else "") + before

    @property
    def has_newlines(self) -> bool:
        """True if the model's learned row stands anywhere."""
        return self.newlines_per_step > 0 or self.ends_with_newline


@dataclass(frozen=True)
class Prompt:
    """The text around the video: `before` VIDEO `after`, with {question} in `after`.

    `before` may tell of the video: {n_frames}, {n_frames_in_words}, {duration} (H:MM:SS).
    `follow_up`: what comes between an answer and the next one, with the next {question}.
    `closing`: text between the video and `after` that tells of the video once it has been read:
    {n_frames}, {duration_s} (two decimals), {frame_times} ('0.00s,1.00s').
    """

    before: str
    after: str
    follow_up: str = "<|im_end|>\n<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    closing: str = ""

    def opening(self, n_frames: int, duration_s: float) -> str:
        """Return the text that precedes a video of which `n_frames` frames are taken."""
        duration = str(timedelta(seconds=int(duration_s)))
        facts = {
            "{n_frames}": str(n_frames),
            "{n_frames_in_words}": in_words(n_frames),
            "{duration}": duration,
        }
        return _filled(self.before, facts)

    def ending(self, times_s: Sequence[float], duration_s: float) -> str:
        """Return the text that follows a video of which the frames at `times_s` were taken."""
        facts = {
            "{n_frames}": str(len(times_s)),
            "{duration_s}": f"{duration_s:.2f}",
            "{frame_times}": ",".join(f"{time_s:.2f}s" for time_s in times_s),
        }
        return _filled(self.closing, facts)

    def question(self, text: str) -> str:
        """Return the text that follows the video."""
        return self.after.replace("{question}", text)

    def next_question(self, text: str) -> str:
        """Return the text that follows an answer, up to the answer after it."""
        return self.follow_up.replace("{question}", text)


def _filled(text: str, facts: dict[str, str]) -> str:
    for field, value in facts.items():
        text = text.replace(field, value)
    return text


@dataclass(frozen=True)
class ModelFiles:
    """A GGUF pair without a manifest."""

    model: Path
    mmproj: Path


@dataclass(frozen=True)
class ModelManifest:
    """A model ready to be loaded: its two files, their hashes, and how it wants to be used.

    `gguf_name`: what both files call it (`general.name`), so that they are known by any path.
    `look_again`: frames of a second look where none are asked for: as many as were measured to pay.
    """

    name: str
    model: Path
    mmproj: Path
    frames: FrameRule
    positions: PositionRule
    prompt: Prompt
    sha256: dict[str, str]
    fps: float = DEFAULT_FPS
    max_frames: int = DEFAULT_MAX_FRAMES
    description: str = ""
    gguf_name: str = ""
    look_again: int = 0

    def verify(self, sha256: Callable[[Path], str] | None = None) -> None:
        """Check the files against the manifest's hashes; `sha256` gives a file's (None: read it).

        Raises:
            ModelError: a file is missing or not the one that the manifest names.
        """
        for role, path in (("model", self.model), ("mmproj", self.mmproj)):
            if not path.is_file():
                raise ModelError(f"The {role} file {path} of model {self.name!r} is missing.")
            expected = self.sha256.get(role)
            if expected and (sha256 or file_sha256)(path) != expected:
                raise ModelError(
                    f"{path} is not the {role} file that the manifest of {self.name!r} names "
                    "(its SHA-256 differs); install the model again."
                )


def models_dir() -> Path:
    """Return the folder of manifests: `RETAKE_MODELS_DIR`, the package's, or the checkout's."""
    override = os.environ.get(MODELS_DIR_VARIABLE)
    if override:
        return Path(override)
    packaged = Path(__file__).parents[1] / "models_data"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "models"


def model_names() -> list[str]:
    """Return the names of all models that have a manifest."""
    return sorted(path.stem for path in models_dir().glob("*.toml"))


def read_manifest(name: str) -> dict[str, Any]:
    """Return what the manifest of a model says.

    Raises:
        ModelError: there is no such manifest, or it is no TOML.
    """
    path = models_dir() / f"{name}.toml"
    if name not in model_names():
        from retake_edge.models.names import unknown_model

        raise unknown_model(name)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise _damaged(path, error) from None


def load_manifest(name: str) -> ModelManifest:
    """Return a bundled model by the name of its manifest.

    Raises:
        ModelError: there is no such manifest, it is damaged, or it names a model of the hub.
    """
    path, data = models_dir() / f"{name}.toml", read_manifest(name)
    if "hub" in data:
        raise ModelError(
            f"The model {name} does not come with retake-edge; run `retake-edge pull {name}`."
        )
    try:
        files = data["files"]
        return ModelManifest(
            name=name,
            model=path.parent / files["model"]["path"],
            mmproj=path.parent / files["mmproj"]["path"],
            frames=FrameRule(**data["frames"]),
            positions=PositionRule(**_section(data, "positions", was="layout")),
            prompt=Prompt(**data["prompt"]),
            sha256={role: entry["sha256"] for role, entry in files.items()},
            fps=data.get("fps", DEFAULT_FPS),
            max_frames=data.get("max_frames", DEFAULT_MAX_FRAMES),
            description=data.get("description", ""),
            gguf_name=data.get("gguf_name", ""),
            look_again=data.get("look_again", 0),
        )
    except (KeyError, TypeError) as error:
        raise _damaged(path, error) from None


def _section(data: Mapping[str, Any], name: str, *, was: str) -> Mapping[str, Any]:
    """A section of a manifest; the name it had in the version before is read, too."""
    section: Mapping[str, Any] = data[was if was in data else name]
    return section


def bundled_names() -> list[str]:
    """Return the names of the models that come with retake-edge."""
    return [name for name in model_names() if hub_ref(name) is None]


def hub_ref(name: str) -> HubRef | None:
    """Return the repository that a manifest names; None if it names none, or there is none.

    Raises:
        ModelError: the manifest is damaged.
    """
    from retake_edge.models.hub.naming import HubRef

    if name not in model_names():
        return None
    data = read_manifest(name)
    try:
        return HubRef(data["hub"]["repo"], data["hub"]["quant"]) if "hub" in data else None
    except (KeyError, TypeError) as error:
        raise _damaged(models_dir() / f"{name}.toml", error) from None


def _damaged(path: Path, error: Exception) -> ModelError:
    return ModelError(f"The manifest {path} is damaged ({error!r}); install it again.")
