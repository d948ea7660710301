"""The page's work in progress: readings, and answers that are being written.

They go on whether or not a page looks: a tab that is closed, loaded again or opened twice finds
them as they are. What is finished is in the library by the time it is no longer told here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from retake_edge.page.facts import answer_facts, data_address
from retake_edge.questions import checked_question
from retake_edge.server.errors import ApiError, api_error
from retake_edge.server.jobs import Done, Failed, Job, Piece, Progress, Ready
from retake_edge.server.library.records import Library, Video
from retake_edge.server.parts import VideoRef
from retake_edge.server.service import Service
from retake_edge.server.sources import SentVideo

_TOLD_EVERY_S = 0.1
_PING_S = 15.0


@dataclass
class Work:
    """One reading, or one answer (then `chat` and `question` say to what).

    `text`: the answer so far; `progress`: of the reading, None before it began; `error`: why it
    failed, for the page to say; `pictures`: (time, JPEG) of what is read so far. `is_read`: the
    answer is, and is being kept.
    """

    video: str
    chat: str = ""
    question: str = ""
    text: str = ""
    progress: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    pictures: list[tuple[float, bytes]] = field(default_factory=list)
    is_read: bool = False
    task: asyncio.Task[None] | None = None

    @property
    def is_over(self) -> bool:
        """True if nothing more will come."""
        return self.task is None or self.task.done() or self.error is not None

    def to_object(self) -> dict[str, Any]:
        """Return what the page is told."""
        told: dict[str, Any] = {"progress": self.progress, "error": self.error}
        if self.chat:
            told |= {"chat": self.chat, "question": self.question, "text": self.text}
        return told


class Live:
    """The readings and answers of one server; for its event loop alone."""

    def __init__(self, service: Service, library: Library) -> None:
        self._service, self._library = service, library
        self._readings: dict[str, Work] = {}
        self._answers: dict[tuple[str, str], Work] = {}
        self._changed = asyncio.Event()
        self._maker = _maker(service)

    # -- what pages see ------------------------------------------------------------------------

    def state(self, video: Video) -> str:
        """Return 'reading', 'failed', 'read' or 'unread'."""
        reading = self._readings.get(video.id)
        if reading is not None:
            return "failed" if reading.error else "reading"
        return "read" if video.made_by == self._maker else "unread"

    def now(self, video_id: str) -> dict[str, Any]:
        """Return what is going on about a video."""
        reading = self._readings.get(video_id)
        answers = [work for key, work in self._answers.items() if key[0] == video_id]
        works = [*answers, *([reading] if reading else [])]
        return {
            "reading": reading.to_object() if reading else None,
            "answers": [work.to_object() for work in answers],
            "is_idle": all(work.is_over for work in works),
        }

    async def follow(self, video_id: str) -> AsyncIterator[dict[str, Any] | None]:
        """Yield what is going on whenever that changes, None at times, until nothing is."""
        told: dict[str, Any] | None = None
        while True:
            changed, now = self._changed, self.now(video_id)
            if now != told:
                yield now
                told = now
            if now["is_idle"]:
                return
            try:
                await asyncio.wait_for(changed.wait(), _PING_S)
            except asyncio.TimeoutError:
                yield None
            await asyncio.sleep(_TOLD_EVERY_S)

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    # -- reading -------------------------------------------------------------------------------

    def read(self, video: Video) -> Work | None:
        """Let a video be read unless it is; return the reading that goes on."""
        known = self._readings.get(video.id)
        if known is not None and not known.error:
            return known
        self._readings.pop(video.id, None)
        if self.state(video) == "read":
            return None
        work = self._readings[video.id] = Work(video.id)
        self._run(work, self._read, self._readings, video.id)
        return work

    def pictures(self, video_id: str, after: int) -> list[list[Any]]:
        """Return (time, data address) of what is read so far, but for the first ones."""
        work = self._readings.get(video_id)
        found = work.pictures[after:] if work is not None else []
        return [[time_s, data_address(jpeg)] for time_s, jpeg in found]

    async def stop_reading(self, video_id: str) -> None:
        """Stop reading a video; what was read of it is kept."""
        await self._stop(self._readings.pop(video_id, None))

    async def _read(self, work: Work) -> None:
        video = self._library.get(work.video)
        job = await self._job(video, [], None)
        try:
            while not isinstance(event := await job.events.get(), Ready):
                self._take(work, event)
        finally:
            job.leave(for_good=True)
        await asyncio.to_thread(self._library.keep_facts, video.id, self._maker, event.facts)

    # -- answering -----------------------------------------------------------------------------

    def ask(self, video: Video, chat_id: str, question: str) -> str:
        """Let a question be answered; return the id of its conversation.

        Raises:
            ApiError: an answer is being written there (409), or there are too many turns.
        """
        question = checked_question(question)
        key = (video.id, chat_id or self._library.begin_chat())
        if chat_id and key not in self._answers:
            n_turns = len(self._library.turns(video.id, chat_id))
            if n_turns >= self._service.limits.max_turns:
                raise ApiError(400, f"A conversation has {n_turns} questions at most.")
        known = self._answers.get(key)
        if known is not None and not known.is_over:
            raise ApiError(409, "An answer is being written here; stop it first.", code="busy")
        work = self._answers[key] = Work(video.id, key[1], question)
        self._run(work, self._answer, self._answers, key)
        return key[1]

    async def stop_answer(self, video_id: str, chat_id: str) -> None:
        """Stop an answer; what it says so far is kept."""
        work = self._answers.get((video_id, chat_id))
        if work is not None and work.is_read and work.task is not None:
            await asyncio.wait([work.task])  # it is just being kept
            return
        self._answers.pop((video_id, chat_id), None)
        await self._stop(work)
        if work is not None and work.text.strip() and not work.error:
            turn = answer_facts(work.question, work.text.strip(), [], None)
            turn |= {"is_stopped": True, "at_s": time.time()}
            await asyncio.to_thread(self._library.add_turn, video_id, chat_id, turn)
            self._tell()

    async def _answer(self, work: Work) -> None:
        video = self._library.get(work.video)
        if (reading := self.read(video)) is not None and reading.task is not None:
            await asyncio.wait([reading.task])
            if self.state(self._library.get(video.id)) != "read":
                raise _error_of(reading)
        turns = self._turns(work)
        job = await self._job(video, turns, work.question)
        try:
            while not isinstance(event := await job.events.get(), Done):
                self._take(work, event)
        finally:
            job.leave(for_good=True)
        work.is_read = True
        turn = _turn(work, event)
        await asyncio.to_thread(self._library.add_turn, video.id, work.chat, turn)

    def _turns(self, work: Work) -> list[tuple[str, str]]:
        try:
            turns = self._library.turns(work.video, work.chat)
        except ApiError:
            return []  # a new conversation
        return [(turn["question"], turn["text"]) for turn in turns]

    # -- both ----------------------------------------------------------------------------------

    async def forget(self, video_id: str) -> None:
        """Stop all that goes on about a video."""
        await self.stop_reading(video_id)
        for key in [key for key in self._answers if key[0] == video_id]:
            await self._stop(self._answers.pop(key))

    def _run(
        self,
        work: Work,
        do: Callable[[Work], Awaitable[None]],
        place: dict[Any, Work],
        key: Any,
    ) -> None:
        """Do work in the background; it is told until it is done, or as failed."""

        async def run() -> None:
            try:
                await do(work)
            except Exception as error:
                work.error = api_error(error).body()["error"]
            else:
                if place.get(key) is work:
                    del place[key]
            finally:
                self._tell()

        work.task = asyncio.create_task(run())
        self._tell()

    async def _stop(self, work: Work | None) -> None:
        if work is not None and work.task is not None:
            work.task.cancel()
            with suppress(asyncio.CancelledError):
                await work.task
        self._tell()

    def _take(self, work: Work, event: object) -> None:
        if isinstance(event, Failed):
            raise event.error
        if isinstance(event, Piece):
            work.text += event.text
            work.progress = None
        if isinstance(event, Progress):
            reading = event.reading
            work.progress = {"stage": event.stage}
            if reading is not None:
                work.pictures += reading.pictures
                work.progress |= {
                    "start_s": reading.start_s,
                    "end_s": reading.end_s,
                    "time_s": reading.time_s,
                    "left_s": reading.left_s,
                    "n_pictures": len(work.pictures),
                }
        self._tell()

    async def _job(self, video: Video, turns: list[tuple[str, str]], question: str | None) -> Job:
        sent = await asyncio.to_thread(self.sent, video)
        config = self._service.config
        return self._service.put(sent, config, config.generation, turns, question)

    def sent(self, video: Video) -> SentVideo:
        """Return the file of a video, to be let go of.

        Raises:
            ApiError: it is gone, or another one by now.
        """
        kind, value = ("file_id", video.file_id) if video.file_id else ("path", video.path)
        sent = self._service.sources.get([VideoRef(kind, value)], None)  # type: ignore[arg-type]
        if sent.sha256 != video.sha256:
            sent.held.close()
            raise ApiError(409, f"{video.name} has changed; open it again.", code="changed")
        return sent


def _maker(service: Service) -> str:
    """Return a digest of what the facts of videos depend on besides their content.

    That is the model, and the settings without those of answers.
    """
    config = service.config.to_dict()
    del config["generation"]
    made_of = [service.model_name, service.model_facts, config]
    return sha256(repr(made_of).encode()).hexdigest()[:16]


def _turn(work: Work, done: Done) -> dict[str, Any]:
    found = done.answer
    return {
        **answer_facts(work.question, found.text, found.evidence, done.weights),
        "is_cut": done.is_cut,
        "at_s": time.time(),
    }


def _error_of(reading: Work) -> BaseException:
    if reading.error is None:
        return ApiError(409, "The reading of the video was stopped.", code="stopped")
    error = reading.error
    return ApiError(422, error["message"], code=error["code"])
