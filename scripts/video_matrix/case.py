"""One file of the matrix: how it is made, and what must be seen in it, known without ffmpeg."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from video_matrix.picture import UPRIGHT, draw

WIDTH_PX, HEIGHT_PX = 176, 144
FPS, N_FRAMES = 25, 100
DEMO = Path(__file__).resolve().parent.parent.parent / "models" / "tiny" / "demo.mp4"

# A step is ffmpeg's arguments, "cat A B > C", or a function of the case's folder. In arguments,
# `src` is the usual source; `src:FPS:FIRST:END:WxH` is another (numbers FIRST to END - 1),
# `demo` is the demo video.
Step = str | Callable[[Path], None]
SOURCE = re.compile(
    r"^src(?::(?P<fps>[\d/.]+):(?P<first>\d+):(?P<end>\d+)(?::(?P<size>\d+x\d+))?)?$"
)


@dataclass(frozen=True)
class Truth:
    """What a person sees: picture `numbers[i]` from `starts_s[i]` on, until `end_s`.

    `corners`: as they lie after the file's own turn. `aspect`: width / height as shown.
    """

    numbers: tuple[int, ...]
    starts_s: tuple[float, ...]
    end_s: float
    corners: tuple[tuple[str, str], tuple[str, str]] = UPRIGHT
    aspect: float = WIDTH_PX / HEIGHT_PX


@dataclass(frozen=True)
class Case:
    """One file, `name`, made in a folder of its own by `steps`.

    `mark`: words that change how it is compared (see `compare`): "interlaced"; "gray"; "hdr"
    (PSNR is not asked for: ffmpeg shows such colours pale); "still" (no length); "damaged"
    (there may be warnings, and pictures are compared with ffmpeg's alone); "length" (only
    ffmpeg says how much is left); "refused" (exit 3 is right); "wild" (ffmpeg itself shows
    other times than were drawn: the numbers alone are compared).
    `min_psnr_db`: against ffmpeg's own picture. `blur`: how far a number read may be off.
    """

    name: str
    steps: tuple[Step, ...]
    truth: Truth
    mark: frozenset[str] = field(default_factory=frozenset)
    min_psnr_db: float = 32.0
    blur: int = 0


def even(
    n: int = N_FRAMES, fps: float = FPS, *, offset_s: float = 0.0, first: int = 0, **other: Any
) -> Truth:
    """Return the truth of `n` frames at one rate, the first number `first` at `offset_s`."""
    starts_s = tuple(offset_s + k / fps for k in range(n))
    numbers = tuple(range(first, first + n))
    return Truth(numbers, starts_s, offset_s + n / fps, **other)


def case(name: str, *steps: Step, truth: Truth | None = None, mark: str = "", **other: Any) -> Case:
    """Return a Case; a single step of ffmpeg arguments needs no input and no output named."""
    return Case(
        name,
        steps,
        truth or even(),
        frozenset(mark.split()),
        **other,
    )


def make_file(name: str, steps: tuple[Step, ...], folder: Path, sources: Path) -> Path:
    """Make the file `name` in `folder` (emptied first) and return its path."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for step in steps:
        if callable(step):
            step(folder)
        elif step.startswith("cat "):
            parts, target = step[4:].split(" > ")
            (folder / target).write_bytes(
                b"".join((folder / p).read_bytes() for p in parts.split())
            )
        else:
            run_ffmpeg(step, name, folder, sources)
    return folder / name


def run_ffmpeg(step: str, name: str, folder: Path, sources: Path) -> None:
    """Run one step; without -i it reads `src`; without an output it writes the case's file."""
    words = shlex.split(step)
    if "-i" not in words:
        words = ["-i", "src", *words]
    if not re.fullmatch(r"[\w.-]+\.[a-z]\w*", words[-1]):
        words.append(name)
    words = [str(source(w, sources)) if SOURCE.match(w) else w for w in words]
    words = [str(DEMO) if w == "demo" else w for w in words]
    command = ["ffmpeg", "-nostdin", "-v", "error", "-y", "-threads", "1", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise RuntimeError(f"{name}: {shlex.join(command)}: {done.stderr.strip()[-600:]}")


def source(word: str, sources: Path) -> Path:
    """Return the uncompressed video that a `src` word names, made at the first use."""
    found = SOURCE.match(word)
    assert found
    fps = found["fps"] or str(FPS)
    first, end = int(found["first"] or 0), int(found["end"] or N_FRAMES)
    width, height = map(int, (found["size"] or f"{WIDTH_PX}x{HEIGHT_PX}").split("x"))
    path = sources / f"{fps.replace('/', '_')}_{first}_{end}_{width}x{height}.nut"
    if not path.exists():
        sources.mkdir(parents=True, exist_ok=True)
        raw = b"".join(draw(k % 256, width, height).tobytes() for k in range(first, end))
        options = f"-f rawvideo -pix_fmt rgb24 -s {width}x{height} -r {fps} -i pipe:0"
        command = ["ffmpeg", "-v", "error", "-y", *options.split(), "-c:v", "rawvideo"]
        temporary = path.with_suffix(f".{os.getpid()}.nut")  # other jobs may make it, too
        subprocess.run([*command, str(temporary)], input=raw, check=True)
        temporary.replace(path)
    return path
