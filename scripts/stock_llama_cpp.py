"""llama.cpp as it is, without this project's patches: build llama-mtmd-cli, and ask it.

Its chat mode answers several questions about a video in one process; it says "> " when it wants the
next line. What it says of its work stands on standard error.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from apply_patches import SOURCE_VARIABLE, prepare_tree
from fetch_llama_cpp import SourceError, Upstream, read_upstream
from watched import Limits, Watched

ROOT = Path(__file__).resolve().parents[1]
TARGET = "llama-mtmd-cli"
PROMPT = "\n> "
_OFF = ("LLAMA_BUILD_TESTS", "LLAMA_BUILD_EXAMPLES", "LLAMA_BUILD_SERVER", "LLAMA_BUILD_APP")
_FULL = ("failed to find a memory slot", "context size", "n_ctx")


@dataclass(frozen=True)
class StockOptions:
    """What the stock program is told besides the video.

    `frame_tokens`: tokens of a frame, which decide the size that it scales a frame to (0: as the
    projector's file says); `n_ctx`: cells, 0 for as many as the model was trained for.
    """

    model: Path
    mmproj: Path
    fps: float
    n_predict: int
    n_threads: int
    n_ctx: int = 0
    frame_tokens: int = 0
    more: tuple[str, ...] = ()

    def arguments(self) -> list[str]:
        """Return the command line after the program's name."""
        words = ["-m", str(self.model), "--mmproj", str(self.mmproj), "-c", str(self.n_ctx)]
        words += ["-t", str(self.n_threads), "-n", str(self.n_predict), "--temp", "0"]
        words += ["--video-fps", f"{self.fps:g}", "-lv", "4"]
        if self.frame_tokens:
            n = str(self.frame_tokens)
            words += ["--image-min-tokens", n, "--image-max-tokens", n]
        return [*words, *self.more]


@dataclass(frozen=True)
class Asked:
    """How a program did with two questions about one video.

    Seconds: `answer_s` from its start to the end of the first answer, `follow_up_s` of the second
    question; None where it did not come so far. `n_tokens` prefilled, `n_kept` cells at the end.
    `ended`: '' for all well, or why there are no more answers.
    """

    texts: tuple[str, ...]
    answer_s: float | None
    follow_up_s: float | None
    peak_bytes: int
    n_tokens: int | None
    n_kept: int | None
    ended: str
    seconds: float


def build(folder: Path) -> Path:
    """Return llama-mtmd-cli of the pinned source in `folder`, built there if it is missing.

    Raises:
        SourceError: the source cannot be had, or CMake fails.
    """
    override = os.environ.get(SOURCE_VARIABLE)
    source: Path | Upstream = Path(override).resolve() if override else read_upstream()
    tree, built = folder / "llama.cpp", folder / "build"
    prepare_tree(tree, ROOT / "build" / "downloads", [], source)
    switches = [f"-D{name}=OFF" for name in (*_OFF, "LLAMA_OPENSSL", "BUILD_SHARED_LIBS")]
    switches += ["-DCMAKE_BUILD_TYPE=Release", "-DLLAMA_BUILD_NUMBER=0"]
    switches += shlex.split(os.environ.get("CMAKE_ARGS", ""))
    # Upstream's scripts ask git for a version, which must not look above the folder.
    environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(folder.resolve())}
    jobs = str(os.cpu_count() or 1)
    for command in (
        ["cmake", "-S", str(tree), "-B", str(built), *switches],
        ["cmake", "--build", str(built), "--target", TARGET, "--parallel", jobs],
    ):
        result = subprocess.run(command, env=environment, capture_output=True, text=True)
        if result.returncode:
            last = "\n".join((result.stdout + result.stderr).splitlines()[-5:])
            raise SourceError(f"{' '.join(command[:2])} failed in {folder}:\n{last}")
    return built / "bin" / TARGET


def ask(
    program: Sequence[str],
    film: Path,
    questions: Sequence[str],
    options: StockOptions,
    limits: Limits,
) -> Asked:
    """Ask the stock program (a command) two questions about a film, one after the other."""
    with Watched([*program, *options.arguments()], limits) as run:
        run.write(f"/video {film}")
        for n, question in enumerate(questions, 2):  # it asks for the video, then for each question
            if not run.await_mark(PROMPT, n):
                break
            run.write(question)
        run.await_mark(PROMPT, len(questions) + 2)
        status = run.wait()
    return read_log(run, len(questions), status)


def read_log(run: Watched, n_questions: int, status: int) -> Asked:
    """Return how a finished run did, from what it wrote and when."""
    ends = [run.out.when(PROMPT, n + 2) for n in range(n_questions + 1)]
    parts = run.out.text.split(PROMPT)
    is_loaded = len(parts) > 1 and parts[1].strip().endswith("loaded")
    # Between the prompts: what it says of the video's loading, then the answers.
    said = parts[2:] if is_loaded else []  # without a video it would answer all the same
    pairs = zip(said, ends[1:], strict=False)
    texts = tuple(without_echo(text) for text, end in pairs if end)
    missing = len(texts) < n_questions
    first = ends[1] if texts else None
    second = ends[2] if len(texts) > 1 else None
    found = re.search(r"prompt eval time\s*=.*?/\s*(\d+) tokens", run.error.text)
    n_tokens = int(found[1]) if found else None
    return Asked(
        texts=texts,
        answer_s=first,
        follow_up_s=second - first if first and second else None,
        peak_bytes=run.peak_bytes,
        n_tokens=n_tokens,
        n_kept=n_tokens,  # it frees no cell
        ended=_ended(run, status, was_read=is_loaded or len(parts) < 3) if missing else "",
        seconds=run.seconds,
    )


def without_echo(text: str) -> str:
    """Return an answer without the question, which the program repeats in a line of its own."""
    return text.lstrip().partition("\n")[2].strip()


def _ended(run: Watched, status: int, *, was_read: bool) -> str:
    return reason(run, status) if was_read else "the video was not read"


def reason(run: Watched, status: int) -> str:
    """Return why a run ended early."""
    if run.limit:
        return f"{run.limit} limit"
    lines = [line.strip() for line in run.error.text.splitlines() if line.strip()]
    if any(word in line for word in _FULL for line in lines[-8:]):
        return "context limit"
    return f"exit status {status}: {lines[-1] if lines else 'no reason given'}"
