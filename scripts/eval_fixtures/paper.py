"""Fixtures of the paper's code, from a folder with files of its repository.

It is no package. The file that words LVBench is read from the copy under review,
`retakecvpr/retake`; the others from `SCZwangxiao/video-ReTaKe`.
"""

from __future__ import annotations

import hashlib
import json
import os
import runpy
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from eval_fixtures.cases import LVBENCH, MLVU_JSON, RECORDS, VIDEOMME, Facts, Judge, entry, outcomes
from eval_fixtures.sources import stand_in_for

FILES = (
    *(f"retake/{name}.py" for name in ("infer_eval", "dataset_utils")),
    *(f"scripts/utils/build_{name}_dataset.py" for name in ("videomme", "mlvu_test", "lvbench")),
)
_ABSENT = ("torch", "transformers", "pysubs2", "openai", "retake.monkeypatch")
_MLVU_NAMES = {
    **{"plotQA": "Plot QA", "needle": "Needle QA", "ego": "Ego Reasoning"},
    **{"count": "Action Count", "order": "Action Order", "anomaly_reco": "Anomaly Recognition"},
    **{"topic_reasoning": "Topic Reasoning"},
}


def hashes(folder: Path) -> dict[str, str]:
    """The SHA-256 of the files that the fixture is made from."""
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in FILES}


def fixture(folder: Path) -> dict[str, Any]:
    """What the paper's code makes of the records, the answers and the results."""
    stand_in_for(_ABSENT)
    sys.path.insert(0, str(folder))
    from retake import dataset_utils, infer_eval

    def judge(pairs: list[tuple[str, str]]) -> list[bool]:
        return [infer_eval.trimm_results(text).lower() == letter.lower() for text, letter in pairs]

    prompts = _prompts(folder / "scripts" / "utils")
    sets = {name: _entry(name, prompts[name], judge) for name in prompts}
    return {"sets": sets, "scores": _scores(dataset_utils)}


def _entry(name: str, prompt: str, judge: Judge) -> dict[str, Any]:
    return entry(RECORDS[name], prompt, judge)


def _prompts(scripts: Path) -> dict[str, str]:
    """The question of each set's one record, as the scripts write it down for the model."""
    import pandas

    qa = {"key": "Cm73ma6Ibcs", "type": "tv", "video_info": {}, "qa": [LVBENCH]}
    with tempfile.TemporaryDirectory() as made:
        root, was = Path(made), os.getcwd()
        for part in ("videomme", "MLVU/json", ".../LVBench"):
            (root / part).mkdir(parents=True)
        pandas.DataFrame([VIDEOMME]).to_parquet(root / "videomme/test-00000-of-00001.parquet")
        (root / "MLVU/json/1_plotQA.json").write_text(json.dumps([MLVU_JSON]))
        (root / ".../LVBench/video_info.meta.jsonl").write_text(json.dumps(qa))
        given = SimpleNamespace(hf_root=made, data_root=made, hf_qwen2vl7b_path="", max_tokens=0)
        os.chdir(root)
        try:
            for name in ("videomme", "mlvu_test"):
                runpy.run_path(str(scripts / f"build_{name}_dataset.py"))["main"](given)
            runpy.run_path(str(scripts / "build_lvbench_dataset.py"))
        finally:
            os.chdir(was)
        files = {
            "videomme": "video_mme/video_mme",
            "mlvu": "mlvu/mlvu",
            "lvbench": "lvbench/lvbench",
        }
        return {name: _question(root / f"{file}.json") for name, file in files.items()}


def _question(path: Path) -> str:
    (made,) = json.loads(path.read_text())
    return str(made["messages"][0]["content"].replace("<video>", ""))


def _scores(module: Any) -> dict[str, Any]:
    rows = outcomes()
    said = {row["id"]: row["said"] for row in rows}
    metas: dict[str, Facts] = {
        "videomme": lambda row: VIDEOMME | {"duration": row["duration"]},
        "mlvu": lambda row: {"question_type": _MLVU_NAMES[row["mlvu"]]},
        "lvbench": lambda row: {"question_type": row["types"]},
    }
    facts = {
        name: {row["id"]: meta(row) | {"answer": "A"} for row in rows}
        for name, meta in metas.items()
    }
    for kind in ("Video Summary", "Sub-Scene Captioning"):  # without which no split is known
        facts["mlvu"][kind] = {"question_type": kind, "answer": ""}
    videomme, _ = module.eval_videomme_results(said, facts["videomme"])
    mlvu, _ = module.eval_mlvu_results(
        said | dict.fromkeys(list(facts["mlvu"])[-2:], ""), facts["mlvu"]
    )
    lvbench, _ = module.eval_lvbench_results(said, facts["lvbench"])
    parts = {
        "videomme": dict(videomme["overall"]),
        "mlvu": {name: mlvu[label].iloc[0] for name, label in _MLVU_NAMES.items()},
        "lvbench": dict(lvbench.iloc[0]),
    }
    headlines = {name: parts[name].pop("overall") for name in ("videomme", "lvbench")}
    headlines["mlvu"] = mlvu["M-AVG"].iloc[0]
    return {
        "outcomes": rows,
        "headlines": {name: float(value) / 100 for name, value in headlines.items()},
        "groups": {
            name: {label: float(value) / 100 for label, value in found.items()}
            for name, found in parts.items()
        },
    }
