"""The library's progress while it works; the caller draws it, or does not.

A callback gets (stage, done, total), and a `Reading` as a fourth argument if it takes four. Stages:
'load' (percent of the model); 'decode', 'encode', 'prefill' (frames of the video, with a
`Reading`: told for each batch, grid frame and chunk); 'pull FILE' (MiB); 'waiting for another
process'; where no model was named and none is here, 'measuring this machine, once' and
'looking at the models'.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

ProgressCallback = Callable[..., Any]
"""(stage: str, done: int, total: int[, more: Reading | None]) -> anything."""


@dataclass(frozen=True)
class Reading:
    """The progress of reading a video, in seconds of the video.

    From `start_s` to `end_s` is to be read, and `time_s` is reached. `begun_s`: where this run
    began (later than `start_s` where an earlier one was interrupted); `saved_s`: from where the
    next one would go on, None if from the beginning. `left_s`: expected seconds of time, None if
    nothing is known. `pictures`: (time in seconds, small JPEG) of frames that were
    read since it was told last.
    """

    start_s: float
    end_s: float
    time_s: float
    begun_s: float
    saved_s: float | None = None
    left_s: float | None = None
    pictures: tuple[tuple[float, bytes], ...] = ()


def no_progress(_stage: str, _done: int, _total: int, _more: Reading | None = None) -> None:
    """Show nothing."""


def with_more(progress: ProgressCallback) -> ProgressCallback:
    """Return a callback of four arguments that calls `progress` with as many as it takes."""
    try:
        inspect.signature(progress).bind("", 0, 0, None)
    except TypeError:
        return lambda stage, done, total, _more=None: progress(stage, done, total)
    except ValueError:  # a builtin without a signature
        pass
    return progress


def in_percent(progress: ProgressCallback, stage: str) -> Callable[[float], None]:
    """Return a callback for a share in [0, 1] that tells each percent once."""
    last_percent = -1

    def tell(share: float) -> None:
        nonlocal last_percent
        if (percent := int(100 * share)) > last_percent:
            last_percent = percent
            progress(stage, percent, 100)

    return tell
