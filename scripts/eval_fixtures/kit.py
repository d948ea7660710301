"""Fixtures of VLMEvalKit, from the package that ModelScope releases it as, ms-vlmeval.

Each answer goes through a dataset's whole `evaluate`, with exact matching and no judge model.
"""

from __future__ import annotations

import importlib
import tempfile
from pathlib import Path
from typing import Any

from eval_fixtures.cases import LONGVIDEOBENCH, MLVU_JSON, OPTIONS, VIDEOMME, entry, outcomes
from eval_fixtures.sources import make_bare, stand_in_for

_CLASSES = {"videomme": "VideoMME", "mlvu": "MLVU_MCQ", "longvideobench": "LongVideoBench"}
_LINES: dict[str, dict[str, Any]] = {
    "videomme": VIDEOMME | {"video": "v", "candidates": str(VIDEOMME["options"])},
    "mlvu": MLVU_JSON | {"task_type": "plotQA", "prefix": "", "candidates": str(OPTIONS)},
    "longvideobench": LONGVIDEOBENCH | {"candidates": str(OPTIONS)},
}
_ABSENT = ("portalocker", "huggingface_hub", "sty", "validators", "dotenv", "filelock", "requests")


def fixture() -> dict[str, Any]:
    """What VLMEvalKit makes of the records, the answers and the results."""
    make_bare("vlmeval")
    make_bare("vlmeval.dataset")
    stand_in_for([*_ABSENT, "vlmeval.api"])
    importlib.import_module("validators").url = lambda text: False  # type: ignore[attr-defined]
    modules = {name: importlib.import_module(f"vlmeval.dataset.{name}") for name in _CLASSES}
    for module in modules.values():
        module.load = _load  # type: ignore[attr-defined]
    kinds = {name: getattr(modules[name], kind) for name, kind in _CLASSES.items()}
    records: dict[str, dict[str, Any]] = {
        "videomme": VIDEOMME,
        "mlvu": MLVU_JSON,
        "longvideobench": LONGVIDEOBENCH,
    }
    sets = {}
    for name, kind in kinds.items():
        system, prompt = _prompt(kind, name)
        judge = _judge(kind, name)
        sets[name] = entry(records[name], prompt, judge, system)
    return {"sets": sets, "scores": _scores(kinds, modules["mlvu"])}


def _load(path: str) -> Any:
    """A table as the kit reads it, but for an empty answer, which stays a text."""
    import pandas

    return pandas.read_excel(path, keep_default_na=False)


def _prompt(kind: Any, name: str) -> tuple[str, str]:
    """What `build_prompt` says as the system, and as the user, for a model of videos."""
    maker = kind.__new__(kind)
    maker.data_root, maker.use_subtitle = "", False
    maker.save_video_frames = lambda *_: ([], [], {"fps": 1})
    said = ["", ""]
    for part in maker.build_prompt(dict(_LINES[name]), True):
        if part["type"] == "text":
            said[part.get("role") != "system"] += part["value"]
    return said[0], said[1]


def _evaluated(kind: Any, rows: list[dict[str, Any]]) -> tuple[Any, list[bool]]:
    """A dataset's rating of rows with predictions, and which of them were right."""
    import pandas

    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "model_set.xlsx"
        pandas.DataFrame([row | {"index": n} for n, row in enumerate(rows)]).to_excel(table)
        rating = kind.evaluate(str(table), model="exact_matching")
        (scores,) = Path(folder).glob("*_score.*")
        return rating, [bool(score == 1) for score in _load(str(scores))["score"]]


def _answer(name: str, letter: str) -> dict[str, Any]:
    """The right answer as a set has it; MLVU's options are four, so that E to G are none."""
    at = ord(letter) - ord("A")
    if name == "mlvu":
        return {"answer": OPTIONS[at] if at < len(OPTIONS) else "no option"}
    return {"answer": letter, "correct_choice": at}


def _judge(kind: Any, name: str) -> Any:
    def judge(pairs: list[tuple[str, str]]) -> list[bool]:
        line = _LINES[name]
        rows = [line | _answer(name, letter) | {"prediction": text} for text, letter in pairs]
        return _evaluated(kind, rows)[1]

    return judge


def _scores(kinds: dict[str, Any], module: Any) -> dict[str, Any]:
    rows = outcomes()
    groups = {"videomme": "duration", "mlvu": "mlvu", "longvideobench": "group"}
    fields = {"videomme": "duration", "mlvu": "task_type", "longvideobench": "duration_group"}
    tables = {
        name: [
            line | _answer(name, "A") | {fields[name]: row[groups[name]], "prediction": row["said"]}
            for row in rows
        ]
        for name, line in _LINES.items()
    }
    rated = {name: _evaluated(kind, tables[name])[0] for name, kind in kinds.items()}
    parts = {
        name: {str(part): float(found["overall"]) for part, found in rated[name].items()}
        for name in ("videomme", "longvideobench")
    }
    headlines = {name: found.pop("overall") for name, found in parts.items()}
    parts["mlvu"] = {name: right / n for name, (right, n) in rated["mlvu"].items()}
    headlines["mlvu"] = _mlvu_average(module, tables["mlvu"])
    return {"outcomes": rows, "headlines": headlines, "groups": parts}


def _mlvu_average(module: Any, rows: list[dict[str, Any]]) -> float:
    """M-Avg by `MLVU.evaluate`, which joins the set's two parts; the other one has no row."""
    import pandas

    module.ConcatVideoDataset.__init__ = lambda self, **_: None  # it would download the set
    module.MLVU.__abstractmethods__ = frozenset()  # the release has left one without a body
    whole = module.MLVU()
    whole.dataset_name, whole.datasets = "MLVU", ["MLVU_MCQ"]
    whole.dataset_map = {"MLVU_MCQ": module.MLVU_MCQ}
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "model_MLVU.xlsx"
        joined = {"SUB_DATASET": "MLVU_MCQ"}
        pandas.DataFrame(
            [row | joined | {"index": n, "original_index": n} for n, row in enumerate(rows)]
        ).to_excel(table)
        result = whole.evaluate(str(table), model="exact_matching")
    return float(result[result["task"] == "M-Avg"]["acc"].iloc[0]) / 100
