"""retake-edge serve: a server that OpenAI's clients ask about videos."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retake_edge.cli.help import examples
from retake_edge.cli.opening import model_name, require_no_fit, resolved
from retake_edge.cli.options import CliRequest, opens_video
from retake_edge.cli.streams import tell
from retake_edge.errors import ConfigError, ModelError
from retake_edge.formats import parse_bytes

if TYPE_CHECKING:
    from retake_edge.models.manifest import ModelFiles, ModelManifest
    from retake_edge.server.limits import ServerLimits

EXAMPLES = examples(
    "serve -m qwen2.5-vl-3b",
    "serve --media-path ~/Videos --port 9000",
    "serve --host 0.0.0.0 --api-key $KEY",
)
_NEEDED = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")


@opens_video
def serve(
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8080,
    api_key: Annotated[
        list[str] | None,
        typer.Option(envvar="RETAKE_API_KEY", help="A key that clients must send.", metavar="KEY"),
    ] = None,
    media_path: Annotated[
        list[Path] | None,
        typer.Option(help="A folder whose files clients may name.", metavar="DIR"),
    ] = None,
    allow_urls: Annotated[
        bool, typer.Option("--allow-urls", help="Fetch videos from public URLs.")
    ] = False,
    cors_origins: Annotated[
        list[str] | None,
        typer.Option(help="An origin whose pages may ask, too.", metavar="ORIGIN"),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="A name by which the server is called, too.", metavar="NAME"),
    ] = None,
    max_upload: Annotated[
        str, typer.Option(help="Largest video that is sent.", metavar="SIZE")
    ] = "8G",
    max_stored: Annotated[
        str, typer.Option(help="Room on the disk for videos that were sent.", metavar="SIZE")
    ] = "32G",
    max_body: Annotated[
        str, typer.Option(help="Largest JSON body, base64 included.", metavar="SIZE")
    ] = "256M",
    max_duration: Annotated[str, typer.Option(help="Longest video.", metavar="TIME")] = "24:00:00",
    max_loaded: Annotated[
        str | None,
        typer.Option(
            help="Memory for loaded videos.  [default: half of what is free]", metavar="SIZE"
        ),
    ] = None,
    queue: Annotated[int, typer.Option(help="Requests that may wait.", metavar="N")] = 64,
    *,
    request: CliRequest,
) -> None:
    """Answer questions about videos over HTTP, as OpenAI's API and llama-server do.

    The other options say how videos are looked at and answers drawn where a request does not.
    """
    if missing := [name for name in _NEEDED if find_spec(name) is None]:
        raise ConfigError(f"serve needs {missing[0]}; type: pip install 'retake-edge[serve]'.")
    require_no_fit(request)
    from retake_edge.formats import parse_time
    from retake_edge.server.app import ServerOptions, run
    from retake_edge.server.limits import ServerLimits, media_roots

    limits = ServerLimits(
        api_keys=tuple(api_key or ()),
        media_roots=media_roots(media_path or []),
        allow_urls=allow_urls,
        cors_origins=tuple(cors_origins or ()),
        host_names=tuple(allow_host or ()),
        max_body_bytes=parse_bytes(max_body),
        max_upload_bytes=parse_bytes(max_upload),
        max_stored_bytes=parse_bytes(max_stored),
        max_video_s=parse_time(max_duration, "--max-duration"),
        n_queue=queue,
    )
    _warn_if_open(host, limits)
    source = _source(request)
    options = ServerOptions(
        source,
        model_name(source),
        request.config,
        limits,
        request.use_cache,
        request.cache_dir,
        None if max_loaded is None else parse_bytes(max_loaded),
    )
    run(options, host, port, lambda url: tell(f"{model_name(source)} at {url}"))


def _warn_if_open(host: str, limits: ServerLimits) -> None:
    if host not in ("127.0.0.1", "localhost", "::1") and not limits.api_keys:
        tell(f"warning: anyone who reaches {host} can ask and upload; set --api-key.")


def _source(request: CliRequest) -> ModelManifest | ModelFiles:
    """The model that is named, or chosen for always, or the best one that is downloaded."""
    from retake_edge.catalog.catalog import downloaded
    from retake_edge.catalog.user_config import default_model
    from retake_edge.models.resolve import resolve_model

    if request.model or request.hub or default_model():
        return resolved(None, request)
    best = next((entry for entry in downloaded() if entry.fits is not False), None)
    if best is None:
        raise ModelError(
            "No model for real videos is downloaded yet; 'retake-edge models' shows those that "
            "fit, and -m tiny serves the bundled one, for rendered scenes."
        )
    return resolve_model(best.name)
