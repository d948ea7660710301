"""Write tests/evaluate/data/PRESET.json with the sources' own prompts, extractions and scores.

    python -m venv /elsewhere && cd /elsewhere
    bin/pip install --no-deps lmms-eval==0.7.3 ms-vlmeval==0.0.20
    bin/pip install pandas pyarrow openpyxl pyyaml loguru pillow tqdm
    PYTHONPATH=.../scripts bin/python -m eval_fixtures SOURCE --out .../tests/evaluate/data

SOURCE is lmms-eval, vlmevalkit, or retake with --files FOLDER: the files of `paper.FILES`, since
the paper's code is no package. A fixture names what it was made from.
"""

from __future__ import annotations

import argparse
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from eval_fixtures import kit, lmms, paper


def main() -> None:
    """Write the fixture of one source."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", choices=["lmms-eval", "vlmevalkit", "retake"])
    parser.add_argument("--files", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    made: dict[str, Any]
    if given.source == "lmms-eval":
        made = {"source": {"lmms-eval": version("lmms-eval")}, **lmms.fixture()}
    elif given.source == "vlmevalkit":
        made = {"source": {"ms-vlmeval": version("ms-vlmeval")}, **kit.fixture()}
    elif given.files is None:
        parser.error("retake needs --files")
    else:
        made = {"source": paper.hashes(given.files), **paper.fixture(given.files.resolve())}
    text = json.dumps(made, ensure_ascii=False)
    (given.out / f"{given.source}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
