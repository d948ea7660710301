"""Conversations: turns build on each other, and leave nothing behind."""

import numpy as np
import pytest
from session_support import QUESTION, opened, settings

from retake_edge.errors import ConfigError, MemoryBudgetError
from retake_edge.llama.capture import cells_used
from retake_edge.session.conversation import Conversation

OTHER = "And who was there before?"


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    with opened(
        tmp_path_factory.mktemp("chat"), settings(type_kv="f32"), n_question_reserve=600
    ) as made:
        yield made


@pytest.fixture
def conversation(session):
    with Conversation(session) as begun:
        yield begun


def test_the_first_turn_is_the_answer_to_the_question_alone(session, conversation):
    alone = session.ask(QUESTION)
    assert conversation.ask(QUESTION).text == alone.text


def test_within_a_conversation_the_session_itself_is_not_asked(session, conversation):
    conversation.ask(QUESTION)
    with pytest.raises(ConfigError, match="conversation"):
        session.ask(QUESTION)
    assert conversation.ask(OTHER).n_tokens > 0


def test_a_later_turn_sees_the_turns_before_it(session, conversation):
    first = conversation.ask(QUESTION)
    second = conversation.ask(OTHER)
    assert [turn.question for turn in conversation.turns] == [QUESTION, OTHER]
    conversation.reset()
    assert conversation.ask(OTHER).text != second.text
    # The same history in one go, answered by the greatest logit, is the same answer.
    conversation.reset()
    prompt, engine = session.manifest.prompt, session.engine
    asked, then = prompt.question(QUESTION), prompt.next_question(OTHER)
    said = list(engine.generate(asked))
    following = engine.model.tokenize(asked) + said + engine.model.tokenize(then)
    answered, position, mark = [], engine.next_position, engine.mark()
    for _ in range(second.n_tokens):
        engine.context.decode_tokens(following, position)
        position += len(following)
        following = [int(engine.context.logits().argmax())]
        answered += following
    engine.rewind(mark)
    assert len(said) == first.n_tokens
    pieces = b"".join(map(engine.model.piece, answered))
    assert pieces.decode("utf-8", "replace").strip() == second.text


def test_a_reset_leaves_the_video_alone_and_nothing_else(session, conversation):
    first = conversation.ask(QUESTION)
    conversation.ask(OTHER)
    assert cells_used(session.engine.context) > session.n_cells
    conversation.reset()
    assert cells_used(session.engine.context) == session.n_cells
    assert conversation.ask(QUESTION).text == first.text


def test_a_turn_that_is_stopped_is_forgotten(session, conversation):
    conversation.ask(QUESTION)
    before = cells_used(session.engine.context)
    expected = conversation.ask(OTHER).text
    conversation.reset()
    conversation.ask(QUESTION)
    stream = conversation.stream("Tell me everything.")
    next(stream)
    stream.close()
    assert cells_used(session.engine.context) == before
    assert len(conversation.turns) == 1
    assert conversation.ask(OTHER).text == expected


def test_every_turn_says_where_it_looked(session, conversation):
    looked = []
    for question in (QUESTION, OTHER):
        conversation.ask(question)
        looked.append(session.frame_weights)
    assert [len(weights) for weights in looked] == [session.video.n_grid_frames] * 2
    assert [weights.sum() for weights in looked] == pytest.approx([1, 1], abs=1e-3)
    assert np.abs(looked[0] - looked[1]).max() > 1e-3, "each turn looks anew"


def test_a_conversation_that_fills_the_cells_is_refused_and_can_start_anew(session, conversation):
    with pytest.raises(MemoryBudgetError, match="conversation has left"):
        for _ in range(100):
            conversation.ask(QUESTION)
    n_turns = len(conversation.turns)
    assert n_turns > 2
    conversation.reset()
    conversation.ask(QUESTION)
    assert len(conversation.turns) == 1
