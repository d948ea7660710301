"""Questions about the bundled video whose answers are known: does everything work, end to end?

They are asked in a process of their own (`python -m retake_edge.doctor.self_test`): a crash in
native code, from a GPU driver or an instruction that the processor lacks, ends that process, and is
told.
"""

from __future__ import annotations

import collections
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from retake_edge.errors import ModelError, NativeError, RetakeError, VideoError

MODEL = "tiny"
VIDEO = "demo.mp4"
QUESTIONS = {"What number is on the red card?": "70", "When does the blue card appear?": "0:08"}
# Both cards appear within these seconds; the video's rest would only take time.
END_S = 20.0
TIMEOUT_S = 300.0
_VISION = re.compile(r"CLIP using (\S+) backend")
_LAYER = re.compile(r"layer +\d+ assigned to device (\S+?),")
_UNSUPPORTED = re.compile(r"CLIP graph uses unsupported operators")


@dataclass(frozen=True)
class SelfTest:
    """The outcome of the self-test's questions.

    `answers`: by question; `problem`: why there are none, or that they are wrong, '' if all is
    well, with the `exit_code` of its kind. Devices as llama.cpp's log names them: `vision_device`
    of the vision tower ('' if not told), `layer_devices` number of the language model's layers on
    each; `has_slow_vision`: the device lacks an operation of the tower, so that parts run on the
    CPU.
    """

    answers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    vision_device: str = ""
    layer_devices: dict[str, int] = field(default_factory=dict)
    has_slow_vision: bool = False
    problem: str = ""
    exit_code: int = 0


def run_self_test(timeout_s: float = TIMEOUT_S) -> SelfTest:
    """Ask the questions in another process; whatever happens there, there is a result."""
    try:
        result = python_apart("-m", "retake_edge.doctor.self_test", timeout_s=timeout_s)
    except subprocess.TimeoutExpired:
        return _failed(f"it did not end within {timeout_s:g} s")
    lines = result.stdout.splitlines()
    if result.returncode == 0 and lines:
        return SelfTest(**json.loads(lines[-1]))
    last_line = (result.stderr.strip().splitlines() or ["it said nothing"])[-1]
    return _failed(f"its process ended with {ending(result.returncode)} ({last_line})")


def python_apart(*arguments: str, timeout_s: float) -> subprocess.CompletedProcess[str]:
    """Run this interpreter in a process of its own, on this package.

    Raises:
        subprocess.TimeoutExpired: it took too long, and was ended.
    """
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=Path(__file__).resolve().parents[2],  # it looks in the working directory first
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def ending(code: int) -> str:
    """Return how a process ended, from its exit code (below 0: minus the signal)."""
    if code >= 0:
        return f"code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def ask_all(questions: Mapping[str, str] = QUESTIONS, video: str | Path | None = None) -> SelfTest:
    """Ask the questions (each with its right answer) here and now.

    `video`: None for the bundled one.
    """
    from retake_edge.llama import library

    started = time.perf_counter()
    try:
        with library.captured_log() as log:
            answers = _answers(questions, _bundled_video() if video is None else video)
    except RetakeError as error:
        return _failed(str(error), error.exit_code)
    wrong = {q: text for q, text in answers.items() if text != questions[q]}
    return SelfTest(
        answers,
        round(time.perf_counter() - started, 3),
        vision_device=next(iter(_found(_VISION, log)), ""),
        layer_devices=dict(collections.Counter(_found(_LAYER, log))),
        has_slow_vision=any(_UNSUPPORTED.search(line) for line in log),
        problem=_wrong(questions, wrong),
        exit_code=NativeError.exit_code if wrong else 0,
    )


def _answers(questions: Iterable[str], video: str | Path) -> dict[str, str]:
    from retake_edge.config import CompressionConfig, RetakeConfig, SamplingConfig
    from retake_edge.session.open import open_video

    config = RetakeConfig(
        SamplingConfig(end_s=END_S), compression=CompressionConfig(keep_ratio=0.25)
    )
    with open_video(video, MODEL, config, use_cache=False) as session:
        return {question: session.ask(question).text for question in questions}


def _bundled_video() -> Path:
    from retake_edge.models.manifest import load_manifest, models_dir

    try:
        path = load_manifest(MODEL).model.parent / VIDEO
    except ModelError as error:
        raise ModelError(f"The bundled model is not in {models_dir()} ({error})") from None
    if not path.is_file():
        raise VideoError(f"The bundled video {path} is missing; install retake-edge again.")
    return path


def _found(pattern: re.Pattern[str], lines: Iterable[str]) -> list[str]:
    return [match[1] for line in lines if (match := pattern.search(line))]


def _wrong(questions: Mapping[str, str], answers: Mapping[str, str]) -> str:
    return " ".join(
        f"{question!r} was answered with {text!r}, but {questions[question]!r} is right."
        for question, text in answers.items()
    )


def _failed(problem: str, exit_code: int = NativeError.exit_code) -> SelfTest:
    return SelfTest(problem=problem, exit_code=exit_code)


if __name__ == "__main__":
    print(json.dumps(asdict(ask_all())))
