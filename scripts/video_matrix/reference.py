"""What ffmpeg and ffprobe say of a file: the stream, its frames with their times, its length.

ffmpeg's own command line is asked, not its libraries: it picks the stream, turns the picture,
joins clocks that start again, and shifts times so that the file's start is 0, as players do.
"""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Reference:
    """`stream`: the index ffmpeg takes. `times_s`: of its frames, in order. `frames`: (N, H, W, 3).

    `end_s`: the time of the last frame and how long its packet says it lasts.
    """

    stream: int
    times_s: list[float]
    frames: npt.NDArray[np.uint8]
    end_s: float


def decode(path: Path, width: int, height: int, deinterlace: bool) -> Reference:
    """Decode the whole of `path` with ffmpeg at `width` x `height`, deinterlaced where asked."""
    filters = ["yadif=deint=interlaced"] if deinterlace else []
    filters += ["showinfo", f"scale={width}:{height}:flags=area"]
    command = [
        *["ffmpeg", "-nostdin", "-hide_banner", "-i", path.name],
        *["-vf", ",".join(filters), "-fps_mode", "passthrough", "-f", "rawvideo"],
        *["-pix_fmt", "rgb24", "pipe:1"],
        # A stream that no output uses does not count where the file's start is looked for.
        *["-map", "0:a?", "-c", "copy", "-f", "null", "-"],
    ]
    done = subprocess.run(command, cwd=path.parent, capture_output=True, timeout=60)
    said = done.stderr.decode(errors="replace")
    times_s = [float(t) for t in re.findall(r"\bn: *\d+ pts: *\S+ pts_time:(\S+)", said)]
    frames = np.frombuffer(done.stdout, np.uint8)
    size = width * height * 3
    frames = frames[: len(frames) // size * size].reshape(-1, height, width, 3)
    found = re.search(r"Stream #0:(\d+).* -> #0:0", said)
    if not found or not len(frames):
        raise RuntimeError(f"ffmpeg shows nothing of {path.name}: {said[-400:]}")
    stream = int(found[1])
    times_s = times_s[: len(frames)]
    return Reference(stream, times_s, frames[: len(times_s)], times_s[-1] + last_s(path, stream))


def last_s(path: Path, stream: int) -> float:
    """Return how long the last shown packet of a stream lasts, or 0 where it does not say."""
    entries = "packet=pts_time,duration_time"
    packets = probe(path, "-select_streams", str(stream), "-show_entries", entries)["packets"]
    timed = [p for p in packets if "pts_time" in p]
    if not timed:
        return 0.0
    last = max(timed, key=lambda p: float(p["pts_time"]))
    return float(last.get("duration_time", 0.0))


def probe(path: Path, *options: str) -> dict[str, Any]:
    """Return ffprobe's JSON."""
    command = ["ffprobe", "-v", "quiet", "-of", "json", *options, path.name]
    done = subprocess.run(command, cwd=path.parent, capture_output=True, check=True, timeout=60)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer
