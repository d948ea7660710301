"""Real servers with the bundled model; four rendered scenes with known answers."""

from dataclasses import replace

import pytest
from server_support import Gate, running, write_scenes

from retake_edge.server.jobs import Job, Piece
from retake_edge.server.limits import ServerLimits, media_roots
from retake_edge.server.worker import Worker


@pytest.fixture(scope="session")
def scenes(tmp_path_factory):
    """(path, questions) of each scene; the model answers these questions rightly."""
    return write_scenes(tmp_path_factory.mktemp("scenes"))


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


@pytest.fixture
def reading_gate(monkeypatch):
    """Stops readings once a part of the video is encoded."""
    gate, told = Gate(), Worker._progress

    def progress(self, job, stage, done, total, more=None):
        told(self, job, stage, done, total, more)
        if stage == "encode" and done:
            gate.pass_through()

    monkeypatch.setattr(Worker, "_progress", progress)
    yield gate
    gate.open()


@pytest.fixture
def answer_gate(monkeypatch):
    """Stops answers behind their first piece."""
    gate, told = Gate(), Job.tell

    def tell(self, event):
        told(self, event)
        if isinstance(event, Piece):
            gate.pass_through()

    monkeypatch.setattr(Job, "tell", tell)
    yield gate
    gate.open()
