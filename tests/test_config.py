"""Settings are refused before anything runs, and survive a round trip."""

import pytest

from retake_edge.config import (
    CompressionConfig,
    GenerationConfig,
    RetakeConfig,
    RuntimeConfig,
    SamplingConfig,
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
        SamplingConfig(fps=4.0, end_s=9.0), compression=CompressionConfig(policy="random", seed=3)
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
