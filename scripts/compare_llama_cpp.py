"""Set retake-edge beside llama.cpp's own video program: time, memory, tokens and answers.

    python scripts/compare_llama_cpp.py FOLDER --out benchmarks/compare.json

builds llama-mtmd-cli of the pinned source, without this project's patches, in FOLDER, renders
videos there, and asks both programs two questions about each. Both get the same files, model,
frames, tokens a frame, threads and length of answer, and decode greedily. A picture of these videos
is held until the next one is sampled, so that both see the same pictures whichever frame they take;
each scales them by its own rule. The first question's time counts from the program's start.

What stays different: llama-mtmd-cli puts "Video:" and a time every 5 s into the prompt, marks every
frame as an image, and counts its positions by frames; `tiny` was trained with neither.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fetch_llama_cpp import SourceError, read_upstream
from stock_llama_cpp import Asked, StockOptions, ask, build, reason
from watched import Limits, Watched

from retake_edge.bench.run_file import run_file, write_run_file
from retake_edge.bench.scenes.footage import make_footage
from retake_edge.bench.scenes.questions import Question, grade, make_questions
from retake_edge.bench.scenes.render import write_video
from retake_edge.models.manifest import ModelFiles, ModelManifest
from retake_edge.models.resolve import resolve_model
from retake_edge.vision.still import THRESHOLD

FILM_FPS = 24
CASES = {
    "slides, 2 min": ("slides", 120),
    "moving, 2 min": ("moving", 120),
    "moving, 5 min": ("moving", 300),
    "slides, 1 h": ("slides", 3600),
    "moving, 1 h": ("moving", 3600),
}
"""Kind of footage (`retake-edge scene --footage`) and seconds, by name."""
KINDS = ("first_card", "last_card")
"""Kinds of the two questions: the numbers on the first card and on the last one."""
_QUARTER = ("--keep-ratio", "0.25")
OURS = {
    "everything kept": ("--policy", "none"),
    "a quarter kept": _QUARTER,
    "a quarter kept, still pictures once": (*_QUARTER, "--still", f"{THRESHOLD:g}"),
}
STOCK = "llama-mtmd-cli"
SHORT_CASES = ("slides, 2 min", "moving, 5 min", "slides, 1 h", "moving, 1 h")
"""Videos of the README's table."""


@dataclass(frozen=True)
class Film:
    """A rendered video, and two questions about it."""

    path: Path
    questions: list[Question]


def make_film(folder: Path, case: str, seed: int, fps: float, size_px: int) -> Film:
    """Render a case's video, `fps` pictures a second held in a file of FILM_FPS, or find it."""
    footage, seconds = CASES[case]
    scene = make_footage(footage, seed, seconds)
    questions = [make_questions(scene, 1, seed, (kind,))[0] for kind in KINDS]
    path = folder / f"{footage}-{seconds}s-{seed}-{fps:g}fps-{size_px}px.mp4"
    if not path.is_file():
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            drawn = write_video(scene, Path(temporary) / "drawn.mp4", fps, size_px)
            held = Path(temporary) / path.name
            coded = ["-c:v", "libx264", "-preset", "veryfast", "-crf", "18", "-pix_fmt", "yuv420p"]
            command = ["ffmpeg", "-v", "error", "-i", str(drawn), "-vf", f"fps={FILM_FPS}", *coded]
            subprocess.run([*command, str(held)], check=True, stdin=subprocess.DEVNULL)
            held.replace(path)
    return Film(path, questions)


def ask_ours(
    film: Path, questions: list[str], words: list[str], limits: Limits
) -> tuple[Asked, dict[str, Any]]:
    """Ask retake-edge as `words` say; also what a new process takes and tells afterwards."""
    program = [sys.executable, "-m", "retake_edge", "ask", str(film)]
    # The line that tells the third question comes when the second is answered.
    asked = [word for text in (*questions, questions[-1]) for word in ("-q", text)]
    with Watched([*program, *asked, *words], limits) as run:
        status = run.wait()
    marks = [run.error.when("> ", n) for n in (2, 3)]
    done = read_ours(run, len(questions), status, marks)
    with Watched([*program, questions[-1], "--json", *words], limits) as again:
        status = again.wait()
    facts: dict[str, Any] = {"again_s": None}
    if not status and not again.limit:
        told = json.loads(again.out.text)
        facts = {"again_s": round(again.seconds, 2), **told["video"]}
    return done, facts


def read_ours(run: Watched, n: int, status: int, marks: list[float | None]) -> Asked:
    """Return how a finished run of retake-edge did; `marks`: when an answer was done."""
    first, second = marks
    texts = tuple(run.out.text.splitlines()[:n]) if not status else ()
    return Asked(
        texts=texts,
        answer_s=first,
        follow_up_s=second - first if first and second else None,
        peak_bytes=run.peak_bytes,
        n_tokens=None,
        n_kept=None,
        ended=reason(run, status) if status else "",
        seconds=run.seconds,
    )


def row(case: str, program: str, asked: Asked, film: Film, again_s: float | None) -> dict[str, Any]:
    """Return one line of the run file."""
    right = [
        grade(question, text) for question, text in zip(film.questions, asked.texts, strict=False)
    ]
    values = asdict(asked) | {"case": case, "program": program, "again_s": again_s}
    values["texts"], values["right"] = [text[:80] for text in asked.texts], right
    for name in ("answer_s", "follow_up_s", "seconds"):
        values[name] = None if values[name] is None else round(values[name], 2)
    return values


def compare(case: str, folder: Path, program: Path, options: argparse.Namespace) -> list[Any]:
    """Ask all programs about one video, and return their lines."""
    source, limits = options.source, Limits(options.minutes * 60, int(options.gib * 2**30))
    film = make_film(folder, case, options.seed, options.fps, options.size)
    questions, rows, frame_tokens = [question.text for question in film.questions], [], 0
    for name, words in OURS.items():
        told = [*_model_words(source), "--fps", f"{options.fps:g}", "-t", str(options.threads)]
        told += ["--max-frames", str(int(CASES[case][1] * options.fps))]  # every frame
        told += ["-n", str(options.n_predict), "--cache-dir", str(folder / "sessions"), *words]
        asked, facts = ask_ours(film.path, questions, told, limits)
        if "n_cells_before" in facts:
            frame_tokens = frame_tokens or facts["n_cells_before"] // facts["n_grid_frames"]
            n_tokens = facts["n_cells_before"] - facts["n_left_out"]
            known = {"n_tokens": n_tokens, "n_kept": facts["n_cells_kept"]}
            asked = Asked(**{**asdict(asked), **known})
        rows.append(row(case, f"retake-edge, {name}", asked, film, facts["again_s"]))
        say(rows[-1])
    n_ctx = 0
    while True:
        stock = StockOptions(
            model=source.model,
            mmproj=source.mmproj,
            fps=options.fps,
            n_predict=options.n_predict,
            n_threads=options.threads,
            n_ctx=n_ctx,
            frame_tokens=frame_tokens,
            more=tuple(options.stock.split()),
        )
        asked = ask([str(program)], film.path, questions, stock, limits)
        named = f"{STOCK} -c {n_ctx}" if n_ctx else STOCK
        rows.append(row(case, named, asked, film, None))
        say(rows[-1])
        if asked.ended != "context limit" or n_ctx:
            return rows
        # Once more with room for every frame and the text around each of them.
        n_frames = CASES[case][1] * options.fps
        n_ctx = int(n_frames * (frame_tokens + options.text_tokens)) + 1024


def _model_words(source: ModelManifest | ModelFiles) -> list[str]:
    if isinstance(source, ModelManifest):
        return ["-m", source.name]
    return ["-m", str(source.model), "--mmproj", str(source.mmproj)]


def say(line: dict[str, Any]) -> None:
    print(json.dumps(line), file=sys.stderr, flush=True)


def warm_up(folder: Path, options: argparse.Namespace) -> None:
    """Let both programs' files be in memory, and the model tried, before anything is timed."""
    scene = make_footage("moving", 1, 16)
    film = write_video(scene, folder / "warm-up.mp4", 2.0, options.size)
    words = [*_model_words(options.source), "--cache-dir", str(folder / "sessions"), "-n", "1"]
    command = [sys.executable, "-m", "retake_edge", "ask", str(film), "What is it?", *words]
    subprocess.run(command, check=True, capture_output=True)


def compare_table(document: dict[str, Any]) -> str:
    """Return the run file's lines as a Markdown table."""
    heads = (
        *("video", "program", "first answer", "next question", "asked again later"),
        *("peak memory", "tokens read", "cells kept", "answers"),
    )
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for run in document["runs"]:
        words = ["right" if right else "wrong" for right in run["right"]]
        cells = (
            *(run["case"], run["program"], shown_s(run["answer_s"]), shown_s(run["follow_up_s"])),
            *(shown_s(run["again_s"] or (run["answer_s"] if STOCK in run["program"] else None)),),
            *(f"{run['peak_bytes'] / 2**20:,.0f} MiB", shown_n(run["n_tokens"])),
            *(shown_n(run["n_kept"]), run["ended"] or ", ".join(words)),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def short_table(document: dict[str, Any]) -> str:
    """Return what the README has of it: a column for each video, everything kept beside stock."""
    runs = {(run["case"], run["program"]): run for run in document["runs"]}
    ours, stock = "retake-edge, a quarter kept", STOCK
    cases = [case for case in SHORT_CASES if {(case, ours), (case, STOCK)} <= set(runs)]
    lines = [f"| here / llama.cpp | {' | '.join(cases)} |", "|---" * (1 + len(cases)) + "|"]
    for title, name in (
        ("first answer", "answer_s"),
        ("asked again later", "again_s"),
        ("peak memory", "peak_bytes"),
    ):
        cells = [
            f"{_short(runs[case, ours], name)} / {_short(runs[case, stock], name)}"
            for case in cases
        ]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _short(run: dict[str, Any], name: str) -> str:
    if name == "peak_bytes":
        return f"{run[name] / 2**30:.1f} GiB"
    if name == "again_s" and STOCK in run["program"]:
        name = "answer_s"  # it is read again
    return (run["ended"] or "-") if run[name] is None else shown_s(run[name])


def shown_s(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:,.1f} s"


def shown_n(n: int | None) -> str:
    return "-" if n is None else f"{n:,}"


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="for the build, the videos and the sessions")
    parser.add_argument("--out", type=Path, help="the run file to write")
    parser.add_argument("--program", type=Path, help="a llama-mtmd-cli that is built already")
    parser.add_argument("-m", "--model", default="tiny", help="a model's name, or a GGUF file")
    parser.add_argument("--mmproj", type=Path, help="the projector of a GGUF file")
    parser.add_argument("--cases", default=";".join(CASES), help="names of videos, with ; between")
    parser.add_argument("-s", "--seed", type=int, default=20261201)
    parser.add_argument("--fps", type=float, default=2.0, help="frames a second that both take")
    parser.add_argument("--size", type=int, default=448, help="side of the picture in px")
    parser.add_argument("-t", "--threads", type=int, default=2)
    parser.add_argument("-n", "--n-predict", type=int, default=16, help="most tokens of an answer")
    parser.add_argument("--minutes", type=float, default=10, help="time limit of a program's run")
    parser.add_argument("--gib", type=float, default=8, help="memory limit of a program's run")
    parser.add_argument(
        "--text-tokens", type=int, default=8, help="room that is left for text around a frame"
    )
    parser.add_argument("--stock", default="", help="more options for llama-mtmd-cli")
    options = parser.parse_args(words)
    options.cases = [case.strip() for case in options.cases.split(";")]
    unknown = [case for case in options.cases if case not in CASES]
    if unknown:
        parser.error(f"--cases {unknown[0]!r}: there are {'; '.join(CASES)}")
    options.source = resolve_model(options.model, options.mmproj)
    return options


def main() -> int:
    """Compare, and print the table and write the run file."""
    options = parse()
    options.folder.mkdir(parents=True, exist_ok=True)
    try:
        program = options.program or build(options.folder)
    except SourceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    warm_up(options.folder, options)
    rows: list[Any] = []
    names = ("seed", "fps", "size", "threads", "n_predict", "minutes", "gib", "stock")
    for case in options.cases:
        rows += compare(case, options.folder, program, options)
        source = options.source
        document = run_file(
            "compare",
            {name: getattr(options, name) for name in names} | {"film_fps": FILM_FPS},
            {"name": getattr(source, "name", source.model.name)},
            {"llama.cpp": read_upstream().commit, "runs": rows},
        )
        words = document["command"].removeprefix("retake-edge ")
        document["command"] = f"python scripts/compare_llama_cpp.py {words}"
        if options.out:
            write_run_file(document, options.out)
    print(compare_table(document))
    return 0


if __name__ == "__main__":
    sys.exit(main())
