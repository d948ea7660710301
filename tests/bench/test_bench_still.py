"""The benchmark of still footage, on one short video of two kinds."""

from __future__ import annotations

from pathlib import Path

import pytest

from retake_edge.bench.still import StillSettings, run_still, still_tables, summary
from retake_edge.config import GenerationConfig, RetakeConfig, RuntimeConfig
from retake_edge.errors import ConfigError
from retake_edge.models.resolve import resolve_model


def test_still_footage_is_encoded_less_and_moving_footage_as_before(tmp_path: Path) -> None:
    settings = StillSettings(3, ("slides", "moving"), 48, 1, 4)
    config = RetakeConfig(
        runtime=RuntimeConfig(n_threads=1),
        generation=GenerationConfig(max_tokens=8, temperature=0),
    )
    readings, asked = run_still(resolve_model("tiny"), settings, config, tmp_path)
    assert not list(tmp_path.iterdir())
    assert [(r.kind, r.way) for r in readings] == [
        *(("slides", "still"), ("slides", "all"), ("slides", "even")),
        *(("moving", "still"), ("moving", "all"), ("moving", "even")),
    ]
    assert all(len(r.right) == 4 for r in readings)
    assert all(r.n_steps == 48 for r in readings if r.way != "even")
    ours, whole, even, moving_ours, moving, _ = readings
    assert even.n_encoded == ours.n_encoded
    assert whole.n_encoded == 48
    assert ours.n_encoded < 48 / 4
    assert ours.n_tokens < whole.n_tokens == whole.n_cells_before == ours.n_cells_before
    assert moving.n_encoded == 48
    assert moving_ours.n_encoded > 36, "only where such a scene stands still for a moment"
    rows = summary(readings)
    assert [row["kind"] for row in rows] == ["slides", "moving", "all"]
    assert rows[0]["encodes_fewer"] > 4 > rows[1]["encodes_fewer"] >= 1
    assert len(asked) == 8
    assert len(still_tables({"rows": rows}).splitlines()) == 11


@pytest.mark.parametrize(
    "wrong", [{"kinds": ("film",)}, {"seconds": 3.0}, {"n_videos": 0}, {"still": 0.0}]
)
def test_bad_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        StillSettings(**wrong)  # type: ignore[arg-type]
