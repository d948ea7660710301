"""The decoder process: OpenCV runs here, so that a bad file can only take this process down.

`retake_edge.video` starts it (`python -m retake_edge.video_worker`), writes two JSON lines to its
standard input (which file, then which frames) and reads messages from its standard output. A
message is a 12 byte head (length of the JSON part: uint32; length of the raw part: uint64; both
little-endian), the JSON part, and the raw part (frames only).

The file is read twice. First only demuxed, which costs one read of the file and gives the exact
time of every frame; OpenCV's header fields are estimates, and wrong for variable frame rates and
for files whose clock does not start at 0. Then decoded, front to back, jumping ahead to a key
frame where the next wanted frame is far away.
"""

from __future__ import annotations

import json
import math
import os
import struct
import sys
import time
from collections.abc import Mapping
from functools import partial
from typing import Any, BinaryIO

from retake_edge.video_index import (
    FALLBACK_FRAME_S,
    FrameIndex,
    Goal,
    compare_first_frame,
    scan,
    shown_frames,
)

MESSAGE_HEAD = struct.Struct("<IQ")
HEARTBEAT_S = 0.5
MAX_DECODER_THREADS = 8
# Demuxers that read one file and nothing else: no playlists, no image sequences, no devices.
CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,live_flv,asf,ogg,mxf,nut,"
    "rm,wtv,dv,gif,ivf,obu,av1,h264,hevc,vvc,m4v,yuv4mpegpipe"
)


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

    def send(self, message: Mapping[str, object], raw: bytes | memoryview = b"") -> None:
        head = json.dumps(message).encode()
        self.out.write(MESSAGE_HEAD.pack(len(head), len(raw)))
        self.out.write(head)
        self.out.write(raw)
        self.out.flush()
        extend_cpu_limit(self.no_progress_s)
        self.beat_at_s = time.monotonic()

    def beat(self) -> None:
        """Tell the parent that work goes on, at most every HEARTBEAT_S."""
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
    soft = int(used_s + seconds * MAX_DECODER_THREADS) + 1
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


def open_capture(path: str, demux_only: bool = False) -> Any:
    """Open `path` with FFmpeg on the CPU; `demux_only` makes grab() read packets undecoded."""
    import cv2

    if demux_only:  # OpenCV refuses the options of decoding together with this one
        options = [cv2.CAP_PROP_FORMAT, -1]
    else:
        options = [cv2.CAP_PROP_HW_ACCELERATION, cv2.VIDEO_ACCELERATION_NONE]
        options += [cv2.CAP_PROP_N_THREADS, min(os.cpu_count() or 1, MAX_DECODER_THREADS)]
    capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG, options)
    if not capture.isOpened():
        raise WorkerError("not_a_video")
    return capture


def describe(capture: Any, index: FrameIndex) -> dict[str, object]:
    """Collect the fields of VideoInfo; the size is after rotation (OpenCV turns the picture)."""
    import cv2

    fps = float(capture.get(cv2.CAP_PROP_FPS))
    n_header = float(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    fourcc = int(capture.get(cv2.CAP_PROP_FOURCC)) & 0xFFFFFFFF
    codec = fourcc.to_bytes(4, "little").decode("latin-1").strip("\0 ")
    last_s = index.times_s[-1]
    # A last frame has no next one that ends it: it lasts as long as the others usually do.
    frame_s = index.gap_s or (1.0 / fps if fps > 0 else FALLBACK_FRAME_S)
    header_s = n_header / fps if fps > 0 and 0 < n_header < 1e12 else 0.0
    return {
        "kind": "info",
        "width_px": int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)),
        "height_px": int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)),
        "rotation_deg": int(capture.get(cv2.CAP_PROP_ORIENTATION_META)) % 360,
        "duration_s": round(last_s + frame_s, 6),
        "frame_s": frame_s,
        "n_frames": len(index.times_s),
        "codec": codec,
        "fps_nominal": fps,
        # Some containers count from the absolute clock's zero, others from the first frame.
        "missing_s": max(0.0, round(header_s - max(last_s, index.last_pts_s) - frame_s, 6)),
    }


def check_size(capture: Any, max_pixels: int) -> None:
    """Refuse a picture that is too large, as the header states it, before any decoding."""
    import cv2

    width = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH))
    height = int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
    if width * height > max_pixels:
        raise WorkerError("too_large", width_px=width, height_px=height)


def decode(path: str, index: FrameIndex, channel: Channel, plan: dict[str, Any]) -> None:
    """Send the frames that are shown at the planned times, in batches, each frame once."""
    import numpy as np

    goal = Goal(plan["start_s"], plan["step_s"], plan["n"], index.gap_s / 2)
    width, height = plan["width_px"], plan["height_px"]
    frames: list[Any] = []
    times_s: list[float] = []

    def flush() -> None:
        if frames:
            batch = np.stack(frames)
            head = {"kind": "frames", "times_s": times_s, "shape": batch.shape}
            channel.send(head, batch.tobytes())
            frames.clear()
            times_s.clear()

    last_s = -math.inf
    if plan["after_s"] is not None:
        last_s = plan["after_s"]
        goal.next = goal.first_from(index.span(last_s, goal.slack_s)[1])
    capture_of = partial(open_capture, path)
    for time_s, capture in shown_frames(capture_of, index, goal, channel.beat):
        if time_s <= last_s or not goal.wants(*index.span(time_s, goal.slack_s)):
            continue
        ok, picture = capture.retrieve()
        if not ok:
            goal.n_missed += 1
            continue
        if picture.shape[0] * picture.shape[1] > plan["max_pixels"]:
            raise WorkerError("too_large", width_px=picture.shape[1], height_px=picture.shape[0])
        last_s = time_s
        frames.append(resize(picture, width, height, plan["fit"], plan["resample"], plan["via_px"]))
        times_s.append(time_s)
        if len(frames) == plan["batch_frames"]:
            flush()
        if goal.next >= goal.n:
            break
    flush()
    channel.send({"kind": "end", "n_missed": goal.n_missed + goal.n - goal.next})


def resize(
    picture: Any, width: int, height: int, fit: str, resample: str, via_px: int | None = None
) -> Any:
    """Scale a BGR picture to (height, width, 3) RGB; `pad` keeps its shape and centres it.

    `via_px`: with a filter, the longer side of a first step that keeps its shape.
    """
    import cv2
    import numpy as np

    from retake_edge.resample import long_side_size
    from retake_edge.resample import resample as filtered

    rgb = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
    if via_px is not None and resample != "area":
        rgb = filtered(rgb, *long_side_size(rgb.shape[1], rgb.shape[0], via_px), resample)
    scale = min(width / rgb.shape[1], height / rgb.shape[0])
    inner_w, inner_h = width, height
    if fit == "pad":
        inner_w = min(width, max(1, round(rgb.shape[1] * scale)))
        inner_h = min(height, max(1, round(rgb.shape[0] * scale)))
    if resample != "area":
        rgb = filtered(rgb, inner_w, inner_h, resample)
    elif (inner_w, inner_h) != (rgb.shape[1], rgb.shape[0]):
        # Area averaging has no aliasing, but turns into pixel repetition when enlarging.
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        rgb = cv2.resize(rgb, (inner_w, inner_h), interpolation=method)
    if (inner_w, inner_h) == (width, height):
        return rgb
    canvas = np.zeros((height, width, 3), np.uint8)
    top, left = (height - inner_h) // 2, (width - inner_w) // 2
    canvas[top : top + inner_h, left : left + inner_w] = rgb
    return canvas


def serve(request: dict[str, Any], channel: Channel, commands: BinaryIO) -> None:
    """Index the file, prove that a frame decodes, then send the frames that are asked for."""
    import cv2

    cv2.setNumThreads(1)
    limit_memory(request["max_memory_bytes"])
    demuxer = open_capture(request["path"], demux_only=True)
    check_size(demuxer, request["max_pixels"])
    index = scan(demuxer, channel.beat)
    demuxer.release()
    if index is None:
        raise WorkerError("no_frames")
    decoder = open_capture(request["path"])
    if not decoder.grab():
        raise WorkerError("undecodable", codec=describe(decoder, index)["codec"])
    index = compare_first_frame(decoder, index)
    channel.send(describe(decoder, index))
    decoder.release()
    line = commands.readline()
    if line:
        decode(request["path"], index, channel, json.loads(line))


def main() -> None:
    """Read the request, serve it, and report every failure as a message."""
    # FFmpeg and OpenCV may print: keep the message stream to ourselves, print to stderr.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    commands = sys.stdin.buffer
    request = json.loads(commands.readline())
    channel = Channel(out, request["no_progress_s"])
    options = f"protocol_whitelist;file|format_whitelist;{CONTAINERS}"
    os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = options
    try:
        serve(request, channel, commands)
    except WorkerError as error:
        channel.send({"kind": "error", "code": error.code, **error.values})
    except MemoryError:
        channel.send({"kind": "error", "code": "memory"})
    except ImportError as error:
        channel.send({"kind": "error", "code": "no_opencv", "reason": str(error)})
    except BrokenPipeError:
        os._exit(0)  # the parent is gone: nobody to tell, nothing to flush
    except Exception as error:  # a cv2.error: the parent turns it into a sentence about the file
        code = "memory" if "Insufficient memory" in str(error) else "failed"
        channel.send({"kind": "error", "code": code, "reason": " ".join(str(error).split())[:300]})


if __name__ == "__main__":
    main()
