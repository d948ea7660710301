"""The service that all routes share: worker, stored videos, and a request becoming a job."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from fastapi import Request

from retake_edge.config import GenerationConfig, RetakeConfig, with_values
from retake_edge.server.blobs import BlobStore
from retake_edge.server.errors import ApiError
from retake_edge.server.grammar_trial import check_grammar_runs
from retake_edge.server.jobs import Done, Event, Failed, Job, Ready
from retake_edge.server.knobs import generation_config, is_guided, video_config
from retake_edge.server.library.records import Library
from retake_edge.server.limits import ServerLimits
from retake_edge.server.messages import Asked, asked_of
from retake_edge.server.metrics import Metrics
from retake_edge.server.schemas import ChatBody
from retake_edge.server.sources import SentVideo, Sources
from retake_edge.server.uploads import Uploads
from retake_edge.server.worker import Worker

PING_S = 15.0


@dataclass(frozen=True)
class Service:
    """One running server; `model_name`: what clients are told, `config`: where none are asked."""

    model_name: str
    model_facts: str
    config: RetakeConfig
    limits: ServerLimits
    worker: Worker
    metrics: Metrics
    blobs: BlobStore
    uploads: Uploads
    sources: Sources
    started_s: int
    library: Library

    async def submit(self, body: ChatBody) -> Job:
        """Let a request wait for its turn; raises ApiError and RetakeError."""
        asked, generation, config = await asyncio.to_thread(self._read, body)
        video = await asyncio.to_thread(self.sources.get, asked.refs, config.sampling.fps)
        if video.image_fps is not None:
            config = _each_frame(config, video.image_fps)
        return self.put(video, config, generation, asked.turns, asked.question)

    def put(
        self,
        video: SentVideo,
        config: RetakeConfig,
        generation: GenerationConfig,
        turns: list[tuple[str, str]],
        question: str | None,
    ) -> Job:
        """Let a job wait for its turn; the video is let go of where it may not. From a loop."""
        try:
            loop = asyncio.get_running_loop()
            job = Job(video, config, generation, turns, question, loop)
            self.worker.submit(job)
        except BaseException:
            video.held.close()
            raise
        return job

    def _read(self, body: ChatBody) -> tuple[Asked, GenerationConfig, RetakeConfig]:
        """Return a request's question and settings; in a thread: schemas and grammars take time."""
        asked = asked_of(body.messages, self.limits.max_turns)
        generation = generation_config(self.config.generation, body)
        if generation.grammar:
            check_grammar_runs(self.worker.model_path, generation.grammar)
        config = video_config(self.config, body, asked.refs)
        if is_guided(body, asked.refs):
            if asked.turns:
                raise ApiError(
                    400,
                    "A guided reading answers one question; send it without earlier turns.",
                    param="guided",
                )
            config = with_values(config, compression={"guide": asked.question})
        return asked, generation, config


def _each_frame(config: RetakeConfig, fps: float) -> RetakeConfig:
    return with_values(config, sampling={"fps": fps})


async def events_of(job: Job, request: Request) -> AsyncIterator[Event | None]:
    """Yield what the worker tells, None at times without news; ends early if the client leaves."""
    gone = asyncio.ensure_future(_gone(request))
    news = asyncio.ensure_future(job.events.get())
    try:
        while True:
            await asyncio.wait({news, gone}, timeout=PING_S, return_when=asyncio.FIRST_COMPLETED)
            if not news.done():
                if gone.done():
                    return
                yield None
                continue
            event = news.result()
            yield event
            if isinstance(event, Done | Ready | Failed):
                return
            news = asyncio.ensure_future(job.events.get())
    finally:
        job.leave()
        gone.cancel()
        news.cancel()
        await asyncio.gather(gone, news, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def service_of(request: Request) -> Service:
    """Return the server that a request came to."""
    found = request.app.state.service
    assert isinstance(found, Service)
    return found


def left() -> ApiError:
    """Return what is told where no one listens any more."""
    return ApiError(499, "The client left.")
