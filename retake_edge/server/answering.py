"""Answer a job from a loaded video: as many earlier turns as possible stay where they are."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace

from retake_edge.errors import MemoryBudgetError
from retake_edge.server.jobs import Done, Job, Piece
from retake_edge.server.pool import Loaded
from retake_edge.session.answer import Answer


def answer(job: Job, question: str, loaded: Loaded) -> Done | None:
    """Tell the job its answer piece by piece; return it whole, or None if the client left.

    Raises:
        MemoryBudgetError: the conversation does not fit.
    """
    waited_s = time.monotonic() - job.began_s
    session, conversation = loaded.session, loaded.conversation
    conversation.keep(_n_equal(conversation.turns, job.turns))
    n_cached = session.engine.n_cells
    for asked, text in job.turns[len(conversation.turns) :]:
        if job.is_gone:
            return None
        conversation.recall(asked, text)
    room = conversation.room(question)
    if room < 1:
        raise MemoryBudgetError(
            "The conversation leaves no room for an answer; begin a new one, or shorten it."
        )
    n_most = min(job.generation.max_tokens, room)
    session.draw_by(replace(job.generation, max_tokens=n_most))
    with closing(conversation.stream(question)) as stream:
        for piece in stream:
            if job.is_gone:
                return None
            if piece:
                job.tell(Piece(piece))
    found = conversation.turns[-1]
    n_prompt = session.engine.n_cells - found.n_tokens
    is_cut = found.n_tokens >= n_most
    return Done(found, n_prompt, n_cached, is_cut, waited_s, session.frame_weights)


def _n_equal(turns: Sequence[Answer], asked: Sequence[tuple[str, str]]) -> int:
    """Return the number of first turns that the cells and a request have in common."""
    n = 0
    for turn, (question, text) in zip(turns, asked, strict=False):
        if (turn.question, turn.text) != (question, text.strip()):
            break
        n += 1
    return n
