"""A video read for one question: what is kept, what it may be asked, and how it is told apart."""

import json
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from session_support import (
    ARGUMENTS,
    MODEL,
    QUESTION,
    VIDEO,
    opened,
    question_logits,
    run,
    settings,
)
from toy_pairs import write_pair

from retake_edge.compress import policies
from retake_edge.config import (
    GUIDED_POLICIES,
    POLICIES,
    CompressionConfig,
    DPSelectConfig,
)
from retake_edge.errors import ConfigError
from retake_edge.session.conversation import Conversation
from retake_edge.session.open import open_session
from retake_edge.session.others import notes_of_others
from retake_edge.session.store.folder import SessionStore

OTHER = "And who was there before?"


def test_policies_that_score_are_those_that_a_question_can_guide():
    assert {name for name, one in policies.POLICIES.items() if one.needs_scores} == set(
        GUIDED_POLICIES
    )


@pytest.mark.parametrize("policy", sorted(set(POLICIES) - set(GUIDED_POLICIES)))
def test_other_policies_are_refused_in_a_sentence(policy):
    with pytest.raises(ConfigError, match=f"--policy {policy} .*--guided"):
        CompressionConfig(policy=policy, guide=QUESTION)


def test_an_empty_question_guides_nothing():
    with pytest.raises(ConfigError, match="empty"):
        CompressionConfig(guide="  ")


@pytest.mark.parametrize("policy", GUIDED_POLICIES)
@pytest.mark.parametrize("positions", ["keep", "reforge"])
@pytest.mark.parametrize("ratio", [1.0, 0.5])
def test_a_reading_for_a_question_keeps_other_cells_and_as_many(tmp_path, policy, positions, ratio):
    config = replace(
        settings(policy=policy, positions=positions, pivot="none"),
        dpselect=DPSelectConfig(ratio=ratio),
    )
    with opened(tmp_path, config) as general:
        cells, n_cells = general.video_map.cell_frames, general.n_cells
    with opened(tmp_path, config, guide=QUESTION) as guided:
        assert not guided.saved.is_reused and guided.video.guide == QUESTION
        assert guided.n_cells == n_cells
        assert not np.array_equal(guided.video_map.cell_frames, cells)
        first, logits = guided.ask(QUESTION), question_logits(guided)
    with opened(tmp_path, config, guide=QUESTION) as again:
        assert again.saved.is_reused and again.video.guide == QUESTION
        np.testing.assert_array_equal(question_logits(again), logits)
        assert again.ask(QUESTION).text == first.text


@pytest.mark.parametrize("kind", ["plain", "hybrid", "convolution"])
@pytest.mark.parametrize("positions", ["keep", "reforge"])
def test_the_question_leaves_nothing_behind_but_the_choice(tmp_path, monkeypatch, kind, positions):
    model = MODEL if kind == "plain" else write_pair(tmp_path, kind)
    config, choices = settings(positions=positions), []
    select = policies.select_cells

    def noted(*arguments, **more):
        choices.append(select(*arguments, **more))
        return choices[-1]

    monkeypatch.setattr(policies, "select_cells", noted)
    with opened(tmp_path, config, model=model, guide=QUESTION, use_cache=False) as guided:
        logits, n_positions = question_logits(guided), guided.engine.next_position
    made = iter(choices)
    monkeypatch.setattr(policies, "select_cells", lambda *_, **__: next(made))
    with opened(tmp_path, config, model=model, use_cache=False) as general:
        assert general.engine.next_position == n_positions
        np.testing.assert_array_equal(question_logits(general), logits)
    assert len(choices) == 6 and next(made, None) is None


def test_it_answers_no_other_question(tmp_path):
    with opened(tmp_path, guide=QUESTION) as session:
        with pytest.raises(ConfigError, match=QUESTION.rstrip("?")):
            session.ask(OTHER)
        with Conversation(session) as talk:
            talk.ask(QUESTION)
            with pytest.raises(ConfigError, match="one question"):
                talk.ask(OTHER)
        key = session.saved.key
    with open_session(key, settings(), cache_dir=tmp_path) as session:
        assert session.ask(QUESTION).text is not None
        with pytest.raises(ConfigError, match="one question"):
            session.ask(OTHER)


def test_each_question_has_a_session_and_the_general_one_stays(tmp_path):
    keys = []
    for guide in (None, QUESTION, OTHER):
        with opened(tmp_path, guide=guide) as session:
            assert not session.saved.is_reused
            keys.append(session.saved.key)
    assert len(set(keys)) == 3
    with opened(tmp_path) as session:
        assert session.saved.is_reused and session.video.guide == ""
        assert session.ask(OTHER).text is not None


def test_where_nothing_is_left_out_the_general_session_serves(tmp_path):
    config = settings(keep_ratio=1.0)
    with opened(tmp_path, config, guide=QUESTION) as session:
        key = session.saved.key
        assert session.video.guide == ""
    with opened(tmp_path, config) as session:
        assert session.saved.is_reused and session.saved.key == key
    with open_session(key, config, cache_dir=tmp_path) as session:
        assert session.ask(OTHER).text is not None


def test_a_context_just_large_enough_holds_the_question_too(tmp_path):
    with opened(tmp_path, settings(keep_ratio=0.9), guide=QUESTION, use_cache=False) as session:
        n_ctx = session.video.n_ctx
    config = settings(keep_ratio=0.9, n_ctx=n_ctx)
    with opened(tmp_path, config, guide=QUESTION, use_cache=False) as session:
        assert session.ask(QUESTION).text is not None


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """A cache folder after one general question and two guided ones, and what was printed."""
    folder = tmp_path_factory.mktemp("asked")
    options = [*ARGUMENTS, "--cache-dir", str(folder), "--json"]
    assert run("ask", str(VIDEO), QUESTION, *options)[0] == 0
    code, out, err = run("ask", str(VIDEO), "-q", QUESTION, "-q", OTHER, "--guided", *options)
    assert code == 0, err
    return folder, json.loads(out), err


@pytest.mark.process
def test_ask_guided_reads_anew_for_each_question(asked):
    folder, answers, err = asked
    assert [answer["video"]["guide"] for answer in answers] == [QUESTION, OTHER]
    assert [answer["session"]["is_reused"] for answer in answers] == [False, False]
    assert "read for any question" in err  # the note of the general session
    code, out, err = run(
        "ask", str(VIDEO), QUESTION, *ARGUMENTS, "--cache-dir", str(folder), "--json"
    )
    assert code == 0, err
    answer = json.loads(out)
    assert answer["session"]["is_reused"] and answer["video"]["guide"] == ""


@pytest.mark.process
def test_the_list_says_what_a_video_was_read_for(asked):
    code, out, _ = run("sessions", "list", "--cache-dir", str(asked[0]))
    lines = out.splitlines()
    assert code == 0 and lines[0].endswith("FOR") and len(lines) == 4
    assert sum(line.endswith(QUESTION) for line in lines) == 1
    assert sum(line.endswith(OTHER) for line in lines) == 1


@pytest.mark.process
def test_a_chat_refuses_a_reading_for_one_question(asked):
    folder = asked[0]
    sessions = SessionStore(folder).sessions()
    key = next(s.key for s in sessions if s.facts["kept"].get("guide") == OTHER)
    code, _, err = run("chat", key, "--cache-dir", str(folder), stdin=subprocess.DEVNULL)
    assert code == 2 and "one question" in err and "Traceback" not in err
    code, _, err = run("ask", key, QUESTION, "--cache-dir", str(folder))
    assert code == 2 and OTHER in err
    code, _, err = run("ask", key, OTHER, "--guided", "--cache-dir", str(folder))
    assert code == 2 and "--guided was decided" in err
    code, out, err = run("ask", key, OTHER, "--cache-dir", str(folder), "-n", "6")
    assert code == 0 and out, err


@pytest.mark.process
def test_what_changes_nothing_is_told(tmp_path):
    options = [*ARGUMENTS, "--cache-dir", str(tmp_path), "--keep-ratio", "1"]
    code, _, err = run("ask", str(VIDEO), QUESTION, "--guided", *options)
    assert code == 0 and "warning: --guided has no effect: all is kept" in err
    code, _, err = run("ask", str(VIDEO), QUESTION, "--guided", *options, "--policy", "coverage")
    assert code == 2 and "--policy coverage" in err and "Traceback" not in err


@pytest.mark.process
def test_a_reading_for_another_question_is_not_offered(asked):
    store = SessionStore(asked[0])
    by_guide = {one.facts["kept"].get("guide", ""): one for one in store.sessions()}
    ours = by_guide[""]
    assert not list(notes_of_others(store, ours.key, ours.facts))
    ours = by_guide[OTHER]
    (note,) = notes_of_others(store, ours.key, ours.facts)
    assert "any question" in note and by_guide[""].key[:8] in note
