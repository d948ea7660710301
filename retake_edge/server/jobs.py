"""A request as the worker sees it, and what it tells of it: events, from one thread to a loop."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

from retake_edge.config import GenerationConfig, RetakeConfig
from retake_edge.progress import Reading
from retake_edge.server.sources import SentVideo
from retake_edge.session.answer import Answer
from retake_edge.session.evidence import Floats


@dataclass(frozen=True)
class Progress:
    """The progress of reading the video; `reading`: None before it began."""

    stage: str
    done: int
    total: int
    reading: Reading | None


@dataclass(frozen=True)
class Piece:
    """Some text of the answer."""

    text: str


@dataclass(frozen=True)
class Done:
    """The whole answer. `n_prompt`: cells before it, `n_cached` of them not computed for it.

    `is_cut`: whether it ended for want of room; `waited_s`: in the queue and while reading.
    `weights` f32 [T]: the share of each grid frame in its attention, None if that is not known.
    """

    answer: Answer
    n_prompt: int
    n_cached: int
    is_cut: bool
    waited_s: float
    weights: Floats | None = None


@dataclass(frozen=True)
class Ready:
    """The video is read, and nothing else was asked; `facts`: what the page shows of it."""

    facts: dict[str, Any]


@dataclass(frozen=True)
class Failed:
    """The reason why there is no answer."""

    error: BaseException


Event: TypeAlias = Progress | Piece | Done | Ready | Failed


@dataclass(eq=False)
class Job:
    """One question about one video; `key` names the video together with how it is looked at.

    Without a question (None) the video is read, and that is all.
    """

    video: SentVideo
    config: RetakeConfig
    generation: GenerationConfig
    turns: list[tuple[str, str]]
    question: str | None
    loop: asyncio.AbstractEventLoop
    on_leave: Callable[[Job], None] = lambda _: None
    events: asyncio.Queue[Event] = field(default_factory=asyncio.Queue)
    key: str = ""
    left_at_s: float | None = None
    began_s: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        facts = asdict(self.config)
        del facts["generation"]
        self.key = json.dumps([self.video.sha256, facts], sort_keys=True)

    @property
    def is_gone(self) -> bool:
        """True if the client left."""
        return self.left_at_s is not None

    def tell(self, event: Event) -> None:
        """Hand an event to the request; from the worker's thread."""
        with suppress(RuntimeError):  # the loop is closed: no one listens any more
            self.loop.call_soon_threadsafe(self.events.put_nowait, event)

    def leave(self, *, for_good: bool = False) -> None:
        """Note that the client left, or has its answer; `for_good`: it will not ask again soon."""
        if self.left_at_s is None:
            self.left_at_s = -math.inf if for_good else time.monotonic()
            self.on_leave(self)
