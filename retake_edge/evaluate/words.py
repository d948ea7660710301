"""Read the option that an answer in words means: the one it opens with, or the nearest time."""

from __future__ import annotations

import re
from collections.abc import Sequence

from retake_edge.bench.scenes.questions import Question, grade, parse_clock

_CLOCK = re.compile(r"\d+:[0-5]\d(:[0-5]\d)?")


def is_right(answer: str, text: str) -> bool:
    """Return whether a text gives an answer: its leading words, or its time within 2 s."""
    return grade(Question("", "", answer, accepts="clock" if _is_clock(answer) else "words"), text)


def option_in_words(options: Sequence[str], text: str) -> int | None:
    """Return the option that a text gives; the longest, or the nearest time, of several."""
    given = [n for n, option in enumerate(options) if is_right(option, text)]
    return max(given, key=lambda n: _closeness(options[n], text), default=None)


def _closeness(option: str, text: str) -> float:
    if not _is_clock(option):
        return len(option)
    wanted, said = parse_clock(option), parse_clock(text)
    return -abs((wanted or 0.0) - (said or 0.0))


def _is_clock(text: str) -> bool:
    return _CLOCK.fullmatch(text.strip()) is not None
