"""POST /v1/chat/completions: a question about a video, answered whole or streamed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse

from retake_edge.server.errors import PlainJson, api_error
from retake_edge.server.forms import (
    Stops,
    chunk,
    completion,
    new_id,
    progress_facts,
    retake_facts,
    timings,
    usage,
)
from retake_edge.server.jobs import Done, Event, Failed, Piece, Progress
from retake_edge.server.schemas import ChatBody
from retake_edge.server.service import events_of, left, service_of

router = APIRouter(tags=["chat"])
SSE_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


@router.post("/v1/chat/completions", response_model=None)
@router.post("/chat/completions", response_model=None, include_in_schema=False)
async def chat_completions(body: ChatBody, request: Request) -> Response:
    """Answer the last message's question about the video in the messages."""
    service = service_of(request)
    job = await service.submit(body)
    events = events_of(job, request)
    if not body.stream:
        stops = Stops(body.stop)
        text, done = await whole(events, stops)
        found = completion(new_id("chatcmpl"), service.model_name, text, _reason(done, stops), done)
        return PlainJson(found)
    first = await first_event(events)
    stream = _streamed(service.model_name, body, first, events)
    return StreamingResponse(stream, media_type="text/event-stream", headers=SSE_HEADERS)


async def whole(events: AsyncIterator[Event | None], stops: Stops) -> tuple[str, Done]:
    """Return an answer's text, cut at stop words, and its figures; raises what failed."""
    pieces: list[str] = []
    async for event in events:
        if isinstance(event, Failed):
            raise api_error(event.error)
        if isinstance(event, Piece):
            pieces.append(stops.take(event.text))
        if isinstance(event, Done):
            return "".join([*pieces, stops.rest()]).strip(), event
    raise left()


async def first_event(events: AsyncIterator[Event | None]) -> Event | None:
    """Return the first event; a request that fails at once gets its status that way."""
    first = await anext(events, None)
    if isinstance(first, Failed):
        raise api_error(first.error)
    return first


def _reason(done: Done, stops: Stops) -> str:
    return "length" if done.is_cut and not stops.is_over else "stop"


def event_line(content: dict[str, Any]) -> str:
    """Return a server-sent event."""
    return f"data: {json.dumps(content, separators=(',', ':'))}\n\n"


async def chained(
    first: Event | None, events: AsyncIterator[Event | None]
) -> AsyncIterator[Event | None]:
    """Yield an event, and those after it."""
    yield first
    async for event in events:
        yield event


async def _streamed(
    model: str, body: ChatBody, first: Event | None, events: AsyncIterator[Event | None]
) -> AsyncIterator[str]:
    """The chunks: a role, the text, a reason with the evidence, perhaps the usage, the end."""
    answer_id, stops = new_id("chatcmpl"), Stops(body.stop)

    def line(delta: dict[str, Any] | None, reason: str | None = None, **more: Any) -> str:
        return event_line(chunk(answer_id, model, delta, reason, **more))

    yield line({"role": "assistant", "content": ""})
    async for event in chained(first, events):
        if event is None:
            yield ": the video is being read\n\n"
        elif isinstance(event, Failed):
            yield event_line(api_error(event.error).body())
            return
        elif isinstance(event, Progress) and body.return_progress:
            yield line({}, prompt_progress=progress_facts(event))
        elif isinstance(event, Piece):
            if text := stops.take(event.text):
                yield line({"content": text})
        elif isinstance(event, Done):
            if rest := stops.rest():
                yield line({"content": rest})
            facts = {"timings": timings(event), "retake": retake_facts(event)}
            yield line({}, _reason(event, stops), **facts)
            if (body.stream_options or {}).get("include_usage"):
                yield line(None, usage=usage(event))
            yield "data: [DONE]\n\n"
