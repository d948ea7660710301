"""A proxy that keeps the requests which pass through it, as they are sent."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_HOP = {"connection", "transfer-encoding", "content-length", "keep-alive"}


class Recorder:
    """What passed: method, path, body and status of each request; `url`: where it listens."""

    def __init__(self, port: int) -> None:
        self.requests: list[dict[str, Any]] = []
        recorder, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                headers = {k: v for k, v in self.headers.items() if k.lower() not in _HOP}
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
                connection.request(self.command, self.path, body or None, headers)
                answer = connection.getresponse()
                with lock:
                    kept = {"method": self.command, "path": self.path, "body": body}
                    kept["type"] = self.headers.get("content-type", "")
                    recorder.requests.append({**kept, "status": answer.status})
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in _HOP:
                        self.send_header(name, value)
                self.send_header("Connection", "close")
                self.end_headers()
                while block := answer.read1(1 << 16):
                    self.wfile.write(block)
                    self.wfile.flush()
                connection.close()
                self.close_connection = True

            do_GET = do_POST = do_DELETE = _pass_on

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    @contextmanager
    def running(self) -> Iterator[Recorder]:
        """Listen until the end of the block."""
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
