"""Run everything once on the device that the built libraries see, and count.

    make device-check                       or: .venv/bin/python scripts/device_check.py [DIR ...]

The native tests, the golden data of tests/golden (and of each DIR), and the questions about the
bundled video, on the GPU that the build finds; without one on the processor, which the last line
says. What fails is printed; nothing is skipped unseen. Exit code 0: all passed.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from retake_edge.doctor.self_test import QUESTIONS
from retake_edge.llama.buffers import buffers_of
from retake_edge.llama.context import Context
from retake_edge.llama.devices import devices
from retake_edge.llama.model import Model

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "models" / "tiny" / "tiny-lm-q8_0.gguf"
DEMO = ROOT / "models" / "tiny" / "demo.mp4"
NATIVE_TESTS = ("kvc", "bias", "hybrid", "flash")
OTHER_TESTS = ("test_score_windows.py", "test_evidence.py", "test_engine.py")
Counts = dict[str, int]


def main(folders: Sequence[str]) -> int:
    """Run all parts; return the exit code."""
    gpus = [device for device in devices() if device.is_gpu]
    named = ", ".join(f"{device.name} ({device.description})" for device in gpus)
    where = named or "the CPU (this build sees no device)"
    print(f"Device check on {where}", flush=True)
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    for part in _parts(folders, gpus != []):
        for name, n in part.items():
            counts[name] += n
    print(f"{where}: " + ", ".join(f"{n} {name}" for name, n in counts.items()))
    return 0 if counts["passed"] and not counts["failed"] + counts["skipped"] else 1


def _parts(folders: Sequence[str], has_gpu: bool) -> Iterator[Counts]:
    if has_gpu:
        yield _placed()
    files = [f"test_native_{name}.py" for name in NATIVE_TESTS] + list(OTHER_TESTS)
    yield _counted("pytest", "-q", *(str(ROOT / "tests" / name) for name in files))
    for folder in [str(ROOT / "tests" / "golden"), *folders]:
        yield _counted("retake_edge.golden", folder, "--device")
    for question, expected in QUESTIONS.items():
        yield _asked(question, expected)


def _placed() -> Counts:
    """Whether weights and cells of a model lie on the device when nothing is said of it."""
    with Model(MODEL) as model, Context(model, n_ctx=256) as context:
        uses = buffers_of(context)
    on_device = [use for use in uses if use.device]
    ok = any(use.weights for use in on_device) and any(use.cells for use in on_device)
    print("weights and cells lie " + ("on the device" if ok else "in this machine's own memory"))
    return {"passed": int(ok), "failed": int(not ok)}


def _counted(*module: str) -> Counts:
    """Run a module whose last line counts what passed and failed."""
    lines = []
    command = [sys.executable, "-m", *module]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    found = {word: int(n) for n, word in re.findall(r"(\d+) (\w+)", lines[-1] if lines else "")}
    counts = {
        "passed": found.get("passed", 0),
        "failed": sum(found.get(word, 0) for word in ("failed", "error", "errors")),
        "skipped": sum(found.get(word, 0) for word in ("skipped", "xfailed", "xpassed")),
    }
    if process.returncode and not counts["failed"]:
        print(f"{module[0]} ended with {process.returncode} and no count of failures")
        counts["failed"] = 1
    return counts


def _asked(question: str, expected: str) -> Counts:
    """Ask about the bundled video, each time reading it anew."""
    command = [sys.executable, "-m", "retake_edge", "ask", "--no-cache", "--json"]
    command += ["--model", "tiny", "--keep-ratio", "0.25", str(DEMO), question]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    said = str(json.loads(done.stdout)["text"]) if done.returncode == 0 else done.stderr.strip()
    ok = done.returncode == 0 and said == expected
    print(f"ask: {question} {said}" + ("" if ok else f", not {expected} (exit {done.returncode})"))
    return {"passed": int(ok), "failed": int(not ok)}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
