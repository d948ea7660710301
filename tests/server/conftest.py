"""A real server with the bundled model, in a thread; four rendered scenes with known answers."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import replace

import httpx
import pytest

from retake_edge.bench.scenes.questions import make_questions
from retake_edge.bench.scenes.scene import make_scene, write_video
from retake_edge.config import GenerationConfig, RetakeConfig, RuntimeConfig, SamplingConfig
from retake_edge.models.resolve import resolve_model
from retake_edge.server.app import ServerOptions, make_app, make_service
from retake_edge.server.limits import ServerLimits, media_roots

SECONDS, N_SCENES = 12.0, 4
SETTINGS = RetakeConfig(
    SamplingConfig(fps=2.0),
    runtime=RuntimeConfig(n_threads=1),
    generation=GenerationConfig(max_tokens=24),
)


class Running:
    """A server that runs: its address, its service, and a client."""

    def __init__(self, url, service):
        self.url, self.service = url, service
        self.http = httpx.Client(base_url=url, timeout=120, trust_env=False)

    def chat(self, content, *, before=(), **more):
        """POST a question; return the response."""
        messages = [*before, {"role": "user", "content": content}]
        return self.http.post("/v1/chat/completions", json={"messages": messages, **more})

    def n_read(self):
        """How many videos were read, and not loaded."""
        lines = self.http.get("/metrics").text.splitlines()
        return next(float(x.split()[1]) for x in lines if x.startswith("retake_videos_read_total"))


@contextmanager
def running(cache_dir, limits=None, **options):
    """Run a server until the end of the block."""
    import uvicorn

    source = resolve_model("tiny")
    made = ServerOptions(
        source, "tiny", SETTINGS, limits or ServerLimits(), cache_dir=cache_dir, **options
    )
    service = make_service(made)
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


@pytest.fixture(scope="session")
def scenes(tmp_path_factory):
    """(path, questions) of each scene; the model answers these questions rightly."""
    folder = tmp_path_factory.mktemp("scenes")
    made = []
    for seed in range(N_SCENES):
        scene = make_scene(100 + seed, SECONDS)
        path = folder / f"scene{seed}.mp4"
        write_video(scene, path, fps=4.0, size_px=224)
        made.append((path, make_questions(scene, 8, seed)))
    return made


@pytest.fixture(scope="session")
def limits(scenes):
    return ServerLimits(media_roots=media_roots([scenes[0][0].parent]), max_upload_bytes=1 << 22)


@pytest.fixture(scope="session")
def server(tmp_path_factory, limits):
    with running(tmp_path_factory.mktemp("served"), limits) as made:
        yield made


@pytest.fixture(scope="session")
def guarded(tmp_path_factory, limits):
    """A server with a key and room for one request."""
    with running(
        tmp_path_factory.mktemp("guarded"),
        replace(limits, api_keys=("open-sesame",), n_queue=1, max_body_bytes=1 << 16),
    ) as made:
        yield made
