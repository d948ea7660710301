"""Show the library's progress on standard error: one line that lives, or a few that stay.

At a terminal the line is drawn anew until it goes away: what is done, how far, how fast, how long
it will take. Elsewhere each stage gets a line at its start, one every half a minute, and the
reading of a video one at its end.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from retake_edge.cli.interrupts import answering
from retake_edge.cli.streams import between_words, tell
from retake_edge.formats import clock, duration

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from retake_edge.progress import Reading

_EVERY_S = 30.0
_LEAST_BAR, _MOST_BAR = 10, 40  # columns
_NAME_COLUMNS = 28
_GAP = "  "


class Progress:
    """The newest report, and the line that tells it; a progress callback.

    `video`, `model`: what they are called on the screen.
    """

    def __init__(self, video: str = "", model: str = "") -> None:
        self.video, self.model = shortened(video, _NAME_COLUMNS), shortened(model, _NAME_COLUMNS)
        self.stage, self.done, self.total = "load", 0, 0
        self.reading: Reading | None = None
        self._first: tuple[int, float] | None = None  # frames when this run began, and when

    def __call__(self, stage: str, done: int, total: int, more: Reading | None = None) -> None:
        """Take in a report."""
        before = self.stage, self.done
        self.stage, self.done, self.total = stage, done, total
        if more is not None:
            # Decoded frames are not read yet.
            self.stage, self.done = "read", done if stage != "decode" else before[1]
            self.reading = more
            if self._first is None:
                self._first = done, time.monotonic()
                if more.begun_s > more.start_s:
                    self.say(f"going on at {clock(more.begun_s)} of {clock(more.end_s)}")
        self._told(self.stage != before[0])

    def say(self, text: str) -> None:
        """Put a line above what is shown."""
        tell(text)

    def _told(self, is_new: bool) -> None:
        """Show what was just told."""

    @property
    def share(self) -> float:
        """Share of the stage that is done, in [0, 1]."""
        if self.stage == "read" and self.reading is not None:
            whole_s = self.reading.end_s - self.reading.start_s
            passed_s = self.reading.time_s - self.reading.start_s
            return min(1.0, passed_s / whole_s) if whole_s > 0 else 0.0
        return min(1.0, self.done / self.total) if self.total > 0 else 0.0

    def parts(self) -> list[str]:
        """The line's parts, the ones that may be left out for want of room last."""
        stage, reading = self.stage, self.reading
        if stage == "load":
            return [f"loading {self.model}".rstrip(), *(self._percent() if self.done else [])]
        if stage == "answer":
            return ["answering", f"{self.done} tokens so far"] if self.done else ["answering"]
        if stage != "read" or reading is None:
            name, _, file = stage.partition(" ")
            if name == "pull":
                size = f"{self.done} of {self.total} MiB"
                return [f"downloading {shortened(file, _NAME_COLUMNS)}", *self._percent(), size]
            return [stage, *(self._percent() if self.done else [])]
        line = [
            f"reading {self.video}".rstrip(),
            f"{clock(reading.time_s)} of {clock(reading.end_s)}",
            f"{100 * self.share:.0f} %",
        ]
        return line + self._speed() + ([] if reading.left_s is None else [left(reading.left_s)])

    def _percent(self) -> list[str]:
        return [f"{100 * self.share:.0f} %"] if self.total > 0 else []

    def _speed(self) -> list[str]:
        if self._first is None:
            return []
        n_frames, passed_s = self.done - self._first[0], time.monotonic() - self._first[1]
        return [speed(n_frames / passed_s)] if n_frames > 0 and passed_s > 0 else []

    def stopped(self) -> str:
        """Return where an interrupted reading stopped, and what becomes of it; '' if none began."""
        reading = self.reading
        if reading is None or self.stage != "read":
            return ""
        where = f"stopped at {clock(reading.time_s)} of {clock(reading.end_s)}"
        if reading.saved_s is None:
            return f"{where}; nothing is saved yet, so the next time begins anew"
        return f"{where}; the same command goes on at {clock(reading.saved_s)}"

    def answer_to_ctrl_c(self) -> str:
        """Return the answer to Ctrl-C."""
        return "stopping after this frame" if self.stage == "read" else "stopping"


class _Drawn(Progress):
    """One line at a terminal, drawn anew several times a second."""

    def __init__(self, console: Console, video: str, model: str) -> None:
        super().__init__(video, model)
        from rich.spinner import Spinner

        is_utf8 = (console.encoding or "").lower().startswith("utf")
        self._console, self._spinner = console, Spinner("dots" if is_utf8 else "line", style="cyan")

    def say(self, text: str) -> None:
        self._console.print(between_words(text), markup=False, highlight=False, soft_wrap=True)

    def __rich__(self) -> RenderableType:
        from rich.table import Table
        from rich.text import Text

        room, parts = self._console.width - 3, self.parts()
        while len(parts) > 2 and len(_GAP.join(parts)) > room:
            del parts[-2 if len(parts) > 4 else -1]  # the speed first, how long it takes later
        line = Text(_GAP.join(parts), no_wrap=True, overflow="ellipsis")
        columns: list[Any] = [self._spinner, line]
        n_bar = min(_MOST_BAR, room - len(line) - 2)
        if n_bar >= _LEAST_BAR and self.total > 0:
            from rich.progress_bar import ProgressBar

            columns.append(ProgressBar(1.0, self.share, width=n_bar))
        table = Table.grid(padding=(0, 1))
        table.add_row(*columns)
        return table


class _Written(Progress):
    """A few lines for a file or a pipe; a thread of its own writes one every half a minute."""

    def __init__(self, video: str, model: str, every_s: float = _EVERY_S) -> None:
        super().__init__(video, model)
        self._begun_at = time.monotonic()
        self._over = threading.Event()
        self._is_told = False
        self._thread = threading.Thread(target=self._repeat, args=(every_s,), daemon=True)
        self._thread.start()

    def _told(self, is_new: bool) -> None:
        if self.stage != "answer" and (is_new or not self._is_told):
            self._is_told = True
            self.say(_GAP.join(self.parts()))

    def _repeat(self, every_s: float) -> None:
        while not self._over.wait(every_s):
            self.say(_GAP.join(self.parts()))

    def end(self) -> None:
        """Tell no more, but that the video was read, if it was."""
        self._over.set()
        self._thread.join()
        if self.stage == "read" and self.share >= 1:
            seconds = time.monotonic() - self._begun_at
            self.say(f"read {self.video}  {clock(self.reading_end_s)}  in {duration(seconds)}")

    @property
    def reading_end_s(self) -> float:
        """End of the part of the video that was read, in seconds."""
        assert self.reading is not None
        return self.reading.end_s


@contextmanager
def shown_progress(video: str = "", model: str = "", stage: str = "load") -> Iterator[Progress]:
    """Yield a progress callback that shows what it is told until the block ends.

    A reading that is interrupted ends with where it stopped.
    """
    with ExitStack() as stack:
        progress = _begun(stack, video, model, stage)
        stack.enter_context(answering(progress.answer_to_ctrl_c, progress.say))
        try:
            yield progress
        except KeyboardInterrupt:
            if where := progress.stopped():
                progress.say(where)
            raise


def _begun(stack: ExitStack, video: str, model: str, stage: str) -> Progress:
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        written = _Written(video, model)
        written.stage = stage
        stack.callback(written.end)
        return written
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True)
    drawn = _Drawn(console, video, model)
    drawn.stage = stage
    live = Live(drawn, console=console, transient=True, redirect_stdout=False)
    stack.enter_context(live)
    return drawn


def shortened(name: str, most: int) -> str:
    """Return a name of at most `most` letters, its middle left out; controls are shown as '?'."""
    name = "".join(letter if letter.isprintable() else "?" for letter in name)
    if len(name) <= most:
        return name
    n_end = (most - 3) // 2
    return f"{name[: most - 3 - n_end]}...{name[-n_end:]}"


def speed(frames_per_s: float) -> str:
    """Return how fast frames are read, as a person says it."""
    if frames_per_s >= 10:
        return f"{frames_per_s:.0f} frames/s"
    return (
        f"{frames_per_s:.1f} frames/s"
        if frames_per_s >= 0.5
        else f"{1 / frames_per_s:.0f} s a frame"
    )


def left(seconds: float) -> str:
    """Return how long it will take, no more exact than it can be known."""
    return f"about {duration(max(1.0, seconds))} left"
