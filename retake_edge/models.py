"""Which files make a model, and how that model wants its frames, clock and prompt.

A manifest (models/NAME.toml) says it for a model by name, with the SHA-256 of each file. For any
other GGUF pair the same facts are inferred from the files' own metadata.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retake_edge.errors import ConfigError, ModelError
from retake_edge.llama import Model
from retake_edge.video import SizeRule, long_side_rule

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MODELS_DIR_VARIABLE = "RETAKE_MODELS_DIR"
LAYOUTS = ("linear", "mrope", "mrope-time", "mrope-clock", "timestamps")
DEFAULT_FPS = 2.0
_VIDEO_MARK = "\x00video\x00"
_QUESTION_MARK = "\x00question\x00"
_ANSWER_MARK = "\x00answer\x00"


@dataclass(frozen=True)
class FrameRule:
    """How a frame is brought to the size the vision tower was trained with.

    Either a fixed `width_px` x `height_px` (fit 'pad': letterboxed, 'stretch'), or the frame's own
    shape with its long side capped and both sides rounded to `multiple_px`.
    """

    width_px: int | None = None
    height_px: int | None = None
    fit: str = "pad"
    long_side_px: int = 448
    multiple_px: int = 28

    def size_rule(self, long_side_px: int | None) -> SizeRule | tuple[int, int]:
        """Return what frames are brought to: (width, height), or a rule for a video's own shape."""
        if self.width_px and self.height_px:
            return self.width_px, self.height_px
        return long_side_rule(long_side_px or self.long_side_px, self.multiple_px)


@dataclass(frozen=True)
class Layout:
    """How video tokens get positions and how the model is told the time.

    `kind`: linear (1-D positions); mrope (one span, t + 1 a grid frame: Qwen2-VL); mrope-time (t
    scaled by seconds: Qwen2.5-VL); mrope-clock (`positions_per_second`, and one M:SS token before
    each grid frame: tiny); timestamps (time text before each grid frame: Qwen3-VL).
    `max_clock_s`: the last second the model has a word for.
    """

    kind: str = "mrope"
    positions_per_second: float = 2.0
    max_clock_s: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in LAYOUTS:
            raise ConfigError(f"layout is {self.kind!r}, but must be one of {', '.join(LAYOUTS)}.")

    @property
    def has_clock_text(self) -> bool:
        """Whether each grid frame is preceded by its time as text."""
        return self.kind in ("mrope-clock", "timestamps")


@dataclass(frozen=True)
class Prompt:
    """The text around the video: `before` VIDEO `after`, with {question} in `after`.

    `follow_up`: what comes between an answer and the next one, with the next {question}.
    """

    before: str
    after: str
    follow_up: str = "<|im_end|>\n<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"

    def question(self, text: str) -> str:
        """Return the text that follows the video."""
        return self.after.replace("{question}", text)

    def next_question(self, text: str) -> str:
        """Return the text that follows an answer, up to the answer after it."""
        return self.follow_up.replace("{question}", text)


@dataclass(frozen=True)
class ModelFiles:
    """A GGUF pair without a manifest."""

    model: Path
    mmproj: Path


@dataclass(frozen=True)
class ModelManifest:
    """A model ready to be loaded: its two files, their hashes, and how it wants to be used."""

    name: str
    model: Path
    mmproj: Path
    frames: FrameRule
    layout: Layout
    prompt: Prompt
    sha256: dict[str, str]
    fps: float = DEFAULT_FPS
    description: str = ""

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
    packaged = Path(__file__).parent / "models_data"
    return packaged if packaged.is_dir() else Path(__file__).parents[1] / "models"


def model_names() -> list[str]:
    """Return the names of all models that have a manifest."""
    return sorted(path.stem for path in models_dir().glob("*.toml"))


def load_manifest(name: str) -> ModelManifest:
    """Read the manifest of a model by name.

    Raises:
        ModelError: there is no such manifest, or it is damaged.
    """
    path = models_dir() / f"{name}.toml"
    if name not in model_names():
        raise ModelError(
            f"There is no model named {name!r}; there is {', '.join(model_names()) or 'none'}. "
            "Give a GGUF pair with -m and --mmproj instead."
        )
    try:
        data: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        files = data["files"]
        return ModelManifest(
            name=name,
            model=path.parent / files["model"]["path"],
            mmproj=path.parent / files["mmproj"]["path"],
            frames=FrameRule(**data["frames"]),
            layout=Layout(**data["layout"]),
            prompt=Prompt(**data["prompt"]),
            sha256={role: entry["sha256"] for role, entry in files.items()},
            fps=data.get("fps", DEFAULT_FPS),
            description=data.get("description", ""),
        )
    except (tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        raise ModelError(f"The manifest {path} is damaged ({error!r}); install it again.") from None


def resolve_model(
    model: str, mmproj: Path | None = None, *, sha256: Callable[[Path], str] | None = None
) -> ModelManifest | ModelFiles:
    """Return a model by name (its files verified), or the GGUF pair of a path.

    Without `mmproj` the one mmproj*.gguf beside the model is taken. `sha256` gives the hash of a
    file, from memory perhaps (None: it is read).

    Raises:
        ModelError: no such model, or no one projector beside it. ConfigError: a projector was
        given to a model by name.
    """
    if not model.lower().endswith(".gguf"):
        if mmproj is not None:
            raise ConfigError(
                f"--mmproj goes with a GGUF path, but the model is {model!r}; give -m FILE.gguf."
            )
        manifest = load_manifest(model)
        manifest.verify(sha256)
        return manifest
    path = Path(model)
    if not path.is_file():
        raise ModelError(f"There is no model file {path}; check the path after -m.")
    if mmproj is None:
        beside = sorted(path.parent.glob("mmproj*.gguf"))
        if len(beside) != 1:
            raise ModelError(
                f"There are {len(beside)} files mmproj*.gguf beside {path}; name one with --mmproj."
            )
        mmproj = beside[0]
    return ModelFiles(path, mmproj)


def infer_manifest(model: Model, mmproj: Path) -> ModelManifest:
    """Infer frames, layout and prompt of any GGUF pair from the files' metadata.

    Raises:
        ModelError: the projector's kind cannot be read.
    """
    kind = projector_type(mmproj)
    layout = _PROJECTOR_LAYOUTS.get(kind) or Layout(
        "mrope" if model.n_pos_per_embd == 4 else "linear"
    )
    frames = FrameRule(multiple_px=32) if kind.startswith("qwen3vl") else FrameRule()
    prompt = prompt_from_template(model.chat_template, with_vision_marks=model.n_pos_per_embd == 4)
    return ModelManifest(model.path.stem, model.path, mmproj, frames, layout, prompt, {})


_PROJECTOR_LAYOUTS = {
    "qwen2vl_merger": Layout("mrope"),
    "qwen2.5vl_merger": Layout("mrope-time", positions_per_second=2.0),
    "qwen3vl_merger": Layout("timestamps"),
}


def projector_type(mmproj: Path) -> str:
    """Return the projector's kind, such as 'qwen2vl_merger'.

    Raises:
        ModelError: the file is missing or no mmproj GGUF.
    """
    from gguf import GGUFReader

    if not mmproj.is_file():
        raise ModelError(f"There is no projector file {mmproj}; check --mmproj.")
    try:
        reader = GGUFReader(mmproj)
    except (ValueError, OSError, IndexError) as error:
        raise ModelError(f"{mmproj} is no GGUF file ({error}); check --mmproj.") from None
    for key in ("clip.vision.projector_type", "clip.projector_type"):
        field = reader.get_field(key)
        if field is not None:
            return str(field.contents())
    raise ModelError(f"{mmproj} is a GGUF file but no projector; check --mmproj.")


def prompt_from_template(template: str | None, *, with_vision_marks: bool) -> Prompt:
    """Split a chat template (Jinja; None: ChatML) around the video and the question."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    video = f"<|vision_start|>{_VIDEO_MARK}<|vision_end|>" if with_vision_marks else _VIDEO_MARK
    content = f"{video}{_QUESTION_MARK}"
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    jinja = environment.from_string(template or _CHATML)

    def rendered(*contents: str) -> str:
        roles = "user", "assistant"
        messages = [{"role": roles[i % 2], "content": text} for i, text in enumerate(contents)]
        return jinja.render(
            messages=messages, add_generation_prompt=True, bos_token="", eos_token=""
        )

    before, _, after = rendered(content).partition(_VIDEO_MARK)
    follow_up = rendered(content, _ANSWER_MARK, _QUESTION_MARK).partition(_ANSWER_MARK)[2]
    return Prompt(
        before,
        after.replace(_QUESTION_MARK, "{question}"),
        follow_up.replace(_QUESTION_MARK, "{question}"),
    )


_CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant\n"
)


def file_sha256(path: Path) -> str:
    """Return a file's SHA-256 as 64 hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
