"""Errors as OpenAI's clients read them, and which status each of ours has."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from retake_edge.errors import (
    ConfigError,
    MemoryBudgetError,
    ModelError,
    NativeError,
    RetakeError,
    VideoError,
    VideoRangeError,
)

log = logging.getLogger("retake_edge.server")

STATUSES: dict[type[RetakeError], int] = {
    ConfigError: 400,
    VideoRangeError: 400,
    VideoError: 415,
    MemoryBudgetError: 422,
    ModelError: 500,
    NativeError: 500,
}
_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    503: "unavailable_error",
}


# Options of the command line that a request has under other names than theirs.
_RENAMED = {"temp": "temperature"}
_ASKED = frozenset(
    ("fps", "max_frames", "long_side", "start", "end", "keep_ratio", "kv_budget", "temp", "seed")
) | frozenset(("top_k", "top_p", "min_p", "repeat_penalty", "presence_penalty", "grammar"))
_OPTION = re.compile(r"--([a-z]+(?:-[a-z]+)*)")


class ApiError(Exception):
    """An answer that is an error: one sentence, with the status and the field it is about."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.headers = headers or {}

    def body(self) -> dict[str, Any]:
        """Return OpenAI's form of it."""
        kind = _TYPES.get(self.status)
        kind = kind or ("server_error" if self.status >= 500 else "invalid_request_error")
        return {
            "error": {
                "message": self.message,
                "type": kind,
                "code": self.code or str(self.status),
                "param": self.param,
            }
        }


class PlainJson(Response):
    """JSON in ASCII, so that no text of a client can make it invalid."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Return the bytes of the body."""
        return json.dumps(content, separators=(",", ":")).encode()


def api_error(error: BaseException, path: Path | None = None, name: str = "") -> ApiError:
    """Return what a client is told of an error; `path` of a video is told as its `name`.

    What is no client's fault goes to the log, and is not told.
    """
    if isinstance(error, ApiError):
        return error
    if not isinstance(error, RetakeError):
        log.error("A request failed.", exc_info=error)
        return ApiError(500, "The server failed at this request; its log says why.")
    status = next((n for kind, n in STATUSES.items() if isinstance(error, kind)), 500)
    if status >= 500:
        log.error("A request failed: %s", error)
        return ApiError(status, "The model cannot be used; the server's log says why.")
    message = str(error)
    if path is not None:
        message = message.replace(str(path), name or "the video")
    message, param = _as_asked(message)
    code = {415: "video_unreadable", 422: "does_not_fit"}.get(status)
    return ApiError(status, message, code=code, param=param)


def _as_asked(message: str) -> tuple[str, str | None]:
    """A message with the names that requests use for options, and the first of them."""
    named: list[str] = []

    def renamed(found: re.Match[str]) -> str:
        name = found[1].replace("-", "_")
        if name not in _ASKED:
            return found[0]
        named.append(_RENAMED.get(name, name))
        return named[-1]

    message = _OPTION.sub(renamed, message)
    return message, named[0] if named else None


def response_of(error: ApiError) -> Response:
    """Return an error as a response."""
    return PlainJson(error.body(), error.status, headers=error.headers)


def _invalid(first: dict[str, Any]) -> ApiError:
    """Return the error for a body that is not as documented."""
    places = [part for part in first["loc"] if part != "body"]
    if first["type"] == "json_invalid":
        return ApiError(400, f"The body is not JSON, from character {places[-1]} on.")
    if not places:
        return ApiError(
            400, "The body is no JSON object; send one, with Content-Type: application/json."
        )
    # What follows the field is an index, or the name of one of the types that were tried.
    field = ".".join(str(part) for part in places[:1] + [p for p in places[1:] if type(p) is int])
    return ApiError(400, f"{field[:200]}: {first['msg']}.", param=field[:200])


def handle_errors(app: FastAPI) -> None:
    """Let every error of the application have OpenAI's form."""

    async def answered(_: Request, error: Exception) -> Response:
        return response_of(api_error(error))

    async def invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return response_of(_invalid(error.errors()[0]))

    async def http(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if isinstance(error.__cause__, ApiError):  # raised while the body was read
            return response_of(error.__cause__)
        found = ApiError(error.status_code, str(error.detail), headers=dict(error.headers or {}))
        return response_of(found)

    app.add_exception_handler(ApiError, answered)
    app.add_exception_handler(RetakeError, answered)
    app.add_exception_handler(RecursionError, answered)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, answered)
