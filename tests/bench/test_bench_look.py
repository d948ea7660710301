"""The second look's benchmark: from files to figures, and figures to tables."""

import json

import numpy as np
import pytest

from retake_edge.bench.look.report import auroc, look_results, look_table, sure_table
from retake_edge.bench.look.run import LookSettings, look_scene, run_look
from retake_edge.config import RuntimeConfig
from retake_edge.errors import ConfigError
from retake_edge.models.resolve import resolve_model


def test_a_run_tells_what_was_lost_and_what_came_back():
    settings = LookSettings(
        seed=3,
        n_videos=1,
        seconds=26,
        cards_s=(0.25,),
        keep_ratios=(0.0625,),
        n_questions=6,
        n_absent=2,
    )
    tried = run_look(resolve_model("tiny"), settings, RuntimeConfig(n_threads=1))
    results = json.loads(json.dumps(look_results(tried)))
    [row] = results["rows"]
    assert len(tried) == 8
    assert row["first"]["n"] == row["again"]["n"] == len(row["kind"]) == len(row["answers"]) == 6
    digits = [int(digit) for digit in row["answers"]]
    assert row["back"]["n"] == sum(d & 6 == 4 for d in digits)
    assert row["back"]["right"] == sum(d == 5 for d in digits)
    assert row["broken"]["right"] == sum(d & 3 == 2 for d in digits)
    assert row["full"]["right"] == sum(d >= 4 for d in digits)
    assert row["look_s"] > 0
    assert results["sure"]["again"]["n"]["absent"] == 2
    assert "| 0.25 s | 0.0625 |" in look_table(results)
    assert sure_table(results).count("\n") == 4


def test_the_same_seed_gives_the_same_videos():
    settings = LookSettings(seed=3)
    assert look_scene(settings, 0.25, 1) == look_scene(settings, 0.25, 1)
    assert look_scene(settings, 0.25, 1) != look_scene(settings, 0.5, 1)
    assert all(c.end_s - c.start_s == 0.25 for c in look_scene(settings, 0.25, 1).cards)


def test_the_area_is_the_share_of_pairs_in_order():
    rng = np.random.default_rng(0)
    for _ in range(20):
        a = rng.integers(0, 6, int(rng.integers(1, 9))).tolist()
        b = rng.integers(0, 6, int(rng.integers(1, 9))).tolist()
        pairs = [(x > y) + 0.5 * (x == y) for x in a for y in b]
        area, low, high = auroc(a, b)
        assert area == pytest.approx(sum(pairs) / len(pairs), abs=1e-4)
        assert 0 <= low <= area <= high <= 1
    assert auroc([1, 2], [0])[0] == 1
    assert auroc([], [0.5]) is None


@pytest.mark.parametrize(
    "wrong", [{"n_videos": 0}, {"fps": 9}, {"keep_ratios": (0.0,)}, {"cards_s": (60.0,)}]
)
def test_settings_that_cannot_work_are_refused(wrong):
    with pytest.raises(ConfigError):
        LookSettings(**wrong)
