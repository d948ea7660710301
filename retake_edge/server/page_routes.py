"""The page at /, its files, and the videos that it plays."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import mimetypes
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, Response

from retake_edge.page.assets import FOLDER
from retake_edge.server.errors import ApiError
from retake_edge.server.library.live import Live
from retake_edge.server.library.tickets import Tickets
from retake_edge.server.service import service_of

router = APIRouter(include_in_schema=False)
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; media-src 'self' blob:; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
    "Vary": "Accept-Encoding",
}
_MEDIA_HEADERS = {
    "Content-Security-Policy": "sandbox; default-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "private, no-cache",
}


@dataclass(frozen=True)
class _File:
    """A file of the page, as it is and packed."""

    content: bytes
    packed: bytes
    kind: str
    tag: str


@lru_cache(maxsize=64)
def _file(path: Path, _changed_ns: int) -> _File:
    content = path.read_bytes()
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    return _File(content, gzip.compress(content, 9, mtime=0), _TYPES[path.suffix], tag)


@router.get("/")
async def page(request: Request) -> Response:
    """Return the page."""
    return _sent(request, "index.html")


@router.get("/page/{name}")
async def page_file(name: str, request: Request) -> Response:
    """Return a file of the page."""
    return _sent(request, name)


def _sent(request: Request, name: str) -> Response:
    path = next((path for path in FOLDER.iterdir() if path.name == name), None)
    if path is None or path.suffix not in _TYPES:
        raise ApiError(404, "There is no such page.")
    file = _file(path, path.stat().st_mtime_ns)
    headers = {**_HEADERS, "ETag": file.tag}
    if request.headers.get("if-none-match") == file.tag:
        return Response(status_code=304, headers=headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers["Content-Encoding"] = "gzip"
        return Response(file.packed, media_type=file.kind, headers=headers)
    return Response(file.content, media_type=file.kind, headers=headers)


@router.get("/media/{ticket}")
async def media(ticket: str, request: Request) -> Response:
    """Return the video of a ticket, in parts if asked for."""
    tickets, live = request.app.state.tickets, request.app.state.live
    assert isinstance(tickets, Tickets) and isinstance(live, Live)
    video_id = tickets.video(ticket)
    if video_id is None:
        raise ApiError(404, "There is no such video; load the page again.")
    video = service_of(request).library.get(video_id)
    sent = await asyncio.to_thread(live.sent, video)
    sent.held.close()  # an open file can be read to its end
    guessed = mimetypes.guess_type(video.name)[0] or ""
    kind = guessed if guessed.startswith("video/") else "application/octet-stream"
    return FileResponse(sent.path, media_type=kind, headers=_MEDIA_HEADERS)
