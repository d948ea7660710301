"""Long plain documents with facts hidden in them, made from a seed.

The filler is everyday sentences put together at random, no two alike; the facts are four-digit
codes of cities, or words, so that a right answer can neither be guessed nor known beforehand. A
code looks like nothing else in the document; a word looks like all of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


def _list(text: str, between: str = ",") -> tuple[str, ...]:
    return tuple(text.split(between))


_CITIES = _list(
    "Oslo Lima Cairo Paris Delhi Tokyo Quito Dublin Prague Vienna Athens Havana Lisbon Warsaw "
    "Nairobi Madrid Berlin Geneva Boston Sydney",
    " ",
)
_WORDS = _list(
    "lantern anchor pepper violin compass feather marble saddle ribbon candle hammer lemon mirror "
    "rocket tiger walnut velvet barrel pirate dragon",
    " ",
)
ANSWERS = ("code", "word")
_WHEN = _list(
    "In the morning,Late at night,On Sunday,Before lunch,After the rain,In early spring,"
    "Every now and then,On the way home,During the break,That afternoon"
)
_WHO = _list(
    "the old baker,my neighbour,a young teacher,the bus driver,her cousin,the tall gardener,"
    "a quiet student,the shop owner,his grandmother,the new doctor,a tired nurse,the painter,"
    "our postman,the librarian,a friendly farmer,the carpenter"
)
_DID = _list(
    "fixed the wooden chair,read a short story,watered the tomatoes,counted the wet umbrellas,"
    "cooked a pot of soup,looked for a lost glove,painted the kitchen door,listened to the radio,"
    "wrote a long letter,carried two heavy boxes,fed the grey cat,repaired the bicycle,"
    "bought fresh bread,watched the slow river,cleaned the big window,baked an apple cake,"
    "planted a small tree,told a funny joke,folded the clean towels,played the piano"
)
_WHERE = _list(
    "near the station,behind the school,in the empty hall,by the lake,at the corner shop,"
    "under the bridge,in the back garden,on the top floor,next to the museum,close to the market,"
    "beside the church,in the warm kitchen,at the harbour,along the narrow street,on the terrace,"
    "in front of the bank"
)


@dataclass(frozen=True)
class Fact:
    """A hidden sentence with its question and answer; `depth` in [0, 1] along the document."""

    sentence: str
    question: str
    answer: str
    depth: float


@dataclass(frozen=True)
class Document:
    """Filler with facts in it."""

    text: str
    facts: tuple[Fact, ...]


def make_document(seed: int, n_sentences: int, n_facts: int, answers: str = "code") -> Document:
    """Make a document of `n_sentences` filler sentences, and the facts in equal parts of it.

    `answers`: one of ANSWERS, what the facts tell.

    Raises:
        ValueError: there are more facts than sentences or cities, or no such answers.
    """
    if answers not in ANSWERS:
        raise ValueError(f"no answers {answers!r}")
    if not 0 <= n_facts <= min(n_sentences, len(_CITIES)):
        raise ValueError(f"{n_facts} facts do not fit {n_sentences} sentences")
    rng = np.random.default_rng((seed, 7421))
    sentences = _filler(rng, n_sentences)
    cities = rng.permutation(_CITIES)[:n_facts]
    words: list[str] = []
    if answers == "word":
        words = [str(word) for word in rng.permutation(_WORDS)[:n_facts]]
    facts = []
    for i, city in enumerate(cities):
        place = int((i + rng.random()) * n_sentences / n_facts)
        answer = words[i] if words else str(rng.integers(1000, 10000))
        fact = Fact(
            f"The secret {answers} of {city} is {answer}.",
            f"What is the secret {answers} of {city}?",
            answer,
            place / n_sentences,
        )
        facts.append(fact)
        sentences[place] = f"{sentences[place]} {fact.sentence}"
    return Document(" ".join(sentences), tuple(facts))


def _filler(rng: np.random.Generator, n: int) -> list[str]:
    """Return n different sentences."""
    found: dict[str, None] = {}
    while len(found) < n:
        when, who, did, where = (str(rng.choice(part)) for part in (_WHEN, _WHO, _DID, _WHERE))
        found[f"{when} {who} {did} {where}."] = None
    return list(found)
