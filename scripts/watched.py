"""Run a command and watch it: when it said what, the memory of its process tree, its limits.

Linux: memory is read from /proc.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO

SAMPLE_S = 0.1


@dataclass(frozen=True)
class Limits:
    """The limits at which a command is ended: seconds, and bytes of its process tree."""

    seconds: float
    memory_bytes: int


@dataclass
class Stream:
    """All that came through a pipe, and when: `ends` bytes had come by `times_s`."""

    data: bytearray = field(default_factory=bytearray)
    ends: list[int] = field(default_factory=list)
    times_s: list[float] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The bytes as text."""
        return self.data.decode(errors="replace")

    def when(self, mark: str, n: int = 1) -> float | None:
        """Seconds until `mark` had come for the `n`-th time, None if it has not."""
        found = list(re.finditer(re.escape(mark.encode()), bytes(self.data)))
        if len(found) < n:
            return None
        return self.times_s[bisect_left(self.ends, found[n - 1].end())]


class Watched:
    """A command that runs under limits; a context manager that leaves no process behind.

    `out`, `error`: what it writes, with seconds since its start; `peak_bytes`: the most resident
    memory of the process and all below it, summed every SAMPLE_S; `limit`: 'time' or 'memory' where
    it was ended by one, else ''; `seconds`: how long it ran.
    """

    def __init__(
        self, command: Sequence[str], limits: Limits, environment: Mapping[str, str] | None = None
    ) -> None:
        self.out, self.error = Stream(), Stream()
        self.peak_bytes, self.limit, self.seconds = 0, "", 0.0
        self._limits, self._news = limits, threading.Condition()
        self._is_over = False
        self._began_s = time.monotonic()
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        pipes = (self.process.stdout, self.out), (self.process.stderr, self.error)
        self._readers = [
            threading.Thread(target=self._read, args=pipe, daemon=True) for pipe in pipes
        ]
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        for thread in (*self._readers, self._watcher):
            thread.start()

    def __enter__(self) -> Watched:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()
        self.wait()

    def write(self, line: str) -> None:
        """Write a line to the command's standard input; one that is gone is found out later."""
        assert self.process.stdin is not None
        with suppress(OSError):
            self.process.stdin.write(line.encode() + b"\n")
            self.process.stdin.flush()

    def await_mark(self, mark: str, n: int) -> bool:
        """Wait until the output holds `mark` `n` times; False if the command ends before."""
        with self._news:
            while self.out.when(mark, n) is None:
                if self._is_over:
                    return False
                self._news.wait(SAMPLE_S)
        return True

    def wait(self) -> int:
        """Wait for the command's end, and return its exit status."""
        with suppress(OSError):
            assert self.process.stdin is not None
            self.process.stdin.close()
        for thread in (*self._readers, self._watcher):
            thread.join()
        return self.process.wait()

    def _read(self, pipe: IO[bytes], stream: Stream) -> None:
        with pipe:
            while data := os.read(pipe.fileno(), 1 << 16):
                with self._news:
                    stream.data += data
                    stream.ends.append(len(stream.data))
                    stream.times_s.append(time.monotonic() - self._began_s)
                    self._news.notify_all()

    def _watch(self) -> None:
        while self.process.poll() is None:
            self.seconds = time.monotonic() - self._began_s
            used = resident_bytes(tree(self.process.pid))
            self.peak_bytes = max(self.peak_bytes, used)
            if used > self._limits.memory_bytes:
                self.limit = "memory"
            elif self.seconds > self._limits.seconds:
                self.limit = "time"
            if self.limit:
                self._end()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(SAMPLE_S)
        self.seconds = time.monotonic() - self._began_s
        with self._news:
            self._is_over = True
            self._news.notify_all()

    def _end(self) -> None:
        if self.process.poll() is None:
            for pid in tree(self.process.pid):
                with suppress(OSError):
                    os.kill(pid, signal.SIGKILL)


def tree(pid: int) -> list[int]:
    """Return a process and all below it."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            after_name = stat.read_text().rpartition(")")[2].split()
            parents[int(stat.parent.name)] = int(after_name[1])
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


def resident_bytes(pids: Sequence[int]) -> int:
    """Return the resident memory of processes, summed; pages that they share count for each."""
    n_pages = 0
    for pid in pids:
        with suppress(OSError, IndexError):
            n_pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return n_pages * os.sysconf("SC_PAGE_SIZE")
