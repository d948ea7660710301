"""Read the option that an answer names, by the rules of each source; '' where it names none.

The rules are those of lmms-eval 0.7.3 (`extract_mcq_answer`, and LongVideoBench's own), VLMEvalKit
(`extract_characters_regex`, `can_infer`) and ReTaKe's `trimm_results`, written anew. Where a source
would draw an option at random, or ask a judge model, the answer counts as naming none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

_PREFIXES = (
    "The best answer is",
    "The correct answer is",
    "The answer is",
    "The answer",
    "The best option is",
    "The correct option is",
    "Best answer:",
    "Best option:",
)
# VLMEvalKit's list lacks two commas, so that two pairs of phrases stand as one each.
_KIT_PREFIXES = (
    *_PREFIXES[:4],
    "The best option isThe correct option is",
    "Best answer:Best option:",
    "Answer:",
    "Option:",
)

_PHRASES = (
    *(
        f"{the}{noun} is"
        for noun in (
            *("answer", "correct answer", "best answer", "correct option", "best option"),
            *("choice", "correct choice"),
        )
        for the in ("the ", "")
    ),
    *("i choose", "i select", "i pick", "my answer is", "my choice is"),
    *("옵션", "정답은", "답은", "답:", "答案是", "答案为", "选", "答えは"),
)
_STRIPPED = ",.!?;:'\""


def first_letter(text: str, letters: str, *, kit: bool = False) -> str:
    """Return the first of `letters` after the usual phrases are taken out."""
    text = text.strip()
    for prefix in _KIT_PREFIXES if kit else _PREFIXES:
        text = text.replace(prefix, "")
    found = re.search(f"[{letters}]", text)
    return found[0] if found else ""


def ranked_letter(text: str, letters: Sequence[str] = "ABCD") -> str:
    """Return the letter in the surest form: alone at an end, after a phrase, in brackets...

    Of two in the same form the later one counts. Source: lmms-eval's `extract_mcq_answer`.
    """
    text = text.strip()
    if not text:
        return ""
    for mark in _STRIPPED:
        text = text.strip(mark)
    text = f" {text} "
    found = [entry for letter in letters for entry in _forms(text, letter)]
    found = found or [(0, text.rfind(c), c) for c in letters if c in text]
    # Of equals the first letter wins, as in a stable sort.
    return max(found, key=lambda entry: entry[:2])[2] if found else ""


def _forms(text: str, letter: str) -> list[tuple[int, int, str]]:
    """(rank, place, letter) for every form in which the letter stands in the text."""
    forms = ((6, f"({letter})"), (5, f"{letter}."), (4, f"{letter}:"), (3, f"{letter})"))
    found = [(rank, text.rfind(form)) for rank, form in (*forms, (2, f"{letter} "))]
    lower = text.lower()
    for phrase in _PHRASES:
        begin = lower.find(phrase)
        if begin >= 0:
            found.append((7, text.find(letter, begin + len(phrase))))
    bare = text.strip()
    is_alone = len(bare) == 1
    if bare.startswith(letter) and (is_alone or not bare[1].isalpha()):
        found.append((10, 0))
    if bare.endswith(letter) and (is_alone or not bare[-2].isalpha()):
        found.append((9, len(text) - 1))
    return [(rank, place, letter) for rank, place in found if place >= 0]


_REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)


def inferred_letter(text: str, options: Mapping[str, str]) -> str:
    """Return the one letter near the end, or the one option whose text is in the answer.

    Source: VLMEvalKit's `can_infer`, without a judge model.
    """
    if any(refusal in text for refusal in _REFUSALS):
        return ""
    words = re.sub(r"[.()\[\],:;!*#{}]", " ", text).split()
    named = [letter for letter in options if letter in words]
    if len(named) == 1 and words.index(named[0]) > len(words) - 5:
        return named[0]
    if not named and "Z" in words:
        return ""
    lower = text.lower()
    if len(lower) > 2 * sum(len(option) for option in options.values()):
        return ""
    held = [letter for letter, option in options.items() if option.lower() in lower]
    return held[0] if len(held) == 1 else ""
