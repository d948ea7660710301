"""Ask questions about a long video on your own machine; nothing of it leaves the machine."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retake_edge.chat import Conversation
    from retake_edge.config import (
        DPSelectConfig,
        GenerationConfig,
        PivotKVConfig,
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
    from retake_edge.evidence import Span
    from retake_edge.models import ModelFiles, ModelManifest, resolve_model
    from retake_edge.session import Answer, Session, SessionWarning, open_session, open_video

__version__ = "0.1.0"

# Importing the package loads none of these, so that `--version` and a typing mistake are quick.
_HOMES = {
    "Answer": "session",
    "ConfigError": "errors",
    "Conversation": "chat",
    "DPSelectConfig": "config",
    "GenerationConfig": "config",
    "MemoryBudgetError": "errors",
    "ModelError": "errors",
    "ModelFiles": "models",
    "ModelManifest": "models",
    "NativeError": "errors",
    "PivotKVConfig": "config",
    "RetakeConfig": "config",
    "RetakeError": "errors",
    "RuntimeConfig": "config",
    "SamplingConfig": "config",
    "Session": "session",
    "SessionWarning": "session",
    "Span": "evidence",
    "VideoError": "errors",
    "open_session": "session",
    "open_video": "session",
    "resolve_model": "models",
}

__all__ = [
    "Answer",
    "ConfigError",
    "Conversation",
    "DPSelectConfig",
    "GenerationConfig",
    "MemoryBudgetError",
    "ModelError",
    "ModelFiles",
    "ModelManifest",
    "NativeError",
    "PivotKVConfig",
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
