"""/api: what the page asks for. Questions of programs go to /v1/chat/completions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, Field

from retake_edge.server.chat_routes import SSE_HEADERS, event_line
from retake_edge.server.errors import ApiError, PlainJson
from retake_edge.server.library.folders import listing
from retake_edge.server.library.live import Live
from retake_edge.server.library.records import Library, Video
from retake_edge.server.library.tickets import Tickets
from retake_edge.server.parts import VideoRef
from retake_edge.server.service import service_of

router = APIRouter(prefix="/api", tags=["page"])


class OpenBody(BaseModel):
    """A video to open: an upload, or a file below a media path."""

    file_id: str = Field("", max_length=100)
    path: str = Field("", max_length=4096)


class QuestionBody(BaseModel):
    """A question; `chat`: '' begins a conversation."""

    question: str = Field(max_length=20_000)
    chat: str = Field("", max_length=64)


def _library(request: Request) -> Library:
    return service_of(request).library


def _live(request: Request) -> Live:
    live = request.app.state.live
    assert isinstance(live, Live)
    return live


def _tickets(request: Request) -> Tickets:
    tickets = request.app.state.tickets
    assert isinstance(tickets, Tickets)
    return tickets


def _entry(request: Request, video: Video) -> dict[str, Any]:
    live = _live(request)
    return {
        "id": video.id,
        "name": video.name,
        "duration_s": video.duration_s,
        "picture": video.picture,
        "used_s": video.used_s,
        "state": live.state(video),
        "live": live.now(video.id),
        "chats": [asdict(chat) for chat in _library(request).chats(video.id)],
    }


@router.get("/videos", response_model=None)
async def list_videos(request: Request) -> Response:
    """List the opened videos, the last used one first."""
    videos = _library(request).videos()
    return PlainJson({"videos": [_entry(request, video) for video in videos]})


@router.post("/videos", response_model=None)
async def open_video(body: OpenBody, request: Request) -> Response:
    """Open a video, and let it be read."""
    if bool(body.file_id) == bool(body.path):
        raise ApiError(400, "Give a file_id or a path.")
    ref = VideoRef("file_id", body.file_id) if body.file_id else VideoRef("path", body.path)
    sent = await asyncio.to_thread(service_of(request).sources.get, [ref], None)
    with sent.held:
        path = "" if body.file_id else str(sent.path)
        video = _library(request).add(sent.sha256, sent.name, file_id=body.file_id, path=path)
    _live(request).read(video)
    return PlainJson(_entry(request, video))


@router.get("/videos/{video_id}", response_model=None)
async def retrieve_video(video_id: str, request: Request) -> Response:
    """Return what the page shows of a video."""
    video = _library(request).get(video_id)
    facts = await asyncio.to_thread(_library(request).facts, video_id)
    media = f"/media/{_tickets(request).of(video_id)}"
    return PlainJson({**_entry(request, video), "media": media, "facts": facts})


@router.delete("/videos/{video_id}", response_model=None)
async def forget_video(video_id: str, request: Request) -> Response:
    """Forget a video, its conversations and its upload; what was read of it stays saved."""
    _library(request).get(video_id)
    await _live(request).forget(video_id)
    video = _library(request).remove(video_id)
    _tickets(request).drop(video_id)
    if video.file_id:
        with suppress(ApiError):  # it is gone already
            service_of(request).uploads.remove(video.file_id)
    return PlainJson({"id": video_id, "deleted": True})


@router.post("/videos/{video_id}/reading", response_model=None)
async def start_reading(video_id: str, request: Request) -> Response:
    """Read a video, or go on with it."""
    video = _library(request).get(video_id)
    _live(request).read(video)
    return PlainJson(_entry(request, video))


@router.delete("/videos/{video_id}/reading", response_model=None)
async def stop_reading(video_id: str, request: Request) -> Response:
    """Stop reading a video."""
    video = _library(request).get(video_id)
    await _live(request).stop_reading(video_id)
    return PlainJson(_entry(request, video))


@router.get("/videos/{video_id}/pictures", response_model=None)
async def reading_pictures(
    video_id: str, request: Request, after: Annotated[int, Query(ge=0, le=10**6)] = 0
) -> Response:
    """Return pictures of what is read so far, while a video is read, but for the first `after`."""
    return PlainJson({"pictures": _live(request).pictures(video_id, after)})


@router.get("/videos/{video_id}/live", response_model=None)
async def follow_video(video_id: str, request: Request) -> Response:
    """Stream what is going on about a video, until nothing is."""
    _library(request).get(video_id)

    async def lines() -> AsyncIterator[str]:
        async for told in _live(request).follow(video_id):
            yield ": still there\n\n" if told is None else event_line(told)

    return StreamingResponse(lines(), media_type="text/event-stream", headers=SSE_HEADERS)


@router.post("/videos/{video_id}/questions", response_model=None, status_code=202)
async def ask(video_id: str, body: QuestionBody, request: Request) -> Response:
    """Let a question be answered; return the id of its conversation."""
    video = _library(request).get(video_id)
    return PlainJson({"chat": _live(request).ask(video, body.chat, body.question)}, 202)


@router.get("/videos/{video_id}/chats/{chat_id}", response_model=None)
async def retrieve_chat(video_id: str, chat_id: str, request: Request) -> Response:
    """Return a conversation."""
    turns = await asyncio.to_thread(_library(request).turns, video_id, chat_id)
    return PlainJson({"id": chat_id, "turns": turns})


@router.delete("/videos/{video_id}/chats/{chat_id}", response_model=None)
async def forget_chat(video_id: str, chat_id: str, request: Request) -> Response:
    """Forget a conversation."""
    await _live(request).stop_answer(video_id, chat_id)
    _library(request).remove_chat(video_id, chat_id)
    return PlainJson({"id": chat_id, "deleted": True})


@router.delete("/videos/{video_id}/chats/{chat_id}/answer", response_model=None)
async def stop_answer(video_id: str, chat_id: str, request: Request) -> Response:
    """Stop the answer that is being written, or forget why it failed."""
    await _live(request).stop_answer(video_id, chat_id)
    return PlainJson({"chat": chat_id, "stopped": True})


@router.get("/folder", response_model=None)
async def list_folder(request: Request, path: str = "") -> Response:
    """List a folder below the media paths."""
    roots = service_of(request).limits.media_roots
    return PlainJson(await asyncio.to_thread(listing, roots, path))
