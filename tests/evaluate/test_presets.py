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


@pytest.mark.parametrize(("source", "name"), CASES)
def test_the_prompt_is_the_sources_to_the_letter(source, name):
    item, entry = item_of(source, name)
    asked = preset(source, name)
    assert asked.prompt(item) == entry["prompt"]
    assert asked.system == entry["system"]


KINDS = {"videomme": "duration", "mlvu": "type", "lvbench": "type", "longvideobench": "duration"}
FIELDS = {"videomme": "duration", "mlvu": "mlvu", "lvbench": "types", "longvideobench": "group"}
ROUNDED = 6e-4
"""VLMEvalKit prints shares with three digits."""


def outcomes(name, source="lmms-eval"):
    def labels(row):
        value = row[FIELDS[name]]
        return tuple(value) if isinstance(value, list) else (str(value),)

    rows = SOURCES[source]["scores"]["outcomes"]
    return [
        Outcome(row["id"], row["video"], row["is_right"], {KINDS[name]: labels(row)})
        for row in rows
    ]


@pytest.mark.parametrize(
    ("source", "name"),
    [(source, name) for source, found in SOURCES.items() for name in found["scores"]["headlines"]],
)
def test_the_headline_is_the_sources(source, name):
    expected = SOURCES[source]["scores"]["headlines"][name]
    got = headline(name, source, outcomes(name, source)).value
    assert got == pytest.approx(expected, abs=ROUNDED if source == "vlmevalkit" else 1e-5)


@pytest.mark.parametrize(
    ("source", "name"),
    [(s, name) for s in ("vlmevalkit", "retake") for name in SOURCES[s]["scores"]["groups"]],
)
def test_the_groups_are_the_sources(source, name):
    expected = SOURCES[source]["scores"]["groups"][name]
    (scores,) = group_scores(outcomes(name, source)).values()
    assert {score.name: score.value for score in scores} == pytest.approx(expected, abs=ROUNDED)


def test_means_over_groups_are_told_apart_from_plain_ones_by_these_outcomes():
    plain = headline("lvbench", "retake", outcomes("lvbench")).value
    assert abs(headline("videomme", "retake", outcomes("videomme")).value - plain) > 2 * ROUNDED
    assert abs(headline("mlvu", "lmms-eval", outcomes("mlvu")).value - plain) > 1e-4


def test_the_error_is_clustered_as_in_lmms_eval():
    found = headline("videomme", "lmms-eval", outcomes("videomme"))
    assert found.error == pytest.approx(SOURCES["lmms-eval"]["scores"]["error"], abs=1e-9)


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
