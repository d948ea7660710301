"""The application: routes, errors and the guard around a service; and how it is run."""

from __future__ import annotations

import atexit
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware

from retake_edge.config import RetakeConfig
from retake_edge.errors import ConfigError
from retake_edge.files import default_cache_dir
from retake_edge.models.manifest import ModelFiles, ModelManifest
from retake_edge.server import (
    chat_routes,
    file_routes,
    page_routes,
    responses_routes,
    status_routes,
)
from retake_edge.server.blobs import BlobStore
from retake_edge.server.errors import handle_errors
from retake_edge.server.guard import Guard
from retake_edge.server.library import routes as library_routes
from retake_edge.server.library.live import Live
from retake_edge.server.library.records import Library
from retake_edge.server.library.tickets import Tickets
from retake_edge.server.limits import ServerLimits
from retake_edge.server.metrics import Metrics
from retake_edge.server.service import Service
from retake_edge.server.sources import Sources
from retake_edge.server.uploads import Uploads
from retake_edge.server.worker import GRACE_S, Worker
from retake_edge.session.store.key import HashCache
from retake_edge.version import __version__

_GOODBYE_S = 5


@dataclass(frozen=True)
class ServerOptions:
    """Options of a server.

    `max_loaded_bytes`: of loaded videos' cells (None: half of what is free).
    """

    source: ModelManifest | ModelFiles
    model_name: str
    config: RetakeConfig
    limits: ServerLimits
    use_cache: bool = True
    cache_dir: Path | None = None
    max_loaded_bytes: int | None = None
    grace_s: float = GRACE_S


def make_service(options: ServerOptions) -> Service:
    """Load the model, and return all that the routes need.

    Raises:
        RetakeError: the model cannot be loaded.
    """
    limits, metrics = options.limits, Metrics()
    worker = Worker(
        options.source,
        n_gpu_layers=options.config.runtime.n_gpu_layers,
        n_queue=limits.n_queue,
        max_video_s=limits.max_video_s,
        cache_dir=options.cache_dir,
        use_cache=options.use_cache,
        max_loaded_bytes=options.max_loaded_bytes,
        metrics=metrics,
        grace_s=options.grace_s,
    )
    cache_dir = options.cache_dir or default_cache_dir()
    blobs = BlobStore(
        cache_dir / "uploads",
        max_bytes=limits.max_stored_bytes,
        max_blob_bytes=limits.max_upload_bytes,
    )
    uploads = Uploads(blobs)
    sources = Sources(limits, blobs, uploads, HashCache.beside(cache_dir))
    return Service(
        options.model_name,
        worker.start(),
        options.config,
        limits,
        worker,
        metrics,
        blobs,
        uploads,
        sources,
        int(time.time()),
        Library(_library_dir(cache_dir, options)),
    )


def _library_dir(cache_dir: Path, options: ServerOptions) -> Path:
    """Return the folder for notes of opened videos; without a cache, one deleted at exit."""
    if options.use_cache:
        return cache_dir / "library"
    folder = tempfile.TemporaryDirectory(prefix="retake-edge-")
    atexit.register(folder.cleanup)
    return Path(folder.name)


def make_app(service: Service) -> FastAPI:
    """Return the application over a running service, which ends with it."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        service.worker.close()

    # The usual page of the documentation would load its scripts from elsewhere.
    app = FastAPI(
        title="retake-edge", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None
    )
    app.state.service = service
    app.state.live, app.state.tickets = Live(service, service.library), Tickets()
    for module in (chat_routes, responses_routes, file_routes, status_routes, page_routes):
        app.include_router(module.router)
    app.include_router(library_routes.router)
    handle_errors(app)
    if service.limits.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(service.limits.cors_origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "X-Api-Key"],
        )
    app.add_middleware(Guard, limits=service.limits)
    return app


def run(options: ServerOptions, host: str, port: int, on_ready: Callable[[str], None]) -> None:
    """Serve until the process is told to end; `on_ready` gets the address."""
    import uvicorn

    with _listening(host, port) as listening:
        app = make_app(make_service(options))
        shown = f"[{host}]" if ":" in host else host
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_GOODBYE_S,
        )
        on_ready(f"http://{shown}:{listening.getsockname()[1]}")
        uvicorn.Server(config).run(sockets=[listening])


def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens, taken before the model is loaded.

    Raises:
        ConfigError: the port is taken, or the host is none of this machine's.
    """
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(1024)
    except (OSError, OverflowError) as error:
        listening.close()
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"Cannot listen on {host}, port {port} ({reason}); choose another --host or --port."
        ) from None
    return listening
