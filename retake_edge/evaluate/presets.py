"""Prompts and rules of each evaluation, as its own source has them.

`retake`: the paper's code. `lmms-eval`: release 0.7.3, its `default` prompts. `vlmevalkit`: release
0.0.20 of ms-vlmeval, exact matching, without a judge model. `plain`: the question alone, for models
that answer in words; the option that the answer opens with counts.

All prompts stand after the video here, also those parts that VLMEvalKit puts before it: the video
is read before any question is known.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from retake_edge.errors import ConfigError
from retake_edge.evaluate.letters import first_letter, inferred_letter, ranked_letter
from retake_edge.evaluate.sets import LETTERS, Item
from retake_edge.evaluate.words import option_in_words

Prompt = Callable[[Item], str]
Named = Callable[[Item, str], tuple[str, ...]]


@dataclass(frozen=True)
class Preset:
    """One source's way of asking a set's questions.

    `named`: the letters that an answer names, () for none; two where the source gives an answer two
    chances. `max_tokens`: the longest answer. `system`: what the model is told before the video.
    """

    prompt: Prompt
    named: Named
    max_tokens: int
    system: str = ""


def preset(name: str, set_name: str) -> Preset:
    """Return how a preset asks the questions of a set.

    Raises:
        ConfigError: there is no such preset, or it does not know the set.
    """
    if name not in PRESETS:
        raise ConfigError(f"There is no preset {name!r}; there are {', '.join(PRESETS)}.")
    if set_name not in PRESETS[name]:
        raise ConfigError(
            f"{name} does not know {set_name}; choose --preset {' or '.join(presets_of(set_name))}."
        )
    return PRESETS[name][set_name]


def presets_of(set_name: str) -> list[str]:
    """Return the presets that know a set."""
    return [name for name, sets in PRESETS.items() if set_name in sets]


def _options(item: Item, form: str) -> str:
    pairs = zip(LETTERS, item.options, strict=False)
    return "\n".join(form.format(letter, option) for letter, option in pairs)


_DIRECTLY = "Answer with the option's letter from the given choices directly."


def _retake(item: Item) -> str:
    return f"{item.question}\nOptions:\n{_options(item, '{}. {}')}\n{_DIRECTLY}"


def _retake_videomme(item: Item) -> str:
    return f"{item.question}\nOptions:{item.published.removeprefix(item.question)}\n{_DIRECTLY}"


def _retake_mlvu(item: Item) -> str:
    return f"{item.question}\nOptions:\n{_options(item, '{}. {}.')}\n{_DIRECTLY}"


def _retake_lvbench(item: Item) -> str:
    text = item.published.replace("\n(A)", "\nOptions:\n(A)")
    text = re.sub(r"\n\(([A-D])\)", r"\n\1.", text)
    return f"{text}.\n{_DIRECTLY}"


def _lmms_videomme(item: Item) -> str:
    return (
        "Select the best answer to the following multiple-choice question based on the video and "
        "the subtitles. Respond with only the letter (A, B, C, or D) of the correct option.\n"
        f"{item.published}\n\nAnswer with the option's letter from the given choices directly."
    )


def _lmms_mlvu(item: Item) -> str:
    return f"{item.published}\nOnly give the best option.\nBest option: ("


def _lmms_lvbench(item: Item) -> str:
    return f"{item.published}\nAnswer the question with the option letter"


def _lmms_longvideobench(item: Item) -> str:
    return f"{item.published}\n{_DIRECTLY}\n"


def _kit_videomme(item: Item) -> str:
    return (
        "\nThese are the frames of a video. Select the best answer to the following "
        "multiple-choice question based on the video. Respond with only the letter (A, B, C, or D) "
        f"of the correct option.\nQuestion: {item.published}\nAnswer: "
    )


def _kit_mlvu(item: Item) -> str:
    asked = f"Question: {item.question}\nOptions:\n{_options(item, '({}) {}')}"
    return f"{asked.rstrip()}\nOnly give the best option."


def _kit_longvideobench(item: Item) -> str:
    return f"{item.published}\n{_DIRECTLY}"


def _question(item: Item) -> str:
    return item.question


def _one(letter: str) -> tuple[str, ...]:
    return (letter,) if letter else ()


def _first(letters: str, *, kit: bool = False) -> Named:
    return lambda item, text: _one(first_letter(text, letters, kit=kit))


def _ranked(item: Item, text: str) -> tuple[str, ...]:
    return _one(ranked_letter(text))


def _kit_mlvu_named(item: Item, text: str) -> tuple[str, ...]:
    """The letter before the first bracket, and the one that can be inferred."""
    end = text.find(")")
    bracketed = text if end < 0 else text[end - 1 : end] if end else ""
    options = dict(zip(LETTERS, item.options, strict=False))
    named = (bracketed if bracketed in options else "", inferred_letter(text, options))
    return tuple(dict.fromkeys(letter for letter in named if letter))


def _in_words(item: Item, text: str) -> tuple[str, ...]:
    index = option_in_words(item.options, text)
    return () if index is None else (LETTERS[index],)


_MLVU_SYSTEM = (
    "Carefully watch this video and pay attention to every detail. Based on your observations, "
    "select the best option that accurately addresses the question."
)
_PLAIN = Preset(_question, _in_words, 32)

PRESETS: dict[str, dict[str, Preset]] = {
    "retake": {
        "videomme": Preset(_retake_videomme, _first("ABCDEFG"), 128),
        "mlvu": Preset(_retake_mlvu, _first("ABCDEFG"), 128),
        "lvbench": Preset(_retake_lvbench, _first("ABCDEFG"), 128),
        "longvideobench": Preset(_retake, _first("ABCDEFG"), 128),
        "questions": Preset(_retake, _first(LETTERS), 128),
    },
    "lmms-eval": {
        "videomme": Preset(_lmms_videomme, _ranked, 16),
        "mlvu": Preset(_lmms_mlvu, _ranked, 16),
        "lvbench": Preset(_lmms_lvbench, _ranked, 16),
        "longvideobench": Preset(_lmms_longvideobench, _first("ABCDE"), 32),
    },
    "vlmevalkit": {
        "videomme": Preset(_kit_videomme, _first("ABCD", kit=True), 128),
        "mlvu": Preset(_kit_mlvu, _kit_mlvu_named, 128, _MLVU_SYSTEM),
        "longvideobench": Preset(_kit_longvideobench, _first("ABCDE", kit=True), 128),
    },
    "plain": dict.fromkeys(("videomme", "mlvu", "lvbench", "longvideobench", "questions"), _PLAIN),
}
"""By preset and set; the paper's code has no LongVideoBench, which is worded as its other sets."""
