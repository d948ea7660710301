"""GGUF pairs from the Hugging Face hub: found in the caches that llama.cpp uses, pulled if missing.

Nothing here uses the network but `pull` and `download_bytes`, and `obtain` when files are missing.
"""

from __future__ import annotations

from retake_edge.models.hub.cache import GgufPair, cache_dir, check, find_pair
from retake_edge.models.hub.errors import HubError, HubWarning
from retake_edge.models.hub.naming import HubRef, parse_ref
from retake_edge.models.hub.obtain import download_bytes, is_offline, obtain, pull

__all__ = [
    "GgufPair",
    "HubError",
    "HubRef",
    "HubWarning",
    "cache_dir",
    "check",
    "download_bytes",
    "find_pair",
    "is_offline",
    "obtain",
    "parse_ref",
    "pull",
]
