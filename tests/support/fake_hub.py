"""A hub on this machine: two servers on loopback that speak what huggingface_hub asks of a hub.

`FakeHub` answers the API and sends whoever wants content to a second server, as the hub sends them
to its storage. Faults are queued by file name, and each spoils one answer of the storage.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Repo:
    """Files by path; `gated`, `hidden`: what the hub says instead; `lfs`: whether it has hashes."""

    files: dict[str, bytes]
    commit: str = COMMIT
    gated: bool = False
    hidden: bool = False
    lfs: bool = True


@dataclass
class Fault:
    """What goes wrong with one answer: a status, a cut after n bytes, other bytes, a wait.

    `hold`: waited for after the first `cut` bytes, or before the answer without; `no_range`:
    answer 200 with everything to a request for a part.
    """

    status: int = 200
    cut: int | None = None
    flip: bool = False
    hold: threading.Event | None = None
    hold_s: float = 60.0
    no_range: bool = False


@dataclass
class FakeHub:
    """The two servers; `asked` and `served` are the requests that each saw.

    `api_faults`: statuses that the first answers of the API have, with a page that is no answer.
    """

    repos: dict[str, Repo] = field(default_factory=dict)
    token: str | None = None
    asked: list[tuple[str, str]] = field(default_factory=list)
    served: list[tuple[str, str | None]] = field(default_factory=list)
    leaked: list[str] = field(default_factory=list)
    api_faults: list[int] = field(default_factory=list)
    faults: dict[str, list[Fault]] = field(default_factory=lambda: defaultdict(list))

    def __enter__(self) -> FakeHub:
        self._servers = [_server(_Api, self), _server(_Storage, self)]
        return self

    def __exit__(self, *_: object) -> None:
        for fault in (fault for queue in self.faults.values() for fault in queue):
            if fault.hold:
                fault.hold.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()

    @property
    def url(self) -> str:
        return _url(self._servers[0], "127.0.0.1")

    @property
    def storage_url(self) -> str:
        return _url(self._servers[1], "localhost")  # another host, as it is for the hub

    def n_bytes_of(self, path: str) -> int:
        """How often content of a file was asked for."""
        return sum(PurePosixPath(p).name == path for p, _ in self.served)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _server(handler: type[BaseHTTPRequestHandler], hub: FakeHub) -> ThreadingHTTPServer:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type(handler.__name__, (handler,), {"hub": hub}))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    return server


def _url(server: ThreadingHTTPServer, host: str) -> str:
    return f"http://{host}:{server.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        raise NotImplementedError

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class _Api(_Handler):
    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append((self.command, path))
        if self.hub.api_faults:
            self.answer(self.hub.api_faults.pop(0), b"<html></html>")
            return
        is_api = path.startswith("/api/models/")
        name = "/".join(path.removeprefix("/api/models").split("/")[1:3])
        repo = self.hub.repos.get(name)
        has_token = self.headers.get("Authorization") == f"Bearer {self.hub.token}"
        if self.hub.token and not has_token and self.headers.get("Authorization"):
            self.answer(401, X_Error_Message="Invalid credentials in Authorization header")
        elif repo is None or (repo.hidden and not has_token):
            status = 404 if has_token else 401
            self.answer(status, X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")
        elif is_api:
            self._tell_of(name, repo)
        elif repo.gated and not has_token:
            self.answer(403, X_Error_Code="GatedRepo", X_Error_Message="Access is restricted")
        else:
            self._send_on(path, repo)

    def _tell_of(self, name: str, repo: Repo) -> None:
        siblings = [_sibling(path, content, repo.lfs) for path, content in repo.files.items()]
        document = {"id": name, "modelId": name, "sha": repo.commit, "siblings": siblings}
        self.answer(200, json.dumps(document).encode(), Content_Type="application/json")

    def _send_on(self, path: str, repo: Repo) -> None:
        file = path.split("/", 5)[5]
        if file not in repo.files:
            self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=repo.commit)
            return
        content = repo.files[file]
        self.answer(
            302,
            Location=f"{self.hub.storage_url}/{sha256(content)}/{file}",
            X_Repo_Commit=repo.commit,
            X_Linked_Etag=f'"{sha256(content)}"',
            X_Linked_Size=str(len(content)),
        )


def _sibling(path: str, content: bytes, lfs: bool) -> dict[str, object]:
    entry: dict[str, object] = {"rfilename": path, "size": len(content), "blobId": "f" * 40}
    if lfs:
        entry["lfs"] = {"sha256": sha256(content), "size": len(content), "pointerSize": 135}
    return entry


class _Storage(_Handler):
    def do_GET(self) -> None:
        _, digest, path = unquote(self.path).split("/", 2)
        wanted = self.headers.get("Range")
        self.hub.served.append((path, wanted))
        if self.headers.get("Authorization"):
            self.hub.leaked.append(path)
        queue = self.hub.faults[PurePosixPath(path).name]
        self._serve(self._content(digest), wanted, queue.pop(0) if queue else Fault())

    def _content(self, digest: str) -> bytes:
        contents = (c for repo in self.hub.repos.values() for c in repo.files.values())
        return next(content for content in contents if sha256(content) == digest)

    def _serve(self, content: bytes, wanted: str | None, fault: Fault) -> None:
        if fault.hold and fault.cut is None:
            fault.hold.wait(fault.hold_s)
        if fault.status != 200:
            self.answer(fault.status)
            return
        if fault.flip:
            content = bytes([content[0] ^ 1]) + content[1:]
        status, body, headers = 200, content, {}
        if wanted and not fault.no_range:
            start = int(wanted.removeprefix("bytes=").partition("-")[0])
            status, body = 206, content[start:]
            headers["Content_Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        with suppress(OSError):  # whoever asked went away
            self._send(status, body, headers, fault)

    def _send(self, status: int, body: bytes, headers: dict[str, str], fault: Fault) -> None:
        if fault.cut is None:
            self.answer(status, body, **headers)
            return
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: fault.cut])
        self.wfile.flush()
        if fault.hold:
            fault.hold.wait(fault.hold_s)
