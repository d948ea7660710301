"""The second look's benchmark: from files to figures, and figures to tables."""

import json

import numpy as np
import pytest

from retake_edge.bench.look.report import auroc, look_results, look_table, sure_table
from retake_edge.bench.look.run import LookSettings, look_scene, run_look
from retake_edge.bench.scenes.brief import colour_questions, make_repeat_scene
from retake_edge.config import RuntimeConfig
from retake_edge.errors import ConfigError
from retake_edge.models.resolve import resolve_model
from retake_edge.session.session import Session


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
    digits = [int(digit, 16) for digit in row["answers"]]
    assert row["back"]["n"] == sum(d & 6 == 4 for d in digits)
    assert row["back"]["right"] == sum(d & 7 == 5 for d in digits)
    assert row["broken"]["right"] == sum(d & 3 == 2 for d in digits)
    assert row["always"]["broken"]["right"] == sum(d & 10 == 2 for d in digits)
    assert row["full"]["right"] == sum(d & 4 > 0 for d in digits)
    for digit, first_p, second_p in zip(digits, row["first_p"], row["second_p"], strict=True):
        least = min(0.95, first_p - 0.01)
        counts = 2 if second_p < least else 8
        assert abs(second_p - least) < 0.001 or digit & 1 == (digit & counts > 0)
    assert row["look_s"] > 0
    assert results["sure"]["again"]["n"]["absent"] == 2
    assert "| events of 0.25 s | 0.0625 |" in look_table(results)
    assert sure_table(results).count("\n") == 4


def test_small_print_is_read_at_two_sizes_and_repeats_are_counted():
    settings = LookSettings(
        ("print", "repeats"),
        seed=3,
        n_videos=1,
        seconds=26,
        keep_ratios=(0.5,),
        n_questions=4,
        n_absent=0,
    )
    tried = run_look(resolve_model("tiny"), settings, RuntimeConfig(n_threads=1))
    results = json.loads(json.dumps(look_results(tried)))
    assert [row["scenes"] for row in results["rows"]] == ["print", "repeats"]
    print_row, row = results["rows"]
    assert len(print_row["kind"]) == 4 and row["kind"] == ["card_exists"] * 8
    digits = [int(digit, 16) for digit in row["answers"]]
    for name, bit in (("full", 4), ("first", 2), ("again", 1)):
        counted = row["counts"][name]
        assert counted["n"] == 1 and counted["right"] == all(d & bit for d in digits)
    assert "| small print | 0.5 |" in look_table(results)
    assert "| quick repeats | 0.5 |" in look_table(results)
    assert "| their counts | 0.5 |" in look_table(results)


def test_a_count_is_right_where_each_colour_is():
    scene = make_repeat_scene(3, 32, on_s=0.25, off_s=0.125)
    asked = colour_questions(scene)
    assert len({question.text for question in asked}) == len(asked) == 8
    assert sum(question.answer == "yes" for question in asked) == len(scene.cards)


def test_without_the_file_the_kept_features_are_looked_at(monkeypatch):
    settings = LookSettings(
        ("ordinary",),
        seed=3,
        n_videos=1,
        seconds=26,
        keep_ratios=(0.0625,),
        n_questions=3,
        n_absent=0,
        without_file=True,
    )
    ask, found = Session.ask, []

    def asking(self, question):
        found.append(ask(self, question))
        return found[-1]

    monkeypatch.setattr(Session, "ask", asking)
    run_look(resolve_model("tiny"), settings, RuntimeConfig(n_threads=1))
    looks = [answer.looked_again for answer in found]
    assert looks[:3] == [None] * 3
    assert all(".mp4" in look.without_file and look.n_frames for look in looks[3:])


def test_the_same_seed_gives_the_same_videos():
    settings = LookSettings(seed=3)
    brief = [look_scene(settings, "brief", card_s, 1) for card_s in (0.25, 0.25, 0.5)]
    assert brief[0] == brief[1] != brief[2]
    assert all(c.end_s - c.start_s == 0.25 for c in brief[0].cards)
    for scenes in ("print", "repeats", "ordinary"):
        assert look_scene(settings, scenes, 0, 1) == look_scene(settings, scenes, 0, 1)


def test_flashes_follow_each_other():
    for seed in range(20):
        flashes = make_repeat_scene(seed, 32, on_s=0.25, off_s=0.125).cards
        assert 2 <= len(flashes) <= 6 and flashes[0].start_s >= 1 and flashes[-1].end_s <= 31
        starts = [card.start_s for card in flashes]
        assert np.allclose(np.diff(starts), 0.375)
        assert all(card.end_s - card.start_s == 0.25 for card in flashes)


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
    "wrong",
    [
        {"n_videos": 0},
        {"fps": 9},
        {"keep_ratios": (0.0,)},
        {"cards_s": (60.0,)},
        {"scenes": ("slides",)},
    ],
)
def test_settings_that_cannot_work_are_refused(wrong):
    with pytest.raises(ConfigError):
        LookSettings(**wrong)
