"""Every setting, frozen and validated: one source of defaults for the CLI and the Python API.

A value that cannot work is refused here with one sentence, before anything is loaded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, get_type_hints

from retake_edge.errors import ConfigError
from retake_edge.questions import check_text

POLICIES = (
    "spread",
    "pivotkv",
    "hybrid",
    "coverage",
    "uniform",
    "random",
    "random-stratified",
    "recent",
    "frames",
    "none",
)
WHOLE_POLICIES = ("frames", "none")
"""Policies that evict no cells: fewer frames, each of them whole, or the video as it is."""
PIVOT_MODES = ("protect", "reference", "none")
POSITION_MODES = ("auto", "keep", "reforge")
KV_TYPES = ("f32", "f16", "q8_0", "q4_0")
UNQUANTIZED = ("f32", "f16")
FLASH_ATTENTION = ("auto", "on", "off")


def _require(ok: bool, name: str, value: object, must: str) -> None:
    if not ok:
        raise ConfigError(f"{name} is {value!r}, but it must be {must}.")


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    _require(value in allowed, name, value, f"one of {', '.join(allowed)}")


@dataclass(frozen=True)
class SamplingConfig:
    """Which frames are looked at.

    `fps` is frames per second of the video's own clock, `max_frames` the most that are taken;
    `long_side_px` caps the longer side of a frame. None: the model's own rule.
    """

    fps: float | None = None
    max_frames: int | None = None
    long_side_px: int | None = None
    start_s: float = 0.0
    end_s: float | None = None

    def __post_init__(self) -> None:
        if self.fps is not None:
            _require(0 < self.fps <= 1000, "--fps", self.fps, "above 0 and at most 1000")
        if self.max_frames is not None:
            _require(self.max_frames >= 1, "--max-frames", self.max_frames, "at least 1")
        if self.long_side_px is not None:
            _require(self.long_side_px >= 28, "--long-side", self.long_side_px, "at least 28")
        _require(self.start_s >= 0, "--start", self.start_s, "0 or later")
        if self.end_s is not None:
            _require(self.end_s > self.start_s, "--end", self.end_s, "later than --start")


@dataclass(frozen=True)
class DPSelectConfig:
    """Keyframes by local peaks of inter-frame feature distance (paper section 3.2).

    `per_patch` finds peaks of every patch position on its own, as all published configurations do.
    `ratio`: the share of grid frames that are prefilled at all, chosen by their change (1: all of
    them, and keyframes only mark tokens).
    """

    per_patch: bool = True
    ratio: float = 1.0

    def __post_init__(self) -> None:
        _require(0 < self.ratio <= 1, "--dpselect-ratio", self.ratio, "in (0, 1]")


@dataclass(frozen=True)
class CompressionConfig:
    """Which KV cells of the video stay (paper section 3.3; `policy` names the rule).

    Policy `frames` leaves out whole frames instead, as models without a choice have it done.
    `keep_ratio`: share of video cells kept in (0, 1]; None: what `kv_budget` asks for, or 1/4.
    `kv_budget`: most video cells kept over the whole video. `prefill_chunk_frames`: frames
    prefilled between two compressions, fewer where the model's trained context is short.
    `positions`: 'keep', 'reforge' or 'auto' (`engine.trained_context`). `n_queries`: rows of Q
    that score a chunk (0: all). `seed`: of policies that choose at random.
    """

    policy: str = "spread"
    keep_ratio: float | None = None
    kv_budget: int | None = None
    prefill_chunk_frames: int = 32
    positions: str = "auto"
    pivot: str = "protect"
    n_queries: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        _one_of("--policy", self.policy, POLICIES)
        _one_of("--positions", self.positions, POSITION_MODES)
        _one_of("--pivot", self.pivot, PIVOT_MODES)
        if self.keep_ratio is not None:
            _require(0 < self.keep_ratio <= 1, "--keep-ratio", self.keep_ratio, "in (0, 1]")
        if self.kv_budget is not None:
            _require(self.kv_budget >= 1, "--kv-budget", self.kv_budget, "at least 1")
        _require(
            self.keep_ratio is None or self.kv_budget is None,
            "--keep-ratio with --kv-budget",
            (self.keep_ratio, self.kv_budget),
            "only one of the two",
        )
        _require(
            self.prefill_chunk_frames >= 2,
            "--prefill-chunk-frames",
            self.prefill_chunk_frames,
            "at least 2",
        )
        _require(self.n_queries >= 0, "--n-queries", self.n_queries, "0 (all) or more")
        _require(self.seed >= 0, "--policy-seed", self.seed, "0 or more")


@dataclass(frozen=True)
class RuntimeConfig:
    """How llama.cpp runs; the names follow its flags (-c, -ngl, -t, -b, -ub, -ctk, -ctv, -fa).

    `flash_attention`: 'auto' is off where the device lacks it for these types of K and V.
    """

    n_ctx: int | None = None
    n_gpu_layers: int = -1
    n_threads: int | None = None
    n_batch: int = 2048
    n_ubatch: int = 512
    type_k: str = "f16"
    type_v: str = "f16"
    mmproj_offload: bool = True
    encode_batch_frames: int = 16
    flash_attention: str = "auto"

    def __post_init__(self) -> None:
        _one_of("-ctk", self.type_k, KV_TYPES)
        _one_of("-ctv", self.type_v, KV_TYPES)
        _one_of("-fa", self.flash_attention, FLASH_ATTENTION)
        _require(
            self.flash_attention != "off" or self.type_v in UNQUANTIZED,
            "-fa",
            self.flash_attention,
            f"on or auto with -ctv {self.type_v}, since a quantized V needs flash attention",
        )
        if self.n_ctx is not None:
            _require(self.n_ctx >= 64, "-c", self.n_ctx, "at least 64")
        if self.n_threads is not None:
            _require(self.n_threads >= 1, "-t", self.n_threads, "at least 1")
        _require(self.n_batch >= 1, "-b", self.n_batch, "at least 1")
        _require(1 <= self.n_ubatch <= self.n_batch, "-ub", self.n_ubatch, "from 1 to -b")
        _require(
            self.encode_batch_frames >= 2, "encode_batch_frames", self.encode_batch_frames, ">= 2"
        )


@dataclass(frozen=True)
class PromptConfig:
    """What is said to the model before the video: `system`, '' for what its template says."""

    system: str = ""

    def __post_init__(self) -> None:
        check_text("The system prompt", self.system)


@dataclass(frozen=True)
class GenerationConfig:
    """How the answer is drawn; the names and their meaning are llama.cpp's.

    None: what the model's file says (its `general.sampling` metadata), else the likeliest token at
    each step (`temperature` 0), or llama.cpp's own default where a temperature is asked for.
    `grammar`: GBNF text that the answer must follow, '' for none. `seed`: of the draw.
    """

    max_tokens: int = 256
    temperature: float | None = None
    seed: int = 0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repeat_penalty: float | None = None
    presence_penalty: float | None = None
    repeat_last_n: int | None = None
    grammar: str = ""

    def __post_init__(self) -> None:
        _require(self.max_tokens >= 1, "-n", self.max_tokens, "at least 1")
        _require(0 <= self.seed < 2**32, "--seed", self.seed, "from 0 to 4294967295")
        checks: tuple[tuple[str, float | None, Callable[[float], bool], str], ...] = (
            ("--temp", self.temperature, lambda v: 0 <= v < math.inf, "0 or more"),
            ("--top-k", self.top_k, lambda v: 0 <= v < 2**31, "0 (all tokens) or more"),
            ("--top-p", self.top_p, lambda v: 0 < v <= 1, "above 0 and at most 1"),
            ("--min-p", self.min_p, lambda v: 0 <= v <= 1, "from 0 to 1"),
            ("--repeat-penalty", self.repeat_penalty, lambda v: 0 < v < math.inf, "above 0"),
            ("--presence-penalty", self.presence_penalty, math.isfinite, "a number"),
            ("--repeat-last-n", self.repeat_last_n, lambda v: 0 <= v < 2**31, "0 or more"),
        )
        for name, value, is_good, must in checks:
            _require(value is None or is_good(value), name, value, must)
        check_text("The grammar", self.grammar)


@dataclass(frozen=True)
class LookConfig:
    """The second look, after a first answer, at the seconds that matter.

    `frames`: the most that are looked at again, 0 for none; None: as many as the model's manifest
    says.
    """

    frames: int | None = None

    def __post_init__(self) -> None:
        if self.frames is not None:
            _require(self.frames >= 0, "--look-again", self.frames, "0 (off) or more")


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


def with_values(settings: RetakeConfig, **sections: Mapping[str, Any]) -> RetakeConfig:
    """Return settings with other values: section to name to value, None for as it is.

    A keep ratio and a budget exclude each other, so that one takes the other's place.

    Raises:
        ConfigError: a value is out of range.
    """
    changed = {}
    for section, values in sections.items():
        given = {name: value for name, value in values.items() if value is not None}
        if "keep_ratio" in given:
            given["kv_budget"] = None
        if given:
            changed[section] = replace(getattr(settings, section), **given)
    return replace(settings, **changed)
