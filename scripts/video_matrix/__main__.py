"""Make the matrix, compare each file, print a table, write the run file."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from video_matrix.cases import all_cases
from video_matrix.compare import Verdict
from video_matrix.run import run


def main() -> int:
    parser = argparse.ArgumentParser(prog="video_matrix", description=__doc__)
    parser.add_argument("names", nargs="*", help="files to try; all where none is named")
    parser.add_argument("--out", type=Path, help="write the run file here")
    parser.add_argument("--keep", type=Path, help="make the files in this folder and leave them")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 2)
    given = parser.parse_args()
    cases = all_cases()
    if given.names:
        cases = [c for c in cases if any(name in c.name for name in given.names)]
    began = time.monotonic()
    verdicts = []
    with tempfile.TemporaryDirectory(prefix="video-matrix-") as scratch:
        for verdict in run([c.name for c in cases], given.keep or Path(scratch), given.jobs):
            verdicts.append(verdict)
            print(line(verdict), flush=True)
    n_right = sum(not v.faults for v in verdicts)
    print(f"{n_right} of {len(verdicts)} files agree, in {time.monotonic() - began:.0f} s")
    if given.out:
        given.out.write_text(json.dumps(document(verdicts), indent=1) + "\n")
    return 0 if n_right == len(verdicts) else 1


def line(verdict: Verdict) -> str:
    """Return a verdict as a row of the table."""
    psnr = "" if verdict.lowest_psnr_db is None else f"{verdict.lowest_psnr_db:.1f} dB"
    length = "" if verdict.length_s is None else f"{verdict.length_s:.2f} s"
    state = "ok" if not verdict.faults else "; ".join(verdict.faults)
    return f"{verdict.name:32} {verdict.size:>10} {length:>9} {psnr:>8}  {state}"


def document(verdicts: list[Verdict]) -> dict[str, object]:
    """Return the run file: versions, the count, and every row."""
    said = subprocess.run(["ffmpeg", "-version"], capture_output=True, text=True, check=True).stdout
    return {
        "command": "python scripts/video_matrix --out benchmarks/video-matrix.json",
        "ffmpeg": said.split()[2],
        "n_files": len(verdicts),
        "n_agree": sum(not v.faults for v in verdicts),
        "files": [v.row() for v in verdicts],
    }


if __name__ == "__main__":
    sys.exit(main())
