"""A user's own questions as items that can be scored."""

from __future__ import annotations

from retake_edge.evaluate.jobs import Job
from retake_edge.evaluate.letters import first_letter
from retake_edge.evaluate.sets import LETTERS, Item
from retake_edge.evaluate.words import is_right, option_in_words

WORDS = "A"
"""The letter that stands for the answer of a question without options."""


def item_of(job: Job) -> Item:
    """Return a job as an item; without options its answer is the only one."""
    options = job.options or ((job.answer,) if job.answer else ())
    answer = job.answer if job.options else (WORDS if job.answer else "")
    return Item(job.key, job.video, job.question, job.question, options, answer)


def named(item: Item, text: str) -> tuple[str, ...]:
    """Return the option that an answer names: by its letter, else by its words."""
    if not item.options:
        return ()
    if len(item.options) == 1:
        return (WORDS,) if is_right(item.options[0], text) else ()
    letter = first_letter(text, LETTERS[: len(item.options)])
    if not letter and (index := option_in_words(item.options, text)) is not None:
        letter = LETTERS[index]
    return (letter,) if letter else ()
