"""Feed the video reader mutated files: bits, ranges, boxes and length fields changed, seeded.

Whatever the bytes are, the reader must yield frames (perhaps with a warning) or raise VideoError,
within a minute; another exception, a hang or a crash of this process is a fault. The decoder runs
in a process of its own: that it dies is no fault, but it is counted.

    python scripts/fuzz_video.py --n 500 --out benchmarks/video-fuzz.json
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import pairwise, repeat
from pathlib import Path

from retake_edge.errors import VideoError
from retake_edge.video.process import VideoLimits
from retake_edge.video.read import VideoWarning, sample_frames

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "tests" / "data" / "video"
FORMATS = (
    "h264.mp4",
    "fragmented.mp4",
    "vfr.mkv",
    "vp9.webm",
    "h264.avi",
    "start_5s.ts",
    "mpeg2.mpg",
    "flv1.flv",
)
MAX_S = 60.0
LIMITS = VideoLimits(no_progress_s=30.0)
Span = tuple[int, int]


@dataclass(frozen=True)
class Outcome:
    """What came of one mutated file: "frames", "warned", "refused" or "fault"."""

    number: int
    source: str
    mutation: str
    kind: str
    said: str
    seconds: float


def mp4_boxes(data: bytes, start: int = 0, end: int | None = None) -> Iterator[Span]:
    """Yield the (start, end) of the boxes, also those inside of others."""
    end = len(data) if end is None else end
    while start + 8 <= end:
        size = int.from_bytes(data[start : start + 4], "big")
        if size < 8 or start + size > end:
            return
        yield start, start + size
        if data[start + 4 : start + 8] in (
            b"moov",
            b"trak",
            b"mdia",
            b"minf",
            b"stbl",
            b"moof",
            b"traf",
            b"edts",
            b"mvex",
        ):
            yield from mp4_boxes(data, start + 8, start + size)
        start += size


def between(mark: bytes) -> Callable[[bytes], Iterator[Span]]:
    """Return the function that yields the spans from one `mark` to the next."""

    def spans(data: bytes) -> Iterator[Span]:
        places, at = [], data.find(mark)
        while at >= 0:
            places.append(at)
            at = data.find(mark, at + 1)
        yield from pairwise([*places, len(data)])

    return spans


def packets(data: bytes) -> Iterator[Span]:
    """Yield the packets of a transport stream."""
    for start in range(0, len(data) - 187, 188):
        yield start, start + 188


def parts_of(name: str, data: bytes) -> list[Span]:
    """Return the units that a file of this format is built of."""
    spans: dict[str, Callable[[bytes], Iterator[Span]]] = {
        "mp4": mp4_boxes,
        "mkv": between(b"\x1f\x43\xb6\x75"),  # Cluster
        "webm": between(b"\xa3"),  # SimpleBlock, more or less
        "avi": between(b"00dc"),
        "ts": packets,
        "mpg": between(b"\x00\x00\x01"),
        "flv": between(b"\x09\x00"),  # the head of a video tag, more or less
    }
    found = list(spans[name.rsplit(".", 1)[1]](data))
    return found or [(0, len(data))]


def some_range(rng: random.Random, data: bytearray, most: int = 4096) -> Span:
    start = rng.randrange(len(data))
    return start, min(len(data), start + rng.randint(1, most))


def flip_bits(rng: random.Random, data: bytearray, parts: list[Span]) -> None:
    for _ in range(rng.choice((1, 4, 16, 64))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def flip_head(rng: random.Random, data: bytearray, parts: list[Span]) -> None:
    for _ in range(rng.choice((1, 2, 8))):
        data[rng.randrange(min(512, len(data)))] ^= 1 << rng.randrange(8)


def cut_end(rng: random.Random, data: bytearray, parts: list[Span]) -> None:
    del data[rng.randrange(1, len(data)) :]


def cut_start(rng: random.Random, data: bytearray, parts: list[Span]) -> None:
    del data[: rng.randrange(1, len(data))]


def cut_middle(rng: random.Random, data: bytearray, parts: list[Span]) -> None:
    start, end = some_range(rng, data)
    del data[start:end]


def zero_range(rng: random.Random, data: bytearray, parts: list[Span]) -> None:
    start, end = some_range(rng, data)
    data[start:end] = bytes(end - start)


def noise_range(rng: random.Random, data: bytearray, parts: list[Span]) -> None:
    start, end = some_range(rng, data)
    data[start:end] = rng.randbytes(end - start)


def swap_parts(rng: random.Random, data: bytearray, parts: list[Span]) -> None:
    (a, b), (c, d) = sorted((rng.choice(parts), rng.choice(parts)))
    if b <= c:
        data[a:d] = data[c:d] + data[b:c] + data[a:b]


def repeat_part(rng: random.Random, data: bytearray, parts: list[Span]) -> None:
    start, end = rng.choice(parts)
    data[end:end] = data[start:end] * rng.choice((1, 2, 50))


def drop_part(rng: random.Random, data: bytearray, parts: list[Span]) -> None:
    start, end = rng.choice(parts)
    del data[start:end]


def change_length(rng: random.Random, data: bytearray, parts: list[Span]) -> None:
    """Overwrite four bytes at or near the head of a unit, where lengths and counts lie."""
    at = min(len(data) - 4, rng.choice(parts)[0] + rng.choice((0, 4, 8, 12, 16, 20, 24)))
    value = rng.choice((0, 1, 7, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, rng.getrandbits(32)))
    data[at : at + 4] = value.to_bytes(4, rng.choice(("big", "little")))


def join(rng: random.Random, data: bytearray, parts: list[Span]) -> None:
    """Let the file, or a part of it, follow itself."""
    data += data[: rng.choice((len(data), rng.randrange(1, len(data))))]


MUTATIONS: tuple[Callable[[random.Random, bytearray, list[Span]], None], ...] = (
    flip_bits,
    flip_head,
    cut_end,
    cut_start,
    cut_middle,
    zero_range,
    noise_range,
    swap_parts,
    repeat_part,
    drop_part,
    change_length,
    join,
)


def mutated(number: int, seed: int) -> tuple[str, str, bytes]:
    """Return the source's name, the mutations' names and the bytes of mutated file `number`."""
    rng = random.Random(f"{seed} {number}")
    source = FORMATS[number % len(FORMATS)]
    data = bytearray((DATA / source).read_bytes())
    parts = parts_of(source, bytes(data))
    chosen = rng.choices(MUTATIONS, k=rng.choice((1, 1, 2, 3)))
    for mutate in chosen:
        if len(data) > 8:
            mutate(rng, data, parts)
            parts = parts_of(source, bytes(data))
    return source, "+".join(m.__name__ for m in chosen), bytes(data)


def read(path: Path) -> tuple[str, str]:
    """Sample a file as `ask` does; return the kind of outcome and what was said."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        last_s = -1.0
        try:
            batches = sample_frames(path, fps=2, max_frames=64, target_size=(64, 32), limits=LIMITS)
            for batch in batches:
                times_s = [last_s, *batch.times_s.tolist()]
                if any(b <= a for a, b in pairwise(times_s)):
                    return "fault", f"times do not rise: {times_s}"
                last_s = times_s[-1]
        except VideoError as error:
            return "refused", str(error).replace(str(path), path.name)
        except Exception as error:
            return "fault", f"{type(error).__name__}: {error}"
    strange = [w for w in caught if not issubclass(w.category, VideoWarning)]
    if strange:
        return "fault", f"warned: {strange[0].message}"
    said = str(caught[0].message).replace(str(path), path.name) if caught else ""
    return ("warned" if caught else "frames"), said


def attempt(number: int, seed: int, folder: Path) -> Outcome:
    """Write mutated file `number`, read it, and say what came of it."""
    source, mutation, data = mutated(number, seed)
    path = folder / f"{number}-{source}"
    path.write_bytes(data)
    began_s = time.monotonic()
    kind, said = read(path)
    seconds = round(time.monotonic() - began_s, 2)
    path.unlink()
    if seconds > MAX_S:
        kind, said = "fault", f"took {seconds} s"
    return Outcome(number, source, mutation, kind, said, seconds)


def attempts(n: int, seed: int, folder: Path, jobs: int) -> Iterator[Outcome]:
    """Try `n` mutated files, `jobs` at a time (warnings are caught for a whole process)."""
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(attempt, range(n), repeat(seed), repeat(folder))


def command_line_exit(number: int, seed: int, folder: Path) -> tuple[int, str]:
    """Ask the command line about a mutated file; return its exit code and standard error."""
    source, _, data = mutated(number, seed)
    path = folder / f"{number}-{source}"
    path.write_bytes(data)
    command = [sys.executable, "-m", "retake_edge", "ask", str(path), "When?", "-m", "tiny"]
    done = subprocess.run(
        [*command, "--no-cache"], capture_output=True, text=True, timeout=2 * MAX_S
    )
    return done.returncode, done.stderr


def document(outcomes: list[Outcome], seed: int) -> dict[str, object]:
    """Return the run file."""
    kinds = Counter(o.kind for o in outcomes)
    by_format = {
        name: dict(sorted(Counter(o.kind for o in outcomes if o.source == name).items()))
        for name in FORMATS
    }
    died = [o for o in outcomes if "ended unexpectedly" in o.said]
    return {
        "command": f"python scripts/fuzz_video.py --n {len(outcomes)} --seed {seed} "
        "--out benchmarks/video-fuzz.json",
        "n_files": len(outcomes),
        "seed": seed,
        "outcomes": dict(sorted(kinds.items())),
        "by_format": by_format,
        "n_decoder_died": len(died),
        "n_stalled": sum("made no progress" in o.said for o in outcomes),
        "slowest_s": max(o.seconds for o in outcomes),
        "faults": [asdict(o) for o in outcomes if o.kind == "fault"],
        "decoder_died": [asdict(o) for o in died],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 2)
    parser.add_argument("--out", type=Path, help="write the run file here")
    parser.add_argument("--all", action="store_true", help="print every outcome")
    given = parser.parse_args()
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="fuzz-video-") as scratch:
        for outcome in attempts(given.n, given.seed, Path(scratch), given.jobs):
            outcomes.append(outcome)
            if given.all or outcome.kind == "fault" or outcome.seconds > 10:
                print(*asdict(outcome).values(), sep="  ", flush=True)
    run_file = document(outcomes, given.seed)
    print(
        f"{given.n} files: {run_file['outcomes']}, slowest {run_file['slowest_s']} s, "
        f"decoder died {run_file['n_decoder_died']} times"
    )
    if given.out:
        given.out.write_text(json.dumps(run_file, indent=1) + "\n")
    return 1 if run_file["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
