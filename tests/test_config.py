"""Settings are refused before anything runs, and survive a round trip."""

from dataclasses import fields
from pathlib import Path

import pytest

import retake_edge
from retake_edge.config import (
    CompressionConfig,
    GenerationConfig,
    RetakeConfig,
    RuntimeConfig,
    SamplingConfig,
    all_settings,
    path_of,
    with_values,
)
from retake_edge.errors import ConfigError


@pytest.mark.parametrize(
    ("section", "values", "named"),
    [
        (SamplingConfig, {"fps": 0}, "--fps"),
        (SamplingConfig, {"max_frames": 0}, "--max-frames"),
        (SamplingConfig, {"start_s": 5.0, "end_s": 5.0}, "--end"),
        (CompressionConfig, {"policy": "best"}, "--policy"),
        (CompressionConfig, {"keep_ratio": 0.0}, "--keep-ratio"),
        (CompressionConfig, {"keep_ratio": 1.5}, "--keep-ratio"),
        (CompressionConfig, {"keep_ratio": float("nan")}, "--keep-ratio"),
        (CompressionConfig, {"keep_ratio": 0.5, "kv_budget": 10}, "--kv-budget"),
        (CompressionConfig, {"positions": "move"}, "--positions"),
        (RuntimeConfig, {"type_k": "q5_0"}, "-ctk"),
        (RuntimeConfig, {"n_ubatch": 4096}, "-ub"),
        (RuntimeConfig, {"flash_attention": "yes"}, "-fa"),
        (RuntimeConfig, {"flash_attention": "off", "type_v": "q8_0"}, "-fa"),
        (GenerationConfig, {"max_tokens": 0}, "-n"),
    ],
)
def test_a_value_out_of_range_is_refused_by_its_flag(section, values, named):
    with pytest.raises(ConfigError) as refusal:
        section(**values)
    assert named in str(refusal.value)
    assert "must be" in str(refusal.value)


def test_settings_survive_a_round_trip():
    settings = RetakeConfig(
        sampling=SamplingConfig(fps=4.0, end_s=9.0),
        compression=CompressionConfig(policy="random", seed=3),
    )
    assert RetakeConfig.from_dict(settings.to_dict()) == settings


def test_the_section_of_the_version_before_is_still_read():
    read = RetakeConfig.from_dict({"pivotkv": {"policy": "random", "seed": 3}})
    assert read == RetakeConfig(compression=CompressionConfig(policy="random", seed=3))


def test_an_unknown_setting_is_refused():
    with pytest.raises(ConfigError, match=r"compression\.keep"):
        RetakeConfig.from_dict({"pivotkv": {"keep": 0.5}})
    with pytest.raises(ConfigError, match="video"):
        RetakeConfig.from_dict({"video": {}})


@pytest.mark.parametrize(
    ("section", "values"),
    [
        (SamplingConfig, {"fps": "2"}),
        (SamplingConfig, {"max_frames": 2.5}),
        (SamplingConfig, {"start_s": None}),
        (CompressionConfig, {"seed": True}),
        (CompressionConfig, {"policy": 3}),
        (RuntimeConfig, {"mmproj_offload": 1}),
        (GenerationConfig, {"presence_penalty": float("inf")}),
        (GenerationConfig, {"grammar": None}),
    ],
)
def test_a_value_of_another_kind_is_refused_in_a_sentence(section, values):
    with pytest.raises(ConfigError, match="must be"):
        section(**values)


def test_every_setting_has_a_flag_or_a_reason_and_a_help_of_its_own():
    known = all_settings()
    sections = [type(getattr(RetakeConfig(), section.name)) for section in fields(RetakeConfig)]
    assert len(known) == sum(len(fields(section)) for section in sections)
    for path, one in known.items():
        assert bool(one.flags) != bool(one.no_flag), path
        assert one.help.endswith(".") and one.help_line.startswith(one.help.rstrip(".")), path
    assert len({one.help for one in known.values()}) == len(known)
    flags = [flag for one in known.values() for flag in one.flags]
    assert len(set(flags)) == len(flags)


def test_the_help_of_a_setting_stands_in_one_place_only():
    package = Path(retake_edge.__file__).parent
    texts = {path: path.read_text(encoding="utf-8") for path in package.rglob("*.py")}
    for name, one in all_settings().items():
        found = [path.name for path, text in texts.items() if f'"{one.help}' in text]
        assert found == ["config.py"], name


def test_every_default_is_among_the_values_that_its_setting_takes():
    for one in all_settings().values():
        one.check(one.default)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("keep-ratio", "compression.keep_ratio"),
        ("keep_ratio", "compression.keep_ratio"),
        ("long-side", "sampling.long_side_px"),
        ("long_side_px", "sampling.long_side_px"),
        ("seed", "generation.seed"),
        ("policy-seed", "compression.seed"),
        ("temp", "generation.temperature"),
        ("ctk", "runtime.type_k"),
        ("video", None),
    ],
)
def test_a_setting_is_found_by_its_flag_or_its_field(name, path):
    assert path_of(name) == path


def test_a_docstring_of_a_section_says_what_the_help_says():
    assert "`fps`: Frames a second.  [default: the model's, or 2]" in SamplingConfig.__doc__


def test_a_budget_takes_the_place_of_a_ratio_and_a_ratio_that_of_a_budget():
    ratio = RetakeConfig(compression=CompressionConfig(keep_ratio=0.5))
    budget = with_values(ratio, compression={"kv_budget": 100})
    assert budget.compression == CompressionConfig(kv_budget=100)
    assert with_values(budget, compression={"keep_ratio": 0.5}) == ratio
    with pytest.raises(ConfigError, match="only one"):
        with_values(ratio, compression={"keep_ratio": 0.5, "kv_budget": 100})
