"""Ask questions about a long video on your own machine; nothing of it leaves the machine."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from retake_edge.version import __version__

if TYPE_CHECKING:
    from retake_edge.config import (
        CompressionConfig,
        DPSelectConfig,
        GenerationConfig,
        RetakeConfig,
        RuntimeConfig,
        SamplingConfig,
    )
    from retake_edge.errors import (
        ConfigError,
        MemoryBudgetError,
        ModelError,
        NativeError,
        RetakeError,
        VideoError,
    )
    from retake_edge.models.manifest import ModelFiles, ModelManifest
    from retake_edge.models.resolve import resolve_model
    from retake_edge.session.answer import Answer
    from retake_edge.session.conversation import Conversation
    from retake_edge.session.evidence import Span
    from retake_edge.session.open import open_session, open_video
    from retake_edge.session.prefilled import SessionWarning
    from retake_edge.session.session import Session


# Importing the package loads none of these, so that `--version` and a typing mistake are quick.
_HOMES = {
    "Answer": "session.answer",
    "ConfigError": "errors",
    "Conversation": "session.conversation",
    "DPSelectConfig": "config",
    "GenerationConfig": "config",
    "MemoryBudgetError": "errors",
    "ModelError": "errors",
    "ModelFiles": "models.manifest",
    "ModelManifest": "models.manifest",
    "NativeError": "errors",
    "CompressionConfig": "config",
    "RetakeConfig": "config",
    "RetakeError": "errors",
    "RuntimeConfig": "config",
    "SamplingConfig": "config",
    "Session": "session.session",
    "SessionWarning": "session.prefilled",
    "Span": "session.evidence",
    "VideoError": "errors",
    "open_session": "session.open",
    "open_video": "session.open",
    "resolve_model": "models.resolve",
}

__all__ = [
    "Answer",
    "CompressionConfig",
    "ConfigError",
    "Conversation",
    "DPSelectConfig",
    "GenerationConfig",
    "MemoryBudgetError",
    "ModelError",
    "ModelFiles",
    "ModelManifest",
    "NativeError",
    "RetakeConfig",
    "RetakeError",
    "RuntimeConfig",
    "SamplingConfig",
    "Session",
    "SessionWarning",
    "Span",
    "VideoError",
    "__version__",
    "open_session",
    "open_video",
    "resolve_model",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
