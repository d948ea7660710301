"""Where the time of a first answer goes: the profile of `ask --json`, on small and real widths.

    python scripts/measure_profile.py FOLDER --out benchmarks/profile.json

The bundled model, and a published shape cut to a few layers (tower and language model alike) with
random weights, each on a rendered video that it has not seen. The stages add up to the wall-clock
time from the opening of the video to the answer's end; what other threads and processes did
meanwhile stands beside.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from retake_edge.bench.run_file import run_file, write_run_file
from retake_edge.bench.scenes.footage import make_footage
from retake_edge.bench.scenes.render import write_video
from retake_edge.models.random_gguf import random_pair
from retake_edge.models.shapes import SHAPES

QUESTION = "What number is on the red card?"


def profile_of(film: Path, words: list[str]) -> dict[str, Any]:
    """Ask about a film that is not read yet, in a process of its own; return what it tells."""
    command = [sys.executable, "-m", "retake_edge", "ask", str(film), QUESTION, "--json", *words]
    with tempfile.TemporaryDirectory() as cache:
        for part in (["--end", "8"], []):  # first a part: then the model has been tried
            began = time.perf_counter()
            asked = [*command, *part, "--cache-dir", cache]
            done = subprocess.run(asked, check=True, capture_output=True, text=True)
            process_s = time.perf_counter() - began
    told = json.loads(done.stdout)
    video, profile = told["video"], told["profile"]
    return {
        "process_s": round(process_s, 3),
        "wall_s": round(profile["wall_s"], 3),
        "stages": rounded(profile["stages"]),
        "beside": rounded(profile["beside"]),
        "n_frames": video["n_frames"],
        "n_tokens": video["n_cells_before"],
        "n_kept": video["n_cells_kept"],
    }


def rounded(seconds: dict[str, float]) -> dict[str, float]:
    return {stage: round(s, 4) for stage, s in seconds.items()}


def profile_table(document: dict[str, Any]) -> str:
    """Return the profiles as a Markdown table: a line for each stage."""
    runs = document["runs"]
    lines = [
        f"| stage | {' | '.join(run['name'] for run in runs)} |",
        "|---" * (1 + len(runs)) + "|",
    ]
    for what, mark in (("stages", ""), ("beside", "beside: ")):
        names = dict.fromkeys(stage for run in runs for stage in run[what])
        for name in names:
            cells = [_cell(run[what].get(name), run["wall_s"]) for run in runs]
            lines.append(f"| {mark}{name} | {' | '.join(cells)} |")
        if not mark:
            cells = [f"{run['wall_s']:.2f} s" for run in runs]
            lines.append(f"| **sum: wall-clock time** | {' | '.join(cells)} |")
    for name, title in (("n_frames", "frames"), ("n_tokens", "tokens"), ("n_kept", "cells kept")):
        lines.append(f"| {title} | {' | '.join(f'{run[name]:,}' for run in runs)} |")
    return "\n".join(lines)


def _cell(seconds: float | None, wall_s: float) -> str:
    return "-" if seconds is None else f"{seconds:.2f} s ({100 * seconds / wall_s:.1f} %)"


def main() -> None:
    """Measure, print the table and write the run file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="for videos and files with random weights")
    parser.add_argument("--shape", default="qwen2.5-vl-3b", choices=sorted(SHAPES))
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=300, help="video of the bundled model")
    parser.add_argument("--shape-seconds", type=float, default=64, help="video of the shape")
    parser.add_argument("--size", type=int, default=448, help="side of the picture in px")
    parser.add_argument("-t", "--threads", type=int, default=2)
    parser.add_argument("-s", "--seed", type=int, default=20261202)
    parser.add_argument("--out", type=Path, help="the run file to write")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    language, mmproj = random_pair(
        SHAPES[options.shape].cut(options.layers), "q8_0", options.folder
    )
    models = {
        "tiny": (options.seconds, ["-m", "tiny"]),
        f"{options.shape}, {options.layers} layers": (
            options.shape_seconds,
            ["-m", str(language), "--mmproj", str(mmproj)],
        ),
    }
    runs = []
    for name, (seconds, words) in models.items():
        scene = make_footage("moving", options.seed, seconds)
        film = write_video(scene, options.folder / f"{seconds:g}s.mp4", 8.0, options.size)
        words += ["--fps", "2", "--keep-ratio", "0.25", "-n", "16", "-t", str(options.threads)]
        runs.append({"name": name, "seconds": seconds, **profile_of(film, words)})
    settings = {name: getattr(options, name) for name in ("size", "threads", "seed")}
    document = run_file("profile", settings, {"shape": options.shape}, {"runs": runs})
    words = document["command"].removeprefix("retake-edge ").split(" ")
    document["command"] = " ".join(["python", "scripts/measure_profile.py", *words])
    if options.out:
        write_run_file(document, options.out)
    print(profile_table(document))


if __name__ == "__main__":
    main()
