"""The life of one decoder process: started, talked to, watched, and ended on every path.

The worker is a fresh interpreter (never a fork: the parent holds llama.cpp's threads and GPU
handles) that gets its own session, so that Ctrl-C reaches only the parent, which ends it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections import deque
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from retake_edge.errors import ConfigError, VideoError
from retake_edge.video.worker import MESSAGE_HEAD

log = logging.getLogger(__name__)

ERRORS = {
    "not_a_video": "{path} is not a video that can be opened: it is another kind of file, or "
    "damaged or cut short; play it to check, or convert it with ffmpeg.",
    "no_film": "{path} is not a video: it holds sound, a cover, or a photo in tiles (HEIC) alone; "
    "give the path of a video, or convert the photo to JPEG.",
    "no_frames": "{path} holds no video frames; check that it was recorded or copied completely.",
    "undecodable": "No frame of {path} can be decoded (codec {codec}): the file is damaged or its "
    "decoder is missing; re-encode it, for example with "
    "ffmpeg -i IN -c:v libx264 OUT.mp4.",
    "webp": "{path} cannot be decoded: it is an animated WebP, which FFmpeg does not "
    "read, or damaged; convert it to GIF or MP4.",
    "too_large": "The frames of {path} have {width_px}x{height_px} pixels, above the limit of "
    "{max_pixels} pixels; scale the video down or raise max_pixels.",
    "memory": "Decoding {path} needs more than the limit of {max_memory_bytes} bytes; scale the "
    "video down or raise max_memory_bytes.",
    "no_image": "It is not a PNG, JPEG or WebP image, or it is damaged.",
    "no_pyav": "PyAV cannot be loaded to read {path} ({reason}); reinstall av and "
    "opencv-python-headless.",
    "failed": "Decoding {path} failed ({reason}); re-encode the video.",
    "stalled": "Decoding {path} made no progress for {no_progress_s:g} s and was ended; re-encode "
    "the video, or copy it to a faster disk.",
    "died": "The decoder of {path} ended unexpectedly ({status}); the file may be damaged: "
    "re-encode it, or raise max_memory_bytes (now {max_memory_bytes}).",
}


@dataclass(frozen=True)
class VideoLimits:
    """The limits of the decoder process.

    `no_progress_s`: seconds without a packet or frame before it is ended. `max_memory_bytes`:
    address space beyond its libraries (Linux). `max_pixels`: width x height of a frame.
    """

    no_progress_s: float = 30.0
    max_memory_bytes: int = 4 << 30
    max_pixels: int = 8192 * 4320

    def __post_init__(self) -> None:
        for name in ("no_progress_s", "max_memory_bytes", "max_pixels"):
            value = getattr(self, name)
            if not value > 0:
                raise ConfigError(f"{name} is {value!r}, but it must be above 0.")


class DecoderProcess:
    """A worker on one file; a context manager that leaves no process behind.

    `more`: what is told the worker besides the path and the limits.
    """

    def __init__(
        self,
        path: Path,
        limits: VideoLimits,
        module: str = "retake_edge.video.worker",
        **more: object,
    ) -> None:
        self.path, self.module = path, module
        self.no_progress_s = limits.no_progress_s
        self.request = {"path": str(path), **asdict(limits), **more}
        self.stalled = False
        self.noise: deque[bytes] = deque(maxlen=20)
        self._wait_until_s: float | None = None  # None: the parent is not waiting
        self._wake = threading.Condition()
        self._closed = False

    def __enter__(self) -> DecoderProcess:
        environment = dict(os.environ)
        # Every thread of an allocator or BLAS pool maps memory that the limit would count.
        environment.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1", MALLOC_ARENA_MAX="2")
        self.process = subprocess.Popen(
            [sys.executable, "-m", self.module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # `-m` looks in the working directory first: make that where this package lies.
            cwd=Path(__file__).resolve().parents[2],
            env=environment,
            start_new_session=True,
        )
        try:
            for task in (self._drain, self._watch):
                threading.Thread(target=task, name="retake-video", daemon=True).start()
            self.send(self.request)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def send(self, message: dict[str, object], raw: bytes = b"") -> None:
        """Write one line to the worker, and `raw`; that it is gone shows at the next `receive`."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
            self.process.stdin.write(raw)
            self.process.stdin.flush()
        except OSError:
            log.debug("the worker on %s closed its input", self.path)

    def receive(self) -> tuple[dict[str, Any], bytearray]:
        """Return the next message that is not a heartbeat, and its raw part.

        Raises:
            VideoError: the worker reported a failure, made no progress for too long, or died.
        """
        while True:
            head_len, raw_len = MESSAGE_HEAD.unpack(self._read(MESSAGE_HEAD.size))
            message: dict[str, Any] = json.loads(self._read(head_len))
            raw = self._read(raw_len) if raw_len else bytearray()
            if message["kind"] == "error":
                raise self._error(message.pop("code"), **message)
            if message["kind"] != "alive":
                return message, raw

    def close(self) -> None:
        """End and reap the worker; may be called twice."""
        with self._wake:
            self._closed = True
            self._wake.notify_all()
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):  # unsent bytes for a worker that is gone
                    stream.close()
        if self.noise:
            log.debug("decoder of %s: %s", self.path, b"".join(self.noise).decode(errors="replace"))

    def _read(self, n_bytes: int) -> bytearray:
        """Read exactly `n_bytes`, with the watchdog's clock running."""
        assert self.process.stdout is not None
        with self._wake:
            self._wait_until_s = time.monotonic() + self.no_progress_s
            self._wake.notify_all()
        data = bytearray(n_bytes)
        n_read = self.process.stdout.readinto(data)  # type: ignore[attr-defined]
        with self._wake:
            self._wait_until_s = None
        if n_read == n_bytes:
            return data
        if self.stalled:
            raise self._error("stalled")
        status = self.process.wait()
        raise self._error("died", status=f"signal {-status}" if status < 0 else f"code {status}")

    def _error(self, code: str, **values: object) -> VideoError:
        return VideoError(ERRORS[code].format(**{**self.request, **values, "path": self.path}))

    def _drain(self) -> None:
        """Keep the last lines that FFmpeg and OpenCV print; a full pipe would block them."""
        assert self.process.stderr is not None
        with self.process.stderr as stream:
            for line in iter(lambda: stream.readline(1000), b""):
                self.noise.append(line)

    def _watch(self) -> None:
        """End the worker when the parent has waited too long: a blocking read cannot time out."""
        with self._wake:
            while not self._closed:
                if self._wait_until_s is None:
                    self._wake.wait()
                elif (left_s := self._wait_until_s - time.monotonic()) > 0:
                    self._wake.wait(left_s)
                else:
                    self.stalled = True
                    self.process.kill()
                    return
