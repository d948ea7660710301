"""Plan how long a machine takes for whole benchmarks, model by model, and write a run file.

    python scripts/plan_sets.py --out benchmarks/eval-hours.json
    python scripts/make_tables.py        puts the table into docs/evaluation.md

No weights and no videos are needed: lengths are those that the sets' papers tell, and the speed is
what `retake-edge plan` goes by, measured once with a stand-in (`retake_edge/plan/machine.py`).
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from retake_edge.bench.run_file import run_file, write_run_file
from retake_edge.catalog.needs import AN_HOUR
from retake_edge.config import RetakeConfig
from retake_edge.errors import MemoryBudgetError
from retake_edge.files import default_cache_dir
from retake_edge.models.published import Published, all_published, hollow_files
from retake_edge.plan.cells import text_reserve
from retake_edge.plan.machine import machine_seconds, measure_machine
from retake_edge.plan.run import RunPlanner
from retake_edge.plan.seconds import Calibration

ANSWER_TOKENS = 3
"""A letter, its full stop and the end."""


@dataclass(frozen=True)
class Videos:
    """So many videos of one length, with so many questions in all."""

    n_videos: int
    seconds: float
    n_questions: int


SETS = {
    "an hour": [Videos(1, 3600.0, 1)],
    "videomme": [Videos(300, seconds, 900) for seconds in (80.8, 520.2, 2471.0)],
    "lvbench": [Videos(103, 4101.0, 1549)],
}
"""Means of Video-MME's three parts (arXiv:2405.21075) and of LVBench (arXiv:2406.08035)."""


def hours_of(model: Published, config: RetakeConfig, speed: Calibration) -> dict[str, Any]:
    """Hours by set; None where the model cannot read a video of it."""
    with TemporaryDirectory() as name:
        folder = TemporaryDirectory(dir=name)
        source = hollow_files(model, folder)
        with RunPlanner(source, text_reserve(config), tried=True) as planner:

            def hours(part: Videos) -> float:
                n_frames = round(part.seconds * AN_HOUR.fps_nominal)
                info = replace(AN_HOUR, duration_s=part.seconds, n_frames=n_frames)
                work = planner.plan(info, config).estimate.work
                found = machine_seconds(speed, work, ANSWER_TOKENS)
                assert found is not None
                answer_s = found.pop("answer")
                return (part.n_videos * sum(found.values()) + part.n_questions * answer_s) / 3600

            rows: dict[str, Any] = {"model": model.name}
            for name_of_set, parts in SETS.items():
                try:
                    rows[name_of_set] = round(sum(hours(part) for part in parts), 2)
                except MemoryBudgetError:
                    rows[name_of_set] = None
            return rows


def main() -> None:
    """Write the run file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--note", help="what a reader should know of the machine")
    given = parser.parse_args()
    speed = Calibration(default_cache_dir())
    measure_machine(speed)
    models = [model for model in all_published() if model.shape is not None]
    rows = [hours_of(model, RetakeConfig(), speed) for model in models]
    facts = {
        "answer_tokens": ANSWER_TOKENS,
        "sets": {name: [asdict(part) for part in parts] for name, parts in SETS.items()},
    }
    document = run_file("eval-hours", facts, {}, {"rows": rows})
    document["command"] = "python scripts/plan_sets.py --out benchmarks/eval-hours.json"
    write_run_file(document | ({"note": given.note} if given.note else {}), given.out)


if __name__ == "__main__":
    main()
