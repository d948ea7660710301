"""What every source is asked: one record a set as it is published, odd answers, random results."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from eval_fixtures.answers import odd_answers

LETTERS = "ABCDEFG"
QUESTION = "What does the man see?"
OPTIONS = ["a red car", "the dog", "two", "nothing at all"]
BELOW = "\n".join([QUESTION, *(f"({x}) {t}" for x, t in zip("ABCD", OPTIONS, strict=True))])
VIDEOMME = {
    **{"video_id": "001", "videoID": "fFjv93ACGo8", "question_id": "001-1", "duration": "short"},
    **{"domain": "Knowledge", "sub_category": "Geography", "task_type": "OCR Problems"},
    **{"question": QUESTION, "answer": "B"},
    "options": [f"{letter}. {text}." for letter, text in zip("ABCD", OPTIONS, strict=True)],
}
MLVU_JSON = {
    **{"video": "movie101_66.mp4", "duration": 480, "question": QUESTION},
    **{"candidates": OPTIONS, "answer": "the dog", "question_type": "plotQA"},
}
MLVU = {
    **{"video_name": "movie101_66.mp4", "task_type": "plotQA", "answer": "B", "question": BELOW}
}
LVBENCH = {
    **{"video_path": "Cm73ma6Ibcs.mp4", "uid": "7", "answer": "B", "question": BELOW},
    **{"question_type": ["reasoning", "entity recognition"], "time_reference": "00:15-00:19"},
}
LONGVIDEOBENCH = {
    **{"id": "86CxyhFV9MI_0", "video_path": "86CxyhFV9MI.mp4", "question": QUESTION},
    **{"duration_group": 15, "question_category": "S2E", "correct_choice": 1},
    **{f"option{n}": text for n, text in enumerate([*OPTIONS, "N/A"])},
}
RECORDS: dict[str, dict[str, Any]] = {
    **{"videomme": VIDEOMME, "mlvu": MLVU, "lvbench": LVBENCH, "longvideobench": LONGVIDEOBENCH}
}
MLVU_TYPES = ("anomaly_reco", "count", "ego", "needle", "order", "plotQA", "topic_reasoning")
LVBENCH_TYPES = (
    *("entity recognition", "event understanding", "key information retrieval"),
    *("temporal grounding", "reasoning", "summarization"),
)

Facts = Callable[[dict[str, Any]], dict[str, Any]]
Judge = Callable[[list[tuple[str, str]]], list[bool]]
"""Whether each answer is counted as right where the right letter is the one beside it."""


def entry(record: dict[str, Any], prompt: str, judge: Judge, system: str = "") -> dict[str, Any]:
    """A set's part of a fixture; `answers`: each with all letters it would be right for."""
    texts = odd_answers()
    pairs = [(text, letter) for text in texts for letter in LETTERS]
    found: dict[str, list[str]] = {text: [] for text in texts}
    for (text, letter), is_right in zip(pairs, judge(pairs), strict=True):
        found[text] += letter if is_right else ""
    return {
        **{"record": record, "prompt": prompt, "system": system},
        "answers": [[text, letters] for text, letters in found.items()],
    }


def outcomes(seed: int = 0) -> list[dict[str, Any]]:
    """Random results of 210 questions about 42 videos; `said`: a right or a wrong letter."""
    rng = random.Random(seed)
    rows = []
    for n in range(210):
        is_right = rng.random() < 0.4 + 0.3 * (n // 5 % 2)
        row = {"id": str(n), "video": f"v{n // 5}", "is_right": is_right}
        row |= {"answer": "A", "said": "A" if is_right else "B"}
        row |= {"mlvu": MLVU_TYPES[(n * n + n // 7) % 7]}
        row |= {"duration": ("short", "medium", "long")[min(n // 50, 2)]}
        row |= {"group": (15, 60, 600, 3600)[n // 5 % 4]}
        rows.append(row | {"types": rng.sample(LVBENCH_TYPES, 1 + n % 2)})
    return rows
