"""Write tests/evaluate/data/PRESET.json with the sources' own prompts, extractions and scores.

    python -m venv /elsewhere && /elsewhere/bin/pip install --no-deps lmms-eval==0.7.3
    PYTHONPATH=scripts /elsewhere/bin/python -m eval_fixtures --lmms-eval .../lmms_eval \
        --vlmevalkit CHECKOUT --retake CHECKOUT --out tests/evaluate/data

VLMEvalKit and ReTaKe are no packages of PyPI; their folders are checkouts.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from eval_fixtures.answers import odd_answers
from eval_fixtures.sources import functions_of

OPTIONS = ["a red car", "the dog", "two", "nothing at all"]
QUESTION = "What does the man see?"
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
    **{"video_name": "movie101_66.mp4", "task_type": "plotQA", "answer": "B"},
    "question": "\n".join(
        [QUESTION, *(f"({x}) {t}" for x, t in zip("ABCD", OPTIONS, strict=True))]
    ),
}
LVBENCH = {
    **{"video_path": "Cm73ma6Ibcs.mp4", "uid": "7", "answer": "B"},
    **{"question_type": ["reasoning", "entity recognition"], "question": MLVU["question"]},
}
LONGVIDEOBENCH = {
    **{"id": "86CxyhFV9MI_0", "video_path": "86CxyhFV9MI.mp4", "question": QUESTION},
    **{"duration_group": 15, "question_category": "S2E", "correct_choice": 1},
    **{f"option{n}": text for n, text in enumerate([*OPTIONS, "N/A"])},
}
RECORDS = {
    **{"videomme": VIDEOMME, "mlvu": MLVU, "lvbench": LVBENCH, "longvideobench": LONGVIDEOBENCH}
}
MLVU_TYPES = ("anomaly_reco", "count", "ego", "needle", "order", "plotQA", "topic_reasoning")
QUIET = SimpleNamespace(info=lambda *_: None)


def lmms_eval(folder: Path) -> dict[str, Any]:
    """What lmms-eval 0.7.3 makes of the records and the answers."""
    tasks = folder / "tasks"
    extract = functions_of(
        tasks / "_task_utils" / "mcq_extract.py",
        *("extract_mcq_answer", "_DEFAULT_CHOICES", "_ANSWER_PHRASES", "_FORMAT_PRIORITY"),
        **_typing(),
    )["extract_mcq_answer"]
    found = {}
    for name in ("videomme", "mlvu", "lvbench"):
        part = functions_of(tasks / name / "utils.py", f"{name}_doc_to_text")
        prompt = part[f"{name}_doc_to_text"](RECORDS[name], _default(tasks, name))
        found[name] = _entry(name, prompt, lambda text: extract(text, choices=list("ABCD")))
    names = ("longvideobench_doc_to_text", "parse_multi_choice_response")
    part = functions_of(tasks / "longvideobench" / "utils.py", *names)
    prompt = part[names[0]](LONGVIDEOBENCH, _default(tasks, "longvideobench"))
    parse = part[names[1]]
    found["longvideobench"] = _entry(
        "longvideobench", prompt, lambda text: parse(text, list("ABCD"), {})
    )
    return {"sets": found, "scores": lmms_scores(folder)}


def _typing() -> dict[str, Any]:
    import typing

    return {"List": typing.List, "Optional": typing.Optional, "Any": Any}  # noqa: UP006


def _default(tasks: Path, name: str) -> dict[str, Any]:
    """The `default` part of a task's lmms_eval_specific_kwargs."""
    import yaml

    file = {"mlvu": "mlvu_dev", "longvideobench": "longvideobench_val_v"}.get(name, name)
    lines = (tasks / name / f"{file}.yaml").read_text(encoding="utf-8").splitlines()
    kept = "\n".join(line for line in lines if "!function" not in line)
    return dict(yaml.safe_load(kept)["lmms_eval_specific_kwargs"]["default"])


def outcomes(seed: int) -> list[dict[str, Any]]:
    """Random results of 210 questions about 42 videos."""
    rng = random.Random(seed)
    return [
        {
            "id": str(n),
            "video": f"v{n // 5}",
            "is_right": rng.random() < 0.4 + 0.3 * (n // 5 % 2),
            "mlvu": MLVU_TYPES[(n * n + n // 7) % 7],
            "duration": ("short", "medium", "long")[n // 70],
            "group": (15, 60, 600, 3600)[n // 5 % 4],
            "types": rng.sample(["reasoning", "summarization", "entity recognition"], 1 + n % 2),
        }
        for n in range(210)
    ]


def lmms_scores(folder: Path) -> dict[str, Any]:
    """The scores of random outcomes, and their clustered error, by lmms-eval's functions."""
    rows = outcomes(0)
    marks = [dict(row, pred_answer="A" if row["is_right"] else "B", answer="A") for row in rows]
    tasks = folder / "tasks"
    names = ("videomme_aggregate_results", "VIDEO_TYPE", "CATEGORIES", "SUB_CATEGORIES")
    file = tasks / "videomme" / "utils.py"
    part = functions_of(file, *names, "TASK_CATEGORIES", eval_logger=QUIET)
    kinds = {k: VIDEOMME[k] for k in ("sub_category",)} | {"category": "Knowledge"}
    kinds["task_category"] = "OCR Problems"
    videomme = part[names[0]]([mark | kinds for mark in marks])
    file = tasks / "mlvu" / "utils.py"
    mlvu = functions_of(file, "mlvu_aggregate_results_dev", eval_logger=QUIET)
    average = mlvu["mlvu_aggregate_results_dev"]([m | {"task_type": m["mlvu"]} for m in marks])
    names = ("longvideobench_aggregate_results", "evaluate_longvideobench", "eval_multi_choice")
    file = tasks / "longvideobench" / "utils.py"
    seen = {"defaultdict": collections.defaultdict, "eval_logger": QUIET}
    part = functions_of(file, *names, "calculate_ins_level_acc", **seen)
    parsed = [
        m
        | {"parsed_pred": m["pred_answer"], "duration_group": m["group"], "question_category": "X"}
        for m in marks
    ]
    error = functions_of(
        folder / "api" / "metrics.py",
        "clustered_stderr",
        **{**_typing(), "collections": collections, "math": __import__("math")},
    )["clustered_stderr"]([float(m["is_right"]) for m in marks], [m["video"] for m in marks])
    return {
        "outcomes": rows,
        "videomme": videomme,
        "mlvu": average,
        "longvideobench": part[names[0]](parsed),
        "error": error,
    }


def vlmevalkit(folder: Path) -> dict[str, Any]:
    """What VLMEvalKit makes of the answers, with exact matching (no judge model)."""
    utils = folder / "vlmeval" / "dataset" / "utils"
    found = {}
    prompts = _kit_prompts(folder / "vlmeval" / "dataset")
    for name in ("videomme", "longvideobench"):
        extract = functions_of(utils / f"{name}.py", "extract_characters_regex")
        found[name] = _entry(name, prompts[name][1], extract["extract_characters_regex"])
    names = ("can_infer", "can_infer_option", "can_infer_text")
    infer = functions_of(folder / "vlmeval" / "utils" / "matching_util.py", *names)["can_infer"]

    def matched(model: Any, item: dict[str, Any], name: str) -> dict[str, str]:
        choices = {letter: item[letter] for letter in "ABCD"}
        return {"opt": infer(item["prediction"], choices) or "Z"}

    check = functions_of(
        utils / "mlvu.py", "check_ans_with_model", extract_answer_from_item=matched
    )["check_ans_with_model"]

    def right_of(text: str) -> list[str]:
        """The letters that would be counted as right."""
        texts = dict(zip("ABCD", OPTIONS, strict=True))
        return [
            letter
            for letter in "ABCD"
            if check(text, f"({letter}) x", None, {"answer": letter, "prediction": text, **texts})
        ]

    system, prompt = prompts["mlvu"]
    found["mlvu"] = {
        **{"record": MLVU_JSON, "prompt": prompt, "system": system},
        "answers": [[text, right_of(text)] for text in odd_answers()],
    }
    return {"sets": found}


def _kit_prompts(folder: Path) -> dict[str, tuple[str, str]]:
    """By set: what `build_prompt` says as the system, and as the user, for a model of videos."""
    base = {"VideoBaseDataset": object, "osp": os.path}
    given = {"data_root": "", "use_subtitle": False}
    given["save_video_frames"] = lambda *_: ([], [], {"fps": 1})
    lines = {
        "videomme": VIDEOMME | {"video": "v", "candidates": str(VIDEOMME["options"])},
        "mlvu": MLVU_JSON | {"prefix": "", "candidates": str(OPTIONS)},
        "longvideobench": LONGVIDEOBENCH | {"candidates": str(OPTIONS)},
    }
    classes = {"videomme": "VideoMME", "mlvu": "MLVU_MCQ", "longvideobench": "LongVideoBench"}
    found = {}
    for name, line in lines.items():
        kind = functions_of(folder / f"{name}.py", classes[name], **base)[classes[name]]
        maker = kind.__new__(kind)
        maker.__dict__.update(given)
        arguments = (line, 0, True) if name == "mlvu" else (line, True)
        message = [part for part in maker.build_prompt(*arguments) if part["type"] == "text"]
        said = ["", ""]
        for part in message:
            said[part.get("role") != "system"] += part["value"]
        found[name] = (said[0], said[1])
    return found


def retake(folder: Path) -> dict[str, Any]:
    """What the paper's code makes of the answers."""
    trim = functions_of(folder / "retake" / "infer_eval.py", "trimm_results")["trimm_results"]
    names = ("videomme", "mlvu", "lvbench")
    return {"sets": {name: _entry(name, None, trim) for name in names}}


def _entry(name: str, prompt: str | None, extract: Callable[[str], str]) -> dict[str, Any]:
    answers = [[text, [x] if (x := extract(text)) else []] for text in odd_answers()]
    shown = {"record": RECORDS[name], "answers": answers}
    return shown if prompt is None else {"record": RECORDS[name], "prompt": prompt, **shown}


def main() -> None:
    """Write a file for every source that is given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sources = {"lmms-eval": lmms_eval, "vlmevalkit": vlmevalkit, "retake": retake}
    for name in sources:
        parser.add_argument(f"--{name}", type=Path, dest=name)
    parser.add_argument("--out", type=Path, required=True)
    given = vars(parser.parse_args())
    for name, make in sources.items():
        if given[name]:
            text = json.dumps(make(given[name]), ensure_ascii=False)
            (given["out"] / f"{name}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
