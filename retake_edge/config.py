"""Every setting, frozen and validated: the one place of its default, range, flag and help.

The command line is built from these fields. A value that cannot work is refused here with one
sentence, before anything is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from typing import Any, get_type_hints

from retake_edge.errors import ConfigError
from retake_edge.questions import check_text, checked_question
from retake_edge.setting import Range, Setting, described, require, setting, settings_of

POLICIES = (
    "spread",
    "pivotkv",
    "hybrid",
    "coverage",
    "distinct",
    "uniform",
    "random",
    "random-stratified",
    "recent",
    "frames",
    "none",
)
WHOLE_POLICIES = ("frames", "none")
"""Policies that evict no cells: fewer frames, each of them whole, or the video as it is."""
GUIDED_POLICIES = ("spread", "pivotkv", "hybrid")
"""Policies that attention has a say in, so that a question can, too."""
PIVOT_MODES = ("protect", "reference", "none")
BUDGET_MODES = ("even", "novelty")
POSITION_MODES = ("auto", "keep", "reforge")
SAMPLINGS = ("even", "change")
KV_TYPES = ("f32", "f16", "q8_0", "q4_0")
UNQUANTIZED = ("f32", "f16")
FLASH_ATTENTION = ("on", "off", "auto")
DEFAULT_KV_BUDGET = 32_000
"""Of the video, where none is asked for: the reference's published max_input_length."""


class _Section:
    """A part of the configuration: each value is checked, and then how they go together."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ConfigError: a value, or a pair of them, cannot work.
        """
        for name, one in settings_of(self).items():
            one.check(getattr(self, name))
        self._check_together()

    def _check_together(self) -> None:
        pass


@described
@dataclass(frozen=True, kw_only=True)
class SamplingConfig(_Section):
    """Settings for choosing the frames that are looked at."""

    start_s: float = setting(
        0.0,
        "--start",
        help="Where to begin: 90, 1:30 or 1:02:00.",
        metavar="TIME",
        range=Range(0),
        is_time=True,
        is_everyday=True,
    )
    end_s: float | None = setting(
        None,
        "--end",
        help="Where to end, written alike.",
        metavar="TIME",
        is_time=True,
        is_everyday=True,
    )
    fps: float | None = setting(
        None,
        "--fps",
        help="Frames a second.",
        unset="the model's, or 2",
        range=Range(0, 1000, is_open=True),
        is_everyday=True,
    )
    max_frames: int | None = setting(
        None,
        "--max-frames",
        help="Most frames looked at.",
        unset="the model's, or 2048",
        range=Range(1),
    )
    sampling: str = setting(
        "change",
        "--sampling",
        help="Frames of a video with more than --max-frames: spread evenly, or by change.",
        metavar="NAME",
        choices=SAMPLINGS,
    )
    long_side_px: int | None = setting(
        None,
        "--long-side",
        help="Longer side of a frame.",
        unset="the model's",
        metavar="PX",
        range=Range(28),
    )
    still: float = setting(
        0.0,
        "--still",
        help="Grey levels that make a change, as 12: what stands still is read once; 0: never.",
        metavar="LEVELS",
        range=Range(0, 255),
    )

    def _check_together(self) -> None:
        if self.end_s is not None:
            require(self.end_s > self.start_s, "--end", self.end_s, "later than --start")


@described
@dataclass(frozen=True, kw_only=True)
class DPSelectConfig(_Section):
    """Keyframes by local peaks of inter-frame feature distance (paper section 3.2)."""

    per_patch: bool = setting(
        True,
        help="Peaks of every patch position on its own.",
        no_flag="all published configurations have it on",
    )
    ratio: float = setting(
        1.0,
        "--dpselect-ratio",
        help="Share of frames that are prefilled at all: those that change most.",
        metavar="SHARE",
        range=Range(0, 1, is_open=True),
    )


@described
@dataclass(frozen=True, kw_only=True)
class CompressionConfig(_Section):
    """Settings for choosing the KV cells of the video that stay (paper section 3.3).

    Policy `frames` leaves out whole frames instead, as models without a choice have it done.
    `positions`: `engine.trained_context` has the modes. A ratio and a budget exclude each other.
    """

    keep_ratio: float | None = setting(
        None,
        "--keep-ratio",
        help="Share of vision tokens kept, in (0, 1].",
        unset="what fits",
        metavar="SHARE",
        range=Range(0, 1, is_open=True),
    )
    kv_budget: int | None = setting(
        None,
        "--kv-budget",
        help="Most KV cells kept for the video.",
        unset=str(DEFAULT_KV_BUDGET),
        range=Range(1),
    )
    prefill_chunk_frames: int = setting(
        32,
        "--prefill-chunk-frames",
        help="Frames prefilled between two compressions.",
        range=Range(2),
    )
    policy: str = setting(
        "spread", "--policy", help="Which cells stay.", metavar="NAME", choices=POLICIES
    )
    positions: str = setting(
        "auto",
        "--positions",
        help="Positions of kept cells.",
        metavar="NAME",
        choices=POSITION_MODES,
    )
    pivot: str = setting(
        "protect", "--pivot", help="Keyframe tokens.", metavar="NAME", choices=PIVOT_MODES
    )
    budgets: str = setting(
        "even",
        "--chunk-budgets",
        help="Cells of a chunk: alike, or more where more is new.",
        metavar="NAME",
        choices=BUDGET_MODES,
    )
    n_queries: int = setting(
        128, "--n-queries", help="Queries that score a chunk; 0: all.", range=Range(0)
    )
    seed: int = setting(
        0,
        "--policy-seed",
        help="Seed of the policies that choose at random.",
        range=Range(0),
    )
    guide: str = setting(
        "",
        help="The one question that the video is read for.",
        no_flag="`ask --guided` sets it to the question asked",
    )

    def _check_together(self) -> None:
        require(
            self.keep_ratio is None or self.kv_budget is None,
            "--keep-ratio with --kv-budget",
            (self.keep_ratio, self.kv_budget),
            "only one of the two",
        )
        if self.guide:
            checked_question(self.guide)
        if self.guide and self.policy not in GUIDED_POLICIES:
            raise ConfigError(
                f"--policy {self.policy} never asks where a question looks, so no video can be "
                f"read for one; choose one of {', '.join(GUIDED_POLICIES)}, or leave --guided out."
            )


@described
@dataclass(frozen=True, kw_only=True)
class RuntimeConfig(_Section):
    """Settings of llama.cpp; the names follow its flags.

    `flash_attention`: 'auto' is off where the device lacks it for these types of K and V.
    """

    n_ctx: int | None = setting(
        None,
        "-c",
        "--ctx-size",
        help="KV cells.",
        unset="what is needed",
        env="CTX_SIZE",
        llama_defaults=("0",),
        range=Range(64),
    )
    n_gpu_layers: int = setting(
        -1,
        "-ngl",
        "--n-gpu-layers",
        help="Layers on the GPU; -1: all.",
        env="N_GPU_LAYERS",
        llama_defaults=("auto", "all"),
    )
    n_threads: int | None = setting(
        None,
        "-t",
        "--threads",
        help="CPU threads.",
        unset="llama.cpp's",
        env="THREADS",
        llama_defaults=("-1",),
        range=Range(1),
    )
    n_batch: int = setting(
        2048, "-b", "--batch-size", help="Most tokens of a batch.", env="BATCH", range=Range(1)
    )
    n_ubatch: int = setting(
        512,
        "-ub",
        "--ubatch-size",
        help="Most tokens computed at once.",
        env="UBATCH",
        range=Range(1),
    )
    type_k: str = setting(
        "f16",
        "-ctk",
        "--cache-type-k",
        help="K.",
        metavar="TYPE",
        env="CACHE_TYPE_K",
        choices=KV_TYPES,
    )
    type_v: str = setting(
        "f16",
        "-ctv",
        "--cache-type-v",
        help="V.",
        metavar="TYPE",
        env="CACHE_TYPE_V",
        choices=KV_TYPES,
    )
    flash_attention: str = setting(
        "auto",
        "-fa",
        "--flash-attn",
        help="Flash attention.",
        metavar="|".join(FLASH_ATTENTION),
        env="FLASH_ATTN",
        choices=FLASH_ATTENTION,
    )
    mmproj_offload: bool = setting(
        True, "--mmproj-offload", help="Vision on the GPU.", env="MMPROJ_OFFLOAD"
    )
    encode_batch_frames: int = setting(
        16,
        help="Frames encoded at once.",
        no_flag="the answer does not depend on it, and more gain nothing",
        range=Range(2),
    )

    def _check_together(self) -> None:
        require(
            self.flash_attention != "off" or self.type_v in UNQUANTIZED,
            "-fa",
            self.flash_attention,
            f"on or auto with -ctv {self.type_v}, since a quantized V needs flash attention",
        )
        require(self.n_ubatch <= self.n_batch, "-ub", self.n_ubatch, "from 1 to -b")


@described
@dataclass(frozen=True, kw_only=True)
class PromptConfig(_Section):
    """The text that the model gets besides the question."""

    system: str = setting(
        "",
        "-sys",
        "--system-prompt",
        help="Said before the video.",
        unset="the template's",
        metavar="TEXT",
    )

    def _check_together(self) -> None:
        check_text("The system prompt", self.system)


@described
@dataclass(frozen=True, kw_only=True)
class GenerationConfig(_Section):
    """Settings for drawing the answer; the names and their meaning are llama.cpp's.

    None: what the model's file says (its `general.sampling` metadata), else the likeliest token at
    each step, or llama.cpp's own default where a temperature is asked for.
    """

    max_tokens: int = setting(
        256,
        "-n",
        "--predict",
        help="Most tokens of an answer.",
        env="N_PREDICT",
        llama_defaults=("-1",),
        range=Range(1),
    )
    temperature: float | None = setting(
        None,
        "--temp",
        help="0: always the likeliest word.",
        unset="the model's, or 0",
        env="TEMPERATURE",
        range=Range(0),
    )
    seed: int = setting(
        0, "--seed", "-s", help="Seed of the draw, with --temp.", range=Range(0, 2**32 - 1)
    )
    top_k: int | None = setting(
        None,
        "--top-k",
        help="Most words drawn from; 0: all.",
        unset="40",
        env="TOP_K",
        range=Range(0, 2**31 - 1),
    )
    top_p: float | None = setting(
        None,
        "--top-p",
        help="Draw from the likeliest this share.",
        unset="0.95",
        env="TOP_P",
        range=Range(0, 1, is_open=True),
    )
    min_p: float | None = setting(
        None,
        "--min-p",
        help="Least share of the likeliest word's.",
        unset="0.05",
        env="MIN_P",
        range=Range(0, 1),
    )
    repeat_penalty: float | None = setting(
        None,
        "--repeat-penalty",
        help="Above 1: repeat words less.",
        unset="1",
        env="REPEAT_PENALTY",
        range=Range(0, is_open=True),
    )
    presence_penalty: float | None = setting(
        None,
        "--presence-penalty",
        help="Above 0: use new words more.",
        unset="0",
        env="PRESENCE_PENALTY",
        range=Range(),
    )
    repeat_last_n: int | None = setting(
        None,
        "--repeat-last-n",
        help="Words that both look back at.",
        unset="64",
        range=Range(0, 2**31 - 1),
    )
    grammar: str = setting(
        "", "--grammar", help="A GBNF grammar that answers must follow.", metavar="GBNF"
    )

    def _check_together(self) -> None:
        check_text("The grammar", self.grammar)


@described
@dataclass(frozen=True, kw_only=True)
class LookConfig(_Section):
    """The second look, after a first answer, at the seconds that matter; 0 frames: none."""

    frames: int | None = setting(
        None,
        "--look-again",
        help="Frames looked at again, closely, after a first answer.",
        unset="the model's",
        range=Range(0),
    )
    keep_features: bool = setting(
        False,
        "--keep-features",
        help="Save the frames' features, too: a second look without the file sees those.",
    )


_OLD_SECTIONS = {"pivotkv": "compression"}
"""Of the version before: still read, never written."""


@dataclass(frozen=True)
class RetakeConfig:
    """All settings of one run; goes whole into every result."""

    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    dpselect: DPSelectConfig = field(default_factory=DPSelectConfig)
    compression: CompressionConfig = field(default_factory=CompressionConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    prompt: PromptConfig = field(default_factory=PromptConfig)
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    look: LookConfig = field(default_factory=LookConfig)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as nested plain values, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_paths(cls, values: Mapping[str, Any]) -> RetakeConfig:
        """Build from values by path, as {'sampling.fps': 1.0}.

        Raises:
            ConfigError: a setting is unknown, or a value is out of range.
        """
        sections: dict[str, dict[str, Any]] = {}
        for path, value in values.items():
            section, _, name = path.partition(".")
            sections.setdefault(section, {})[name] = value
        return cls.from_dict(sections)

    @classmethod
    def from_dict(cls, values: Mapping[str, Mapping[str, Any]]) -> RetakeConfig:
        """Build from nested mappings, such as `to_dict` gives.

        Raises:
            ConfigError: a section or key is unknown, or a value is out of range.
        """
        values = {_OLD_SECTIONS.get(name, name): section for name, section in values.items()}
        sections = get_type_hints(cls)
        unknown = sorted(set(values) - set(sections))
        if unknown:
            raise ConfigError(
                f"Unknown settings section {unknown[0]!r}; there are {', '.join(sections)}."
            )
        built = {}
        for name, section in values.items():
            known = {f.name for f in fields(sections[name])}
            extra = sorted(set(section) - known)
            if extra:
                raise ConfigError(
                    f"Unknown setting {name}.{extra[0]}; there are {', '.join(sorted(known))}."
                )
            built[name] = sections[name](**section)
        return cls(**built)


@cache
def all_settings() -> Mapping[str, Setting]:
    """Return every setting of the configuration by its path, as 'sampling.fps'."""
    return {
        f"{section}.{name}": one
        for section, kind in get_type_hints(RetakeConfig).items()
        for name, one in settings_of(kind).items()
    }


def path_of(name: str) -> str | None:
    """Return the path of a setting by its flag without dashes, or by its field; None if unknown."""
    wanted, known = name.replace("_", "-"), all_settings()
    fields_of = {path.partition(".")[2].replace("_", "-"): path for path in known}
    flags = {flag.lstrip("-"): path for path, one in known.items() for flag in one.flags}
    return (fields_of | flags).get(wanted)


def flag_of(path: str) -> str:
    """Return the flag of a setting by its path, as messages name it."""
    return all_settings()[path].flag


def with_values(config: RetakeConfig, **sections: Mapping[str, Any]) -> RetakeConfig:
    """Return settings with other values: section to name to value, None for as it is.

    A keep ratio and a budget exclude each other, so that one takes the other's place.

    Raises:
        ConfigError: a value is out of range.
    """
    changed = {}
    for section, values in sections.items():
        given = {name: value for name, value in values.items() if value is not None}
        if "keep_ratio" in given:
            given.setdefault("kv_budget", None)
        elif "kv_budget" in given:
            given["keep_ratio"] = None
        if given:
            changed[section] = replace(getattr(config, section), **given)
    return replace(config, **changed)
