"""Status of the server: /health, /v1/models, /props and /metrics."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from retake_edge.server.errors import ApiError, PlainJson
from retake_edge.server.service import Service, service_of
from retake_edge.server.worker import QUESTION_RESERVE
from retake_edge.version import __version__

router = APIRouter(tags=["status"])


@router.get("/health", response_model=None)
@router.get("/v1/health", response_model=None)
async def health(request: Request) -> Response:
    """Say whether questions are taken."""
    if not service_of(request).worker.is_alive:
        raise ApiError(503, "The model's thread has ended; start the server again.")
    return PlainJson({"status": "ok"})


def _model(service: Service) -> dict[str, Any]:
    return {
        "id": service.model_name,
        "object": "model",
        "created": service.started_s,
        "owned_by": "retake-edge",
        "meta": {"description": service.model_facts},
    }


@router.get("/v1/models", response_model=None)
@router.get("/models", response_model=None, include_in_schema=False)
async def list_models(request: Request) -> Response:
    """List the one model."""
    return PlainJson({"object": "list", "data": [_model(service_of(request))]})


@router.get("/v1/models/{model}", response_model=None)
async def retrieve_model(model: str, request: Request) -> Response:
    """Say what the model is."""
    service = service_of(request)
    if model != service.model_name:
        raise ApiError(404, f"There is no model {ascii(model)[:80]} here.", code="model_not_found")
    return PlainJson(_model(service))


@router.get("/props", response_model=None)
async def props(request: Request) -> Response:
    """Say what the server takes, in llama-server's form."""
    service = service_of(request)
    config = service.config.to_dict()
    return PlainJson(
        {
            "model_alias": service.model_name,
            "modalities": {"vision": True, "video": True, "audio": False},
            "total_slots": 1,
            "default_generation_settings": {
                "n_ctx": QUESTION_RESERVE,
                "params": config["generation"],
            },
            "build_info": f"retake-edge {__version__}",
            "retake": {
                "sampling": config["sampling"],
                "compression": config["compression"],
                "max_upload_bytes": service.limits.max_upload_bytes,
                "max_video_s": service.limits.max_video_s,
                "takes_urls": service.limits.allow_urls,
                "takes_paths": bool(service.limits.media_roots),
            },
        }
    )


@router.get("/metrics", response_model=None)
async def metrics(request: Request) -> Response:
    """Return Prometheus' figures."""
    service = service_of(request)
    text = service.metrics.text(service.worker.n_waiting)
    return Response(text, media_type="text/plain; version=0.0.4")
