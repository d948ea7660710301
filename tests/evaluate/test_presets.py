"""Prompts, extraction and scores against those of the sources' own functions.

The fixtures are made by `python -m eval_fixtures` (scripts/eval_fixtures), in an environment that
has the sources.
"""

import json
import math
from pathlib import Path

import pytest

from retake_edge.errors import ConfigError
from retake_edge.evaluate.presets import PRESETS, preset
from retake_edge.evaluate.scores import Outcome, difference, group_scores, headline, weighted_mean
from retake_edge.evaluate.sets import SETS

DATA = Path(__file__).parent / "data"
SOURCES = {
    name: json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))
    for name in ("lmms-eval", "vlmevalkit", "retake")
}
CASES = [(source, name) for source, found in SOURCES.items() for name in found["sets"]]


def item_of(source, name):
    entry = SOURCES[source]["sets"][name]
    (item,) = SETS[name].items(entry["record"], Path("MLVU/json/1_plotQA.json"))
    return item, entry


@pytest.mark.parametrize(("source", "name"), CASES)
def test_every_odd_answer_names_what_the_source_takes_it_for(source, name):
    item, entry = item_of(source, name)
    named = preset(source, name).named
    wrong = [(text, named(item, text), was) for text, was in entry["answers"]]
    wrong = [(text, got, was) for text, got, was in wrong if sorted(got) != sorted(was)]
    assert not wrong
    assert len(entry["answers"]) >= 200


@pytest.mark.parametrize(("source", "name"), [c for c in CASES if c[0] != "retake"])
def test_the_prompt_is_the_sources_to_the_letter(source, name):
    item, entry = item_of(source, name)
    asked = preset(source, name)
    assert asked.prompt(item) == entry["prompt"]
    assert asked.system == entry.get("system", "")


def test_the_papers_prompts_are_those_of_its_scripts():
    item, _ = item_of("retake", "videomme")
    assert preset("retake", "videomme").prompt(item) == (
        "What does the man see?\nOptions:\nA. a red car.\nB. the dog.\nC. two.\n"
        "D. nothing at all.\nAnswer with the option's letter from the given choices directly."
    )
    item, _ = item_of("retake", "mlvu")
    assert preset("retake", "mlvu").prompt(item) == (
        "What does the man see?\nOptions:\nA. a red car.\nB. the dog.\nC. two.\n"
        "D. nothing at all.\nAnswer with the option's letter from the given choices directly."
    )


def outcomes(kind):
    groups = {
        "videomme": lambda row: {"duration": (row["duration"],)},
        "mlvu": lambda row: {"type": (row["mlvu"],)},
        "longvideobench": lambda row: {"duration": (str(row["group"]),)},
        "lvbench": lambda row: {"type": tuple(row["types"])},
    }[kind]
    rows = SOURCES["lmms-eval"]["scores"]["outcomes"]
    return [Outcome(row["id"], row["video"], row["is_right"], groups(row)) for row in rows]


@pytest.mark.parametrize(
    ("name", "scale"), [("videomme", 100), ("mlvu", 100), ("longvideobench", 1)]
)
def test_the_headline_is_lmms_evals(name, scale):
    expected = SOURCES["lmms-eval"]["scores"][name]
    got = scale * headline(name, "lmms-eval", outcomes(name)).value
    assert got == pytest.approx(expected, abs=1e-5)


def test_the_error_is_clustered_as_in_lmms_eval():
    found = headline("videomme", "lmms-eval", outcomes("videomme"))
    assert found.error == pytest.approx(SOURCES["lmms-eval"]["scores"]["error"], abs=1e-9)


def test_the_kits_average_leaves_out_order_and_counts_questions_alike():
    rows = outcomes("mlvu")
    kept = [row.is_right for row in rows if row.groups["type"] != ("order",)]
    found = headline("mlvu", "vlmevalkit", rows)
    assert found.n == len(kept) < len(rows)
    assert found.value == pytest.approx(sum(kept) / len(kept))


def test_a_question_with_two_labels_counts_in_both():
    scores = {score.name: score for score in group_scores(outcomes("lvbench"))["type"]}
    n_labels = sum(len(outcome.groups["type"]) for outcome in outcomes("lvbench"))
    assert sum(score.n for score in scores.values()) == n_labels > len(outcomes("lvbench"))
    members = [o for o in outcomes("lvbench") if "reasoning" in o.groups["type"]]
    assert scores["reasoning"].value == pytest.approx(
        sum(o.is_right for o in members) / len(members)
    )


def test_questions_of_one_video_that_go_together_are_less_certain():
    values, weights = [1.0, 1.0, 0.0, 0.0], [1.0] * 4
    _, apart = weighted_mean(values, weights, ["a", "b", "c", "d"])
    _, together = weighted_mean(values, weights, ["a", "a", "b", "b"])
    assert together > apart > 0
    assert math.isnan(weighted_mean([1.0], [1.0], ["a"])[1])


def test_the_same_answers_differ_by_nothing_and_for_certain():
    rows = outcomes("mlvu")
    assert difference("mlvu", "retake", rows, rows) == (0.0, 0.0, 0.0)


def test_an_unknown_preset_or_set_is_told():
    with pytest.raises(ConfigError, match="There is no preset 'x'; there are retake"):
        preset("x", "mlvu")
    with pytest.raises(ConfigError, match="vlmevalkit does not know lvbench; choose --preset ret"):
        preset("vlmevalkit", "lvbench")
    assert set(SETS) <= set(PRESETS["retake"])
