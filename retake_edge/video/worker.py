"""The decoder process: PyAV runs here, so that a bad file can only take this process down.

`video.read` starts it (`python -m retake_edge.video.worker`), writes JSON lines to its standard
input (which file, then which frames, as often as there are some) and reads messages from its
standard output. A message is a 12 byte head (length of the JSON part: uint32; length of the raw
part: uint64; both little-endian), the JSON part, and the raw part (frames only).

The file is read twice. First only its packets, which costs one read of the file and gives the time
of every picture; headers are estimates. Then decoded, from key frame to key frame where the wanted
pictures are far apart. What is to be glanced at between them goes by in the same pass.
"""

from __future__ import annotations

import json
import os
import struct
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, replace
from functools import partial
from importlib import import_module
from itertools import islice
from threading import Lock
from typing import Any, BinaryIO, TypeVar

from retake_edge.stages import StageTimes
from retake_edge.video.frames import decoded, shown_pictures
from retake_edge.video.goal import Goal, Goals
from retake_edge.video.index import FrameIndex, index_film
from retake_edge.video.mark import is_marked
from retake_edge.video.packets import PacketLog
from retake_edge.video.picture import finished, rotation_deg, shown_size
from retake_edge.video.pieces import WHOLE, Piece, pieces_of
from retake_edge.video.stream import MAX_THREADS, Film, Join, NoFilmError

MESSAGE_HEAD = struct.Struct("<IQ")
HEARTBEAT_S = 0.5
T = TypeVar("T")
MAX_SLACK_S = 0.02  # time stamps are rounded: a picture that begins this much later serves a time


class WorkerError(Exception):
    """A failure to report to the parent: `code` is a word that it turns into a sentence."""

    def __init__(self, code: str, **values: object) -> None:
        super().__init__(code)
        self.code = code
        self.values = values


class Channel:
    """The way to the parent process, with a heartbeat that says "still working"."""

    def __init__(self, out: BinaryIO, no_progress_s: float) -> None:
        self.out = out
        self.no_progress_s = no_progress_s
        self.beat_at_s = 0.0
        self.furthest = -1
        self.lock = Lock()  # frames and the heartbeat come from two threads

    def start_pass(self) -> None:
        """Let the next reading of the file begin at its start."""
        self.furthest = -1

    def send(self, message: Mapping[str, object], raw: bytes | memoryview = b"") -> None:
        """Write a message, and `raw` after it, to the parent; extend the limit of CPU seconds."""
        head = json.dumps(message).encode()
        with self.lock:
            self.out.write(MESSAGE_HEAD.pack(len(head), len(raw)))
            self.out.write(head)
            self.out.write(raw)
            self.out.flush()
        extend_cpu_limit(self.no_progress_s)
        self.beat_at_s = time.monotonic()

    def beat(self, position: int) -> None:
        """Tell the parent that the file was read further, at most every HEARTBEAT_S.

        `position` is in bytes; a reader that goes in circles makes no progress.
        """
        if position > self.furthest:
            self.furthest = position
            if time.monotonic() - self.beat_at_s >= HEARTBEAT_S:
                self.send({"kind": "alive"})


def extend_cpu_limit(seconds: float) -> None:
    """Let all threads compute `seconds` more: the kernel ends a worker that hangs unwatched."""
    if sys.platform == "win32":
        return
    import resource

    usage = resource.getrusage(resource.RUSAGE_SELF)
    used_s = usage.ru_utime + usage.ru_stime
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    soft = int(used_s + seconds * MAX_THREADS) + 1
    if hard != resource.RLIM_INFINITY:
        soft = min(soft, hard)
    resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


def limit_memory(max_bytes: int) -> None:
    """Cap the address space at what is mapped now (the libraries) plus `max_bytes`; Linux only."""
    if sys.platform != "linux":
        return
    import resource

    with open("/proc/self/statm") as statm:
        mapped_bytes = int(statm.read().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    soft = mapped_bytes + max_bytes
    if hard != resource.RLIM_INFINITY:
        soft = min(soft, hard)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def open_film(
    path: str, piece: Piece = WHOLE, begins_s: float = 0.0, joins: tuple[Join, ...] = ()
) -> Film:
    """Open a piece of `path`; what goes wrong is said as a WorkerError."""
    import av

    try:
        return Film(path, piece, begins_s, joins)
    except NoFilmError:
        raise WorkerError("no_film") from None
    except (av.error.FFmpegError, OSError) as error:
        raise WorkerError("not_a_video", reason=str(error)) from None


def open_again(path: str, index: FrameIndex, channel: Channel) -> Film:
    """Open what was indexed, to be read from its start."""
    channel.start_pass()
    return open_film(path, index.piece, index.begins_s, index.joins)


def index_pieces(path: str, channel: Channel, max_pixels: int) -> tuple[list[FrameIndex], int]:
    """Index the recordings in a file, each after the one before; also tell how many cannot be read.

    Raises:
        WorkerError: none can be read; it is the first one's.
    """
    found: list[FrameIndex] = []
    errors: list[WorkerError] = []
    begins_s = 0.0
    for piece in pieces_of(path, channel.beat):
        channel.start_pass()
        try:
            with open_film(path, piece, begins_s) as film:
                context = film.stream.codec_context
                check_size(context.width, context.height, max_pixels)
                index = index_film(film, channel.beat)
            if index is None:
                raise WorkerError("no_frames")
            begins_s = max(index.end_s, film.read_to_s)
            found.append(index)
        except WorkerError as error:
            errors.append(error)
    if not found:
        raise errors[0]
    for at, follower in enumerate(found[1:]):
        found[at] = replace(found[at], end_s=follower.times_s[0])  # a last picture is held
    return found, len(errors)


def describe(film: Film, pieces: list[FrameIndex], frame: Any) -> dict[str, object]:
    """Collect the fields of VideoInfo from the indices and the first frame."""
    width, height = shown_size(frame, film)
    return {
        "width_px": width,
        "height_px": height,
        "rotation_deg": rotation_deg(film.matrix),
        "duration_s": pieces[-1].end_s,
        "frame_s": pieces[0].gap_s,
        "n_frames": sum(len(piece.times_s) for piece in pieces),
        "codec": film.codec,
        "fps_nominal": 1.0 / film.frame_s,
        "missing_s": sum(piece.missing_s for piece in pieces),
        "first_s": max(0.0, pieces[0].times_s[0]),
        "is_scene": is_marked(film.container.metadata),
    }


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Refuse a picture that is too large."""
    if width * height > max_pixels:
        raise WorkerError("too_large", width_px=width, height_px=height)


def decode(
    request: dict[str, Any], pieces: list[FrameIndex], channel: Channel, plan: dict[str, Any]
) -> None:
    """Send the pictures of the planned times, in batches, and what was glanced at between them."""
    import numpy as np

    from retake_edge.video.glance import Glance

    glanced_at = plan["glance"]
    goals = [goal_of(pieces[0], part) for part in (plan, glanced_at) if part is not None]
    goal, glance = goals[0], Glance(glanced_at["seen_s"] if glanced_at else ())
    decoding, scaling = StageTimes(), StageTimes()  # one for each thread
    reopen = partial(open_again, request["path"], channel=channel)
    shown_ones = shown_pictures(reopen, pieces, Goals(*goals), channel.beat)

    def pictures() -> Iterator[tuple[float, Any]]:
        last, picture = None, None
        for wanted_by, time_s, shown in ahead(decoding.each("decode", shown_ones)):
            check_size(shown.frame.width, shown.frame.height, request["max_pixels"])
            with scaling.measure("scale"):
                if wanted_by is not goal:
                    glance.add(time_s, finished(shown, glanced_at))
                    continue
                if shown.frame is not last:
                    last, picture = shown.frame, finished(shown, plan)
            yield time_s, picture

    coming = pictures()
    while batch := list(islice(coming, plan["batch_frames"])):
        times_s, frames = zip(*batch, strict=True)
        pixels = np.stack(frames)
        seconds = {**decoding.seconds, **scaling.seconds}
        head = {"kind": "frames", "times_s": times_s, "shape": pixels.shape, "seconds": seconds}
        channel.send(head, pixels.tobytes())
    n_missed = goal.n_missed + goal.n - goal.next
    found = glance.found()
    glanced = {"moments": [astuple(m) for m in found.moments], "seen_s": found.seen_s.tolist()}
    end = {"kind": "end", "n_given": goal.n_given, "n_missed": n_missed, **glanced}
    channel.send(end, found.seen.tobytes())


def goal_of(first: FrameIndex, plan: dict[str, Any]) -> Goal:
    """Return the planned times as a goal; `first`: the first piece of the video."""
    slack_s = min(first.gap_s / 2, MAX_SLACK_S)
    grid = plan["start_s"], plan["step_s"], plan["n"]
    goal = Goal(*grid, slack_s, first.gap_s, times_s=plan["times_s"])
    goal.begin(first.times_s[0], plan["after_s"])
    return goal


def ahead(items: Iterator[T]) -> Iterator[T]:
    """Yield `items`; while one is used, another thread makes the next."""
    with ThreadPoolExecutor(1) as maker:
        coming = maker.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = maker.submit(next, items, None)
            yield item


def serve(request: dict[str, Any], channel: Channel, commands: BinaryIO) -> None:
    """Index the file, prove that a frame decodes, then send the frames that each line asks for."""
    for library in ("av", "numpy"):  # what they map does not count
        import_module(library)
    limit_memory(request["max_memory_bytes"])
    path = request["path"]
    pieces, n_unread = index_pieces(path, channel, request["max_pixels"])
    with open_again(path, pieces[0], channel) as film:
        first = next(decoded(film, pieces[0], Goals(Goal(0.0, 1.0, 1, 0.0)), channel.beat), None)
        if first is None:
            code = "webp" if film.codec == "webp" else "undecodable"
            raise WorkerError(code, codec=film.codec)
        info = describe(film, pieces, first[1])
        del first
    packets = PacketLog.joined(piece.packets for piece in pieces)
    channel.send({"kind": "info", **info, "n_unread": n_unread}, packets.to_bytes())
    for line in iter(commands.readline, b""):
        decode(request, pieces, channel, json.loads(line))


def run(served: Callable[[dict[str, Any], Channel, BinaryIO], None]) -> None:
    """Read a request and serve it; whatever that raises becomes a message to the parent."""
    # FFmpeg and OpenCV may print: keep the message stream to ourselves, print to stderr.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    commands = sys.stdin.buffer
    request = json.loads(commands.readline())
    channel = Channel(out, request["no_progress_s"])
    extend_cpu_limit(request["no_progress_s"])
    try:
        served(request, channel, commands)
    except WorkerError as error:
        channel.send({"kind": "error", "code": error.code, **error.values})
    except MemoryError:
        channel.send({"kind": "error", "code": "memory"})
    except ImportError as error:
        channel.send({"kind": "error", "code": "no_pyav", "reason": str(error)})
    except BrokenPipeError:
        os._exit(0)  # the parent is gone: nobody to tell, nothing to flush
    except Exception as error:  # the parent turns it into a sentence about the file
        code = "memory" if "annot allocate memory" in str(error) else "failed"
        channel.send({"kind": "error", "code": code, "reason": " ".join(str(error).split())[:300]})


if __name__ == "__main__":
    run(serve)
