"""Fixtures of lmms-eval, from its installed package."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from eval_fixtures.cases import RECORDS, VIDEOMME, Facts, Judge, entry, outcomes
from eval_fixtures.sources import NoGuess, make_bare, stand_in_for

_METRICS = {
    "videomme": "videomme_perception_score",
    "mlvu": "mlvu_percetion_score",
    "lvbench": "lvbench_score",
    "longvideobench": "lvb_acc",
}
_TASKS = {"mlvu": "mlvu_dev", "longvideobench": "longvideobench_val_v"}


def fixture() -> dict[str, Any]:
    """What lmms-eval makes of the records, the answers and the results."""
    make_bare("lmms_eval")
    make_bare("lmms_eval.tasks")
    stand_in_for(["cv2", "datasets", "torch", "decord", "sacrebleu", "evaluate", "lmms_eval.utils"])
    modules = {name: importlib.import_module(f"lmms_eval.tasks.{name}.utils") for name in RECORDS}
    modules["longvideobench"].random = NoGuess  # type: ignore[attr-defined]
    sets = {
        name: entry(record, _prompt(modules[name], name), _judge(modules[name], name))
        for name, record in RECORDS.items()
    }
    return {"sets": sets, "scores": _scores(modules)}


def _prompt(module: Any, name: str) -> str:
    """The prompt with the `default` part of the task's lmms_eval_specific_kwargs."""
    import yaml

    folder = Path(module.__file__).parent
    lines = (folder / f"{_TASKS.get(name, name)}.yaml").read_text(encoding="utf-8").splitlines()
    settings = yaml.safe_load("\n".join(line for line in lines if "!function" not in line))
    make = getattr(module, f"{name}_doc_to_text")
    return str(make(dict(RECORDS[name]), settings["lmms_eval_specific_kwargs"]["default"]))


def _result(module: Any, name: str, doc: dict[str, Any], text: str) -> Any:
    return getattr(module, f"{name}_process_results")(doc, [text])[_METRICS[name]]


def _judge(module: Any, name: str) -> Judge:
    def is_right(text: str, letter: str) -> bool:
        doc = RECORDS[name] | {"answer": letter, "correct_choice": ord(letter) - ord("A")}
        result = _result(module, name, doc, text)
        if isinstance(result, bool):
            return result
        return bool(result.get("parsed_pred", result.get("pred_answer")) == result["answer"])

    return lambda pairs: [is_right(text, letter) for text, letter in pairs]


def _scores(modules: dict[str, Any]) -> dict[str, Any]:
    rows = outcomes()
    docs: dict[str, Facts] = {
        "videomme": lambda row: VIDEOMME | {"duration": row["duration"]},
        "mlvu": lambda row: {"question": row["id"], "task_type": row["mlvu"]},
        "longvideobench": lambda row: RECORDS["longvideobench"] | {"duration_group": row["group"]},
    }
    results = {
        name: [
            _result(
                modules[name], name, doc(row) | {"answer": "A", "correct_choice": 0}, row["said"]
            )
            for row in rows
        ]
        for name, doc in docs.items()
    }
    metrics = importlib.import_module("lmms_eval.api.metrics")
    marks = [float(row["is_right"]) for row in rows]
    return {
        "outcomes": rows,
        "headlines": {
            "videomme": modules["videomme"].videomme_aggregate_results(results["videomme"]) / 100,
            "mlvu": modules["mlvu"].mlvu_aggregate_results_dev(results["mlvu"]) / 100,
            "longvideobench": modules["longvideobench"].longvideobench_aggregate_results(
                results["longvideobench"]
            ),
        },
        "error": metrics.clustered_stderr(marks, [row["video"] for row in rows]),
    }
