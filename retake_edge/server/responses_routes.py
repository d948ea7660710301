"""POST /v1/responses: the same questions in the form that OpenAI's newer clients send."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse

from retake_edge.server.chat_routes import SSE_HEADERS, chained, event_line, first_event, whole
from retake_edge.server.errors import ApiError, PlainJson, api_error
from retake_edge.server.forms import Stops, new_id, retake_facts
from retake_edge.server.jobs import Done, Event, Failed, Piece
from retake_edge.server.schemas import ChatBody, ResponsesBody
from retake_edge.server.service import events_of, service_of

router = APIRouter(tags=["responses"])


@router.post("/v1/responses", response_model=None)
async def create_response(body: ResponsesBody, request: Request) -> Response:
    """Answer the last message's question about the video in the input; nothing is stored."""
    service = service_of(request)
    job = await service.submit(chat_body(body))
    events = events_of(job, request)
    draft = _draft(body, service.model_name)
    if body.stream:
        first = await first_event(events)
        stream = _streamed(draft, chained(first, events))
        return StreamingResponse(stream, media_type="text/event-stream", headers=SSE_HEADERS)
    text, done = await whole(events, Stops(None))
    return PlainJson(_finished(draft, new_id("msg"), text, done))


def chat_body(body: ResponsesBody) -> ChatBody:
    """Return the same request in the older form.

    Raises:
        ApiError: it goes on from a stored response, or its input has no messages.
    """
    if body.previous_response_id:
        raise ApiError(
            400,
            "No responses are stored here; send the whole conversation as input.",
            param="previous_response_id",
        )
    items: list[Any] = (
        [{"role": "user", "content": body.input}] if isinstance(body.input, str) else body.input
    )
    messages = [item for item in items if item.get("type", "message") == "message"]
    if body.instructions:
        messages = [{"role": "system", "content": body.instructions}, *messages]
    if not messages:
        raise ApiError(400, "The input has no messages.", param="input")
    extra = {name: value for name, value in (body.model_extra or {}).items() if name != "messages"}
    wanted = (body.text or {}).get("format")
    own = {
        "messages": messages,
        "model": body.model,
        "max_output_tokens": body.max_output_tokens,
        "temperature": body.temperature,
        "top_p": body.top_p,
        "response_format": wanted if isinstance(wanted, Mapping) else None,
    }
    known = set(ChatBody.model_fields)
    return ChatBody.model_validate(
        {**{name: value for name, value in extra.items() if name not in known}, **own}
    )


def _draft(body: ResponsesBody, model: str) -> dict[str, Any]:
    return {
        "id": new_id("resp"),
        "object": "response",
        "created_at": int(time.time()),
        "status": "in_progress",
        "model": model,
        "output": [],
        "error": None,
        "incomplete_details": None,
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "metadata": body.metadata or {},
        "parallel_tool_calls": False,
        "previous_response_id": None,
        "temperature": body.temperature,
        "top_p": body.top_p,
        "text": body.text or {"format": {"type": "text"}},
        "tool_choice": "none",
        "tools": [],
        "truncation": "disabled",
        "usage": None,
    }


def _message(item_id: str, status: str, content: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": item_id,
        "type": "message",
        "role": "assistant",
        "status": status,
        "content": content,
    }


def _text(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": []}


def _finished(draft: dict[str, Any], item_id: str, text: str, done: Done) -> dict[str, Any]:
    status = "incomplete" if done.is_cut else "completed"
    n_answer = done.answer.n_tokens
    return {
        **draft,
        "status": status,
        "incomplete_details": {"reason": "max_output_tokens"} if done.is_cut else None,
        "output": [_message(item_id, status, [_text(text)])],
        "usage": {
            "input_tokens": done.n_prompt,
            "input_tokens_details": {"cached_tokens": min(done.n_cached, done.n_prompt)},
            "output_tokens": n_answer,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": done.n_prompt + n_answer,
        },
        "retake": retake_facts(done),
    }


async def _streamed(
    draft: dict[str, Any], events: AsyncIterator[Event | None]
) -> AsyncIterator[str]:
    """OpenAI's events of a response with one message of one part."""
    item_id, number, pieces = new_id("msg"), 0, list[str]()
    place = {"item_id": item_id, "output_index": 0, "content_index": 0}

    def line(kind: str, **more: Any) -> str:
        nonlocal number
        content = {"type": kind, "sequence_number": number, **more}
        number += 1
        return f"event: {kind}\n{event_line(content)}"

    yield line("response.created", response=draft)
    yield line("response.in_progress", response=draft)
    empty = _message(item_id, "in_progress", [])
    yield line("response.output_item.added", output_index=0, item=empty)
    yield line("response.content_part.added", **place, part=_text(""))
    async for event in events:
        if event is None:
            yield ": the video is being read\n\n"
        elif isinstance(event, Failed):
            error = api_error(event.error).body()["error"]
            failed = {"code": "server_error", "message": error["message"]}
            yield line("response.failed", response={**draft, "status": "failed", "error": failed})
        elif isinstance(event, Piece):
            pieces.append(event.text)
            yield line("response.output_text.delta", **place, delta=event.text, logprobs=[])
        elif isinstance(event, Done):
            text = "".join(pieces)
            done = _finished(draft, item_id, text, event)
            yield line("response.output_text.done", **place, text=text, logprobs=[])
            yield line("response.content_part.done", **place, part=_text(text))
            yield line("response.output_item.done", output_index=0, item=done["output"][0])
            yield line(f"response.{done['status']}", response=done)
