"""Admit requests by their Host and Origin, key, and size of body.

A page of another site that the user's browser shows must not reach this server: its Origin is not
ours, and a name that it points at 127.0.0.1 (DNS rebinding) is not one of our names.
"""

from __future__ import annotations

import hmac
import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from retake_edge.server.errors import ApiError, response_of
from retake_edge.server.limits import ServerLimits

PUBLIC = frozenset(["/", "/health", "/v1/health"])
PUBLIC_FOLDERS = ("/page/", "/media/")
"""The page's own files, and videos under names that no one can guess (`library.tickets`)."""
UPLOADS = frozenset(["/v1/files"])
_FORM_OVERHEAD = 1 << 20


class Guard:
    """ASGI middleware that lets a request through, or answers with what is wrong with it."""

    def __init__(self, app: ASGIApp, limits: ServerLimits) -> None:
        self._app, self._limits = app, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, its body counted."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _CountedBody(receive, self._most_bytes(scope["path"]))
        try:
            self._check(scope, Headers(scope=scope))
            body.check_length(Headers(scope=scope).get("content-length"))
        except ApiError as error:
            await response_of(error)(scope, receive, send)
            return
        await self._app(scope, body, send)

    def _most_bytes(self, path: str) -> int:
        limits = self._limits
        return (
            limits.max_upload_bytes + _FORM_OVERHEAD if path in UPLOADS else limits.max_body_bytes
        )

    def _check(self, scope: Scope, headers: Headers) -> None:
        host = headers.get("host", "")
        if not is_own_host(host, self._limits.host_names):
            raise ApiError(
                403,
                "The Host header is not one of this server's names; call it by its address, or "
                "start it with --allow-host.",
                code="host_not_allowed",
            )
        origin = headers.get("origin")
        if origin is not None and not self._is_own_origin(origin, host):
            raise ApiError(
                403,
                "Pages of other origins may not call this server; start it with --cors-origins.",
                code="origin_not_allowed",
            )
        is_preflight = scope["method"] == "OPTIONS" and origin is not None
        if self._limits.api_keys and not is_public(scope["path"]) and not is_preflight:
            self._check_key(headers)

    def _is_own_origin(self, origin: str, host: str) -> bool:
        if origin in self._limits.cors_origins:
            return True
        try:
            return urlsplit(origin).netloc.lower() == host.lower() != ""
        except ValueError:
            return False

    def _check_key(self, headers: Headers) -> None:
        scheme, _, key = headers.get("authorization", "").partition(" ")
        given = key.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        # Every key is compared, each in constant time.
        known = [hmac.compare_digest(given.encode(), key.encode()) for key in self._limits.api_keys]
        if not any(known):
            raise ApiError(
                401,
                "The API key is missing or wrong; send it as 'Authorization: Bearer KEY'.",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )


def is_public(path: str) -> bool:
    """Return whether a path is told without a key."""
    return path in PUBLIC or path.startswith(PUBLIC_FOLDERS)


def is_own_host(host: str, names: tuple[str, ...]) -> bool:
    """Return whether a Host header names this server: an IP address, localhost, or one of `names`.

    A page can point a name of its own at this machine, but not an address.
    """
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    if name == "localhost" or name in {known.lower() for known in names}:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class _CountedBody:
    """A request's body, which ends in an error where it is longer than allowed."""

    def __init__(self, receive: Receive, most: int) -> None:
        self._receive, self._most, self._n = receive, most, 0

    def check_length(self, announced: str | None) -> None:
        if announced is not None and announced.isdecimal() and int(announced) > self._most:
            raise self._error()

    async def __call__(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._n += len(message.get("body", b""))
            if self._n > self._most:
                raise self._error()
        return message

    def _error(self) -> ApiError:
        return ApiError(
            413,
            f"The body is larger than the {self._most} bytes that are allowed; upload the video "
            "to /v1/files, or start the server with a larger --max-upload or --max-body.",
            code="too_large",
        )
