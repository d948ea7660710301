"""A conversation about a video: earlier turns stay in the KV cache, and are never decoded again."""

from __future__ import annotations

from collections.abc import Generator
from functools import partial

from retake_edge.engine.trained_context import trained_positions
from retake_edge.session.answer import Answer
from retake_edge.session.session import Session


class Conversation:
    """Turns that build on each other, over one session.

    While there are turns, the session's own `ask` is refused; leaving the block resets.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self.turns: list[Answer] = []
        self._position = session.engine.next_position
        self._marks = [(self._position, session.engine.mark())]  # where each turn begins

    def __enter__(self) -> Conversation:
        return self

    def __exit__(self, *_: object) -> None:
        self.reset()

    def ask(self, question: str) -> Answer:
        """Answer the next question.

        Raises:
            MemoryBudgetError: the conversation fills the cells; `reset` makes room.
        """
        for _ in self.stream(question):
            pass
        return self.turns[-1]

    def recall(self, question: str, text: str) -> Answer:
        """Take up a turn of an earlier conversation: a question, and the answer it got then.

        Raises:
            MemoryBudgetError: the conversation fills the cells.
        """
        known = self._session.engine.model.tokenize(text)
        for _ in self.stream(question, known):
            pass
        return self.turns[-1]

    def stream(self, question: str, known: list[int] | None = None) -> Generator[str, None, None]:
        """Yield the answer as it is generated; a turn that is not read to its end is forgotten.

        `known`: the answer's tokens, if it was given before.

        Raises:
            MemoryBudgetError: the conversation fills the cells; `reset` makes room.
        """
        session, engine = self._session, self._session.engine
        question = session.checked(question)
        text = self._text(question)
        attention = session.video_attention()
        position, mark = self._position, engine.mark(self._position)
        tokens = engine.reply(text, position, attention, known)
        pieces = session.collect(question, tokens, attention)
        if known is None:
            forget = partial(engine.rewind, mark)
            pieces = session.closely(question, text, pieces, position, forget)
        yield from pieces
        answer = session.last_answer()
        if known is None and answer.was_looked_again:
            # What stays of the turn is its text: the frames of the second look are gone.
            for _ in engine.reply(text, position, known=session.answer_tokens):
                pass
        self.turns.append(answer)
        self._position += len(engine.model.tokenize(text)) + answer.n_tokens
        self._marks.append((self._position, engine.mark(self._position)))

    def room(self, question: str) -> int:
        """Return how many tokens an answer to `question` can have: by cells, and by positions."""
        engine = self._session.engine
        n_cells = engine.context.n_ctx - engine.n_cells
        n_positions = trained_positions(engine.model) - self._position
        return min(n_cells, n_positions) - len(engine.model.tokenize(self._text(question)))

    def _text(self, question: str) -> str:
        prompt = self._session.manifest.prompt
        return prompt.next_question(question) if self.turns else prompt.question(question)

    def keep(self, n_turns: int) -> None:
        """Forget all turns but the first `n_turns`, whose cells stay."""
        if n_turns >= len(self.turns):
            return
        self._position, mark = self._marks[n_turns]
        self._session.engine.rewind(mark)
        del self.turns[n_turns:], self._marks[n_turns + 1 :]

    def reset(self) -> None:
        """Forget all turns."""
        self.keep(0)
