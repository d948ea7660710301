"""Settings are refused before anything runs, and survive a round trip."""

import pytest

from retake_edge.config import (
    GenerationConfig,
    PivotKVConfig,
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
        (PivotKVConfig, {"policy": "best"}, "--policy"),
        (PivotKVConfig, {"keep_ratio": 0.0}, "--keep-ratio"),
        (PivotKVConfig, {"keep_ratio": 1.5}, "--keep-ratio"),
        (PivotKVConfig, {"keep_ratio": float("nan")}, "--keep-ratio"),
        (PivotKVConfig, {"keep_ratio": 0.5, "kv_budget": 10}, "--kv-budget"),
        (PivotKVConfig, {"positions": "move"}, "--positions"),
        (RuntimeConfig, {"type_k": "q5_0"}, "-ctk"),
        (RuntimeConfig, {"n_ubatch": 4096}, "-ub"),
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
        SamplingConfig(fps=4.0, end_s=9.0), pivotkv=PivotKVConfig(policy="random", seed=3)
    )
    assert RetakeConfig.from_dict(settings.to_dict()) == settings


def test_an_unknown_setting_is_refused():
    with pytest.raises(ConfigError, match=r"pivotkv\.keep"):
        RetakeConfig.from_dict({"pivotkv": {"keep": 0.5}})
    with pytest.raises(ConfigError, match="video"):
        RetakeConfig.from_dict({"video": {}})
