"""A running server for tests; how they write parts and read answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from retake_edge.bench.scenes.questions import Question, make_questions
from retake_edge.bench.scenes.render import write_video
from retake_edge.bench.scenes.scene import make_scene
from retake_edge.config import GenerationConfig, RetakeConfig, RuntimeConfig, SamplingConfig
from retake_edge.models.resolve import resolve_model
from retake_edge.server.app import ServerOptions, make_app, make_service
from retake_edge.server.limits import ServerLimits
from retake_edge.server.service import Service

SETTINGS = RetakeConfig(
    SamplingConfig(fps=2.0),
    runtime=RuntimeConfig(n_threads=1),
    generation=GenerationConfig(max_tokens=24),
)


PATIENCE_S = 60
SECONDS, N_SCENES = 12.0, 4


class Gate:
    """Stops the worker where it tells of something, until it is opened."""

    def __init__(self) -> None:
        self._may, self._is_there = threading.Event(), threading.Event()
        self._may.set()

    def shut(self) -> None:
        self._may.clear()
        self._is_there.clear()

    def open(self) -> None:
        self._may.set()

    def reached(self) -> None:
        """Wait until the worker stands at the gate."""
        assert self._is_there.wait(PATIENCE_S)

    def pass_through(self) -> None:
        if not self._may.is_set():
            self._is_there.set()
        assert self._may.wait(PATIENCE_S)


class Running:
    """A server that runs: its address, its service, and a client."""

    def __init__(self, url: str, service: Service) -> None:
        self.url, self.service = url, service
        self.http = httpx.Client(base_url=url, timeout=120, trust_env=False)

    def chat(self, content: Any, *, before: Sequence[Any] = (), **more: Any) -> httpx.Response:
        """POST a question; return the response."""
        messages = [*before, {"role": "user", "content": content}]
        return self.http.post("/v1/chat/completions", json={"messages": messages, **more})

    def n_read(self) -> float:
        """How many videos were read, and not loaded."""
        lines = self.http.get("/metrics").text.splitlines()
        return next(float(x.split()[1]) for x in lines if x.startswith("retake_videos_read_total"))


def write_scenes(
    folder: Path, suffix: str = ".mp4", codec: str = "mp4v"
) -> list[tuple[Path, list[Question]]]:
    """Render scenes; return (path, questions) of each."""
    made = []
    for seed in range(N_SCENES):
        scene = make_scene(100 + seed, SECONDS)
        path = folder / f"scene{seed}{suffix}"
        write_video(scene, path, fps=4.0, size_px=224, codec=codec)
        made.append((path, make_questions(scene, 8, seed)))
    return made


@contextmanager
def running(
    cache_dir: Path, limits: ServerLimits | None = None, **options: Any
) -> Iterator[Running]:
    """Run a server until the end of the block."""
    import uvicorn

    source = resolve_model("tiny")
    asked = ServerOptions(
        source, "tiny", SETTINGS, limits or ServerLimits(), cache_dir=cache_dir, **options
    )
    service = make_service(asked)
    config = uvicorn.Config(
        make_app(service), host="127.0.0.1", port=0, log_level="error", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    made = Running(f"http://127.0.0.1:{port}", service)
    try:
        yield made
    finally:
        made.http.close()
        server.should_exit = True
        thread.join()


def file_url(path: Path) -> dict[str, Any]:
    return {"type": "video_url", "video_url": {"url": f"file://{path}"}}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def answer_of(response: httpx.Response) -> str:
    assert response.status_code == 200, response.text
    return str(response.json()["choices"][0]["message"]["content"])
