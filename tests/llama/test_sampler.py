"""Answers are drawn by llama.cpp's own sampler chain, as its options and the model's file say."""

import json
from typing import Any

import numpy as np
import pytest
from session_support import ARGUMENTS, MODEL, VIDEO, run

from retake_edge.config import GenerationConfig
from retake_edge.errors import ConfigError
from retake_edge.llama.context import Context
from retake_edge.llama.grammar import grammar_of_schema
from retake_edge.llama.model import Model
from retake_edge.llama.sampler import Sampler, SamplerSettings, settings_of_run

GREEDY = SamplerSettings(0.0, 40, 0.95, 0.05, 1.0, 0.0, 64)
FREE = SamplerSettings(1.0, 0, 1.0, 0.0, 1.0, 0.0, 64)
DIGITS = "root ::= [0-9] [0-9]"


@pytest.fixture(scope="module")
def model():
    with Model(MODEL.model) as loaded:
        yield loaded


class Logits:
    """A context whose last row's logits are given."""

    handle = None

    def __init__(self, model, **by_token):
        self.row = np.full(model.n_vocab, -20.0, np.float32)
        for token, value in by_token.items():
            self.row[int(token[1:])] = value

    def logits(self):
        return self.row


def draws(model, settings, logits, n=300, seed=1, before=()):
    found = []
    with Sampler(model, settings, seed, "") as sampler:
        sampler.remember(list(before))
        for _ in range(n):
            found.append(sampler.draw(logits))
    return found


def test_at_temperature_0_the_likeliest_token_is_taken(model):
    logits = Logits(model, t5=1.0, t6=1.1, t7=1.0)
    assert set(draws(model, GREEDY, logits)) == {6}


def test_above_0_tokens_come_as_often_as_their_probability_says(model):
    logits = Logits(model, t5=np.log(0.7), t6=np.log(0.2), t7=np.log(0.1))
    found = np.bincount(draws(model, FREE, logits, n=3000), minlength=8)[5:8] / 3000
    assert found == pytest.approx([0.7, 0.2, 0.1], abs=0.04)


@pytest.mark.parametrize(
    ("changed", "left"),
    [
        ({"top_k": 2}, {5, 6}),
        ({"top_p": 0.75}, {5, 6}),
        ({"min_p": 0.2}, {5, 6}),
        ({"min_p": 0.5}, {5}),
        ({"top_k": 1}, {5}),
    ],
)
def test_each_filter_leaves_what_it_should(model, changed, left):
    logits = Logits(model, t5=np.log(0.7), t6=np.log(0.2), t7=np.log(0.1))
    settings = SamplerSettings(**{**FREE.__dict__, **changed})
    assert set(draws(model, settings, logits, n=400)) == left


def test_the_seed_decides_the_draws(model):
    logits = Logits(model, t5=0.0, t6=0.0, t7=0.0)
    assert draws(model, FREE, logits, seed=3) == draws(model, FREE, logits, seed=3)
    assert draws(model, FREE, logits, seed=3) != draws(model, FREE, logits, seed=4)


@pytest.mark.parametrize("penalty", [{"repeat_penalty": 2.0}, {"presence_penalty": 1.5}])
def test_penalties_count_the_question_and_forget_what_lies_far_back(model, penalty):
    settings = SamplerSettings(**{**GREEDY.__dict__, **penalty, "repeat_last_n": 2})
    logits = Logits(model, t5=2.0, t6=1.5)
    assert draws(model, settings, logits, n=1) == [5]
    assert draws(model, settings, logits, n=1, before=[5]) == [6]
    assert draws(model, settings, logits, n=1, before=[5, 9, 9]) == [5]


def test_a_grammar_is_followed_to_its_end(model):
    digits = [model.tokenize(str(d))[0] for d in range(10)]
    logits: Any = Logits(model, t5=5.0)
    with Sampler(model, GREEDY, 0, DIGITS) as sampler:
        found = [sampler.draw(logits) for _ in range(3)]
    assert set(found[:2]) <= set(digits) and model.is_end(found[2])


def test_a_grammar_that_cannot_be_read_is_refused(model):
    for text in ("root ::= (", "nothing", "root ::= missing"):
        with pytest.raises(ConfigError, match="grammar"):
            Sampler(model, GREEDY, 0, text)


def test_a_schema_becomes_a_grammar_or_is_refused():
    assert "root ::=" in grammar_of_schema('{"type": "integer"}')
    elsewhere = '{"$ref": "https://example.com/schema.json"}'
    for text in ("{", '{"type": "nonesuch"}', elsewhere):
        with pytest.raises(ConfigError, match="JSON schema"):
            grammar_of_schema(text)


@pytest.mark.parametrize(
    "schema",
    [
        '{"type": "string", "minLength": 1000000000}',
        '{"type": "array", "items": {}, "maxItems": 1000000000}',
        '{"type": "string", "pattern": "^((a{99}){99}){99}$"}',
        '{"enum": [' + ",".join("1" * 2000) + "]}",
        "[" * 100_000,
    ],
)
def test_a_schema_that_would_become_endless_is_refused_at_once(schema):
    with pytest.raises(ConfigError, match="JSON schema"):
        grammar_of_schema(schema)


def test_a_grammar_that_would_end_the_process_is_refused(model):
    deep = "root ::= " + "(" * 20_000 + '"a"' + ")" * 20_000
    long = "root ::= " + '"a" ' * 30_000
    for text, reason in ((deep, "20000 deep"), (long, "characters")):
        with pytest.raises(ConfigError, match=reason):
            Sampler(model, GREEDY, 0, text)
    brackets = "root ::= " + '"(" [(] ' * 2000 + "# " + "(" * 2000
    Sampler(model, GREEDY, 0, brackets).close()


class File:
    """A model whose metadata is given."""

    def __init__(self, **metadata):
        self.values = metadata

    def metadata(self, key):
        return self.values.get(key.removeprefix("general.sampling."))


def test_what_was_asked_for_counts_before_the_file_and_that_before_the_default():
    file: Any = File(temp="0.600000", top_k="20", penalty_repeat="1.05")
    found = settings_of_run(file, GenerationConfig(top_k=7))
    assert found == SamplerSettings(0.6, 7, 0.95, 0.05, 1.05, 0.0, 64)
    empty: Any = File()
    assert settings_of_run(empty, GenerationConfig()) == GREEDY
    assert settings_of_run(file, GenerationConfig(temperature=0)).temperature == 0


def test_nonsense_in_the_file_counts_as_absent():
    file: Any = File(
        temp="-1", top_k="many", top_p="nan", penalty_repeat="0", penalty_last_n="1e400"
    )
    assert settings_of_run(file, GenerationConfig()) == GREEDY


@pytest.mark.parametrize(
    "values",
    [
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"min_p": -0.1},
        {"repeat_penalty": 0.0},
        {"presence_penalty": float("inf")},
        {"repeat_last_n": -2},
        {"seed": -1},
    ],
)
def test_values_out_of_range_are_refused(values):
    with pytest.raises(ConfigError, match="must be"):
        GenerationConfig(**values)


def test_the_likeliest_token_is_numpys(model):
    """The chain reads the very logits that the context has."""
    with Context(model, n_ctx=64, n_threads=1) as context:
        context.decode_tokens(model.tokenize("What is it?"), 0)
        with Sampler(model, GREEDY, 0, "") as sampler:
            assert sampler.draw(context) == int(context.logits().argmax())


@pytest.mark.process
def test_the_answer_follows_the_options_and_tells_how_it_was_drawn():
    schema = json.dumps({"type": "object", "properties": {"n": {"type": "integer"}}})
    options = [*ARGUMENTS, "--no-cache", "--json", "--temp", "0.5", "--top-k", "3", "-j", schema]
    code, out, err = run("ask", str(VIDEO), "What?", *options, "-n", "40")
    assert code == 0, err
    answer = json.loads(out)
    assert answer["sampler"]["top_k"] == 3 and answer["sampler"]["temperature"] == 0.5
    assert answer["text"].startswith("{") and answer["config"]["generation"]["top_k"] == 3


@pytest.mark.process
def test_two_grammars_are_refused():
    code, _, err = run("ask", str(VIDEO), "What?", *ARGUMENTS, "--grammar", DIGITS, "-j", "{}")
    assert code == 2 and "one of --grammar" in err
