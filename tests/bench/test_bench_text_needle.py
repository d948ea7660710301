"""Facts in long text, through a real language model with random weights."""

from pathlib import Path

import pytest

from retake_edge.bench.text.documents import make_document
from retake_edge.bench.text.needle import TextNeedleSettings, run_text_needle
from retake_edge.bench.text.report import text_results, text_table
from retake_edge.bench.variants import parse_variants
from retake_edge.config import RuntimeConfig
from retake_edge.errors import ConfigError
from retake_edge.llama.model import Model

MODEL = Path(__file__).parents[1] / "golden" / "tiny-f32.gguf"
SMALL = TextNeedleSettings(
    n_documents=2, n_sentences=4, n_facts=2, chunk_tokens=64, keep_ratios=(0.5,)
)


def test_a_document_holds_each_fact_once_and_no_filler_twice():
    document = make_document(seed=3, n_sentences=64, n_facts=4)
    assert all(document.text.count(fact.sentence) == 1 for fact in document.facts)
    assert all(fact.answer in fact.sentence for fact in document.facts)
    sentences = document.text.split(". ")
    assert len(set(sentences)) == len(sentences) == 68


def test_facts_stand_where_their_depth_says():
    document = make_document(seed=5, n_sentences=100, n_facts=5)
    for i, fact in enumerate(document.facts):
        assert i / 5 <= fact.depth < (i + 1) / 5
        place = document.text.index(fact.sentence) / len(document.text)
        assert place == pytest.approx(fact.depth, abs=0.05)


def test_the_same_seed_makes_the_same_document():
    assert make_document(7, 20, 2) == make_document(7, 20, 2)
    assert make_document(7, 20, 2) != make_document(8, 20, 2)


def test_facts_may_tell_words_which_leave_the_codes_as_they_were():
    document = make_document(3, 64, 4, "word")
    assert len({fact.answer for fact in document.facts}) == 4
    for fact in document.facts:
        assert fact.answer.isalpha() and document.text.count(fact.answer) == 1
        assert fact.question.startswith("What is the secret word of")
    with pytest.raises(ConfigError, match="--answers is 'rhyme'"):
        TextNeedleSettings(answers="rhyme")


@pytest.fixture(scope="module")
def result():
    with Model(MODEL) as model:
        variants = parse_variants("pivotkv,coverage,random")
        yield run_text_needle(model, variants, SMALL, RuntimeConfig(n_threads=1))


def test_every_fact_is_asked_under_every_policy(result):
    asked = [(o.policy, o.keep_ratio) for o in result.outcomes]
    runs = [("none", 1.0), ("pivotkv", 0.5), ("coverage", 0.5), ("random", 0.5)]
    assert sorted(asked) == sorted(runs * 4)


def test_compression_changes_what_the_model_says(result):
    texts = {}
    for outcome in result.outcomes:
        texts.setdefault(outcome.policy, []).append(outcome.text)
    assert len({tuple(said) for said in texts.values()}) > 1


def test_the_table_has_a_row_for_each_policy(result):
    results = text_results(result)
    lines = text_table(results).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == [
        "| none (full cache)",
        "| pivotkv",
        "| coverage",
        "| random",
    ]
    assert all(len(cell["outcomes"]) == cell["n"] == 4 for cell in results["cells"])


def test_text_has_no_frames_to_drop():
    with Model(MODEL) as model, pytest.raises(ConfigError, match="uniform-frames"):
        run_text_needle(model, parse_variants("uniform-frames"), SMALL, RuntimeConfig())


def test_more_facts_than_sentences_are_refused():
    with pytest.raises(ConfigError, match="--facts is 5"):
        TextNeedleSettings(n_sentences=4, n_facts=5)
