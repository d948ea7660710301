"""/v1/files: videos uploaded once, and asked about by their ids."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Request, UploadFile
from fastapi.responses import FileResponse, Response

from retake_edge.server.blobs import BLOCK_BYTES
from retake_edge.server.errors import PlainJson
from retake_edge.server.service import service_of

router = APIRouter(prefix="/v1/files", tags=["files"])
_MOST_NAME = 255


@router.post("", response_model=None)
async def create_file(
    request: Request,
    file: Annotated[UploadFile, File()],
    purpose: Annotated[str, Form(max_length=100)] = "user_data",
) -> Response:
    """Store a video; the same content under the same name is the same file."""
    blocks = iter(lambda: file.file.read(BLOCK_BYTES), b"")
    name = (file.filename or "video").rpartition("/")[2][-_MOST_NAME:] or "video"
    uploads = service_of(request).uploads
    upload = await asyncio.to_thread(uploads.add, blocks, name, purpose)
    return PlainJson(upload.to_object())


@router.get("", response_model=None)
async def list_files(request: Request) -> Response:
    """List all files, the newest first."""
    data: list[dict[str, Any]] = [
        upload.to_object() for upload in service_of(request).uploads.all()
    ]
    ids = [entry["id"] for entry in data]
    return PlainJson(
        {
            "object": "list",
            "data": data,
            "first_id": ids[0] if ids else None,
            "last_id": ids[-1] if ids else None,
            "has_more": False,
        }
    )


@router.get("/{file_id}", response_model=None)
async def retrieve_file(file_id: str, request: Request) -> Response:
    """Say what a file is."""
    return PlainJson(service_of(request).uploads.get(file_id).to_object())


@router.get("/{file_id}/content", response_model=None)
async def file_content(file_id: str, request: Request) -> Response:
    """Return a file as it was uploaded, in parts if asked for."""
    service = service_of(request)
    upload = service.uploads.get(file_id)
    headers = {
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "X-Content-Type-Options": "nosniff",
        "Content-Disposition": "attachment",
    }
    path = service.blobs.path(upload.sha256)
    return FileResponse(path, media_type="application/octet-stream", headers=headers)


@router.delete("/{file_id}", response_model=None)
async def delete_file(file_id: str, request: Request) -> Response:
    """Forget a file; what was read of it stays among the saved sessions."""
    service_of(request).uploads.remove(file_id)
    return PlainJson({"id": file_id, "object": "file", "deleted": True})
