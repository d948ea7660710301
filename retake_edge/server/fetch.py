"""Fetch a video from a URL: public addresses alone, redirects included, with limits.

A name is resolved once, each of its addresses is checked, and the connection goes to the one that
was checked: a second answer of the name server cannot lead elsewhere. No proxy is used.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any
from urllib.parse import urljoin, urlsplit

from retake_edge.server.blobs import BLOCK_BYTES
from retake_edge.server.errors import ApiError, log

_MAX_REDIRECTS = 5
_TIMEOUT_S = 20.0
_MAX_SECONDS = 3600.0
_REDIRECTS = (301, 302, 303, 307, 308)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def fetch(url: str) -> Iterator[bytes]:
    """Yield the content of an http or https URL.

    Raises:
        ApiError: it is not public, is not there, or takes too long.
    """
    deadline = time.monotonic() + _MAX_SECONDS
    for _ in range(_MAX_REDIRECTS + 1):
        connection, response = _opened(url)
        try:
            if response.status in _REDIRECTS:
                url = urljoin(url, response.getheader("location", ""))
                continue
            if response.status != 200:
                raise ApiError(400, f"The URL answers with status {response.status}; check it.")
            yield from _blocks(response, deadline)
            return
        finally:
            connection.close()
    raise ApiError(400, f"The URL is redirected more than {_MAX_REDIRECTS} times; give its end.")


def _blocks(response: http.client.HTTPResponse, deadline: float) -> Iterator[bytes]:
    try:
        while block := response.read1(BLOCK_BYTES):
            if time.monotonic() > deadline:
                raise ApiError(400, f"The URL takes more than {_MAX_SECONDS:g} s; download it.")
            yield block
        if response.length:
            raise ApiError(400, "The URL ended before its content; try again.")
    except (OSError, http.client.HTTPException) as error:
        log.info("A fetch broke off: %s", error)
        raise ApiError(400, "The connection to the URL broke off; try again.") from None


def _opened(url: str) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise ApiError(400, "The URL is not valid; check it.") from None
    if parts.scheme not in ("http", "https") or not host:
        raise ApiError(400, "Only http and https URLs are fetched.")
    target = f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}"
    # Without a port the end of an IPv6 address would be taken for one.
    kind = _PublicHttps if parts.scheme == "https" else _PublicHttp
    with ExitStack() as unless_opened:
        try:
            connection = kind(host, port or kind.default_port, timeout=_TIMEOUT_S)
            unless_opened.callback(connection.close)
            connection.request("GET", target, headers={"User-Agent": "retake-edge"})
            response = connection.getresponse()
        except (OSError, http.client.HTTPException, ValueError) as error:
            log.info("A fetch failed: %s", error)
            raise ApiError(400, "The URL cannot be reached; check it.") from None
        unless_opened.pop_all()
        return connection, response


class _PublicHttp(http.client.HTTPConnection):
    """A connection to a public address."""

    def connect(self) -> None:
        """Connect to one of the host's addresses, all of which must be public."""
        self.sock = _connected(self.host, self.port, _TIMEOUT_S)


class _PublicHttps(http.client.HTTPSConnection):
    """The same with TLS, the certificate checked against the name."""

    def connect(self) -> None:
        """Connect to one of the host's addresses, all of which must be public."""
        raw = _connected(self.host, self.port, _TIMEOUT_S)
        self.sock = ssl.create_default_context().wrap_socket(raw, server_hostname=self.host)


def _connected(host: str, port: int, timeout_s: float) -> socket.socket:
    try:
        found: list[Any] = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise ApiError(400, "The URL's host is not known; check it.") from None
    addresses = [entry[4] for entry in found]
    if not addresses or not all(is_public(str(address[0])) for address in addresses):
        raise ApiError(
            403, "The URL leads to a private address, which is not fetched.", code="url_not_allowed"
        )
    error: OSError | None = None
    for address in addresses:
        with suppress(OSError):
            return socket.create_connection((address[0], port), timeout_s)
    raise error or OSError("no address answers")


def is_public(address: str) -> bool:
    """Return whether an IP address lies in the public internet, also the one it stands for."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if inner is None and ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
        if ip.teredo is not None or ip.is_site_local:
            return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved
