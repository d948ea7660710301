"""Saved videos named by their key in place of the video's file."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from retake_edge.errors import ConfigError

if TYPE_CHECKING:
    from retake_edge.cli.options import CliRequest
    from retake_edge.session.session import Session

_KEY = re.compile(r"[0-9a-f]{4,32}")
_DECIDED = {
    "model": "-m",
    "hf_repo": "-hf",
    "offline": "--offline",
    "mmproj": "--mmproj",
    "start": "--start",
    "end": "--end",
    "fps": "--fps",
    "max_frames": "--max-frames",
    "long_side": "--long-side",
    "keep_ratio": "--keep-ratio",
    "kv_budget": "--kv-budget",
    "prefill_chunk_frames": "--prefill-chunk-frames",
    "policy": "--policy",
    "positions": "--positions",
    "pivot": "--pivot",
    "policy_seed": "--policy-seed",
    "type_k": "-ctk",
    "type_v": "-ctv",
    "flash_attention": "-fa",
    "system": "-sys",
    "fit": "--fit",
    "no_cache": "--no-cache",
}
"""Options that shape what is saved of a video, by parameter."""


def saved_key(video: str | Path, request: CliRequest) -> str:
    """Return the key that a text means where it is no file but begins a saved key; else ''.

    Raises:
        SessionError: more than one key begins so.
    """
    from retake_edge.session.store.folder import SessionStore

    text = str(video)
    if not _KEY.fullmatch(text) or os.path.lexists(text):
        return ""
    store = SessionStore(request.cache_dir)
    keys = store.keys()
    return store.find(text) if any(key.startswith(text) for key in keys) else ""


def opened_by_key(key: str, request: CliRequest, n_question_reserve: int) -> Session:
    """Return a saved session; raises what `retake_edge.open_session` raises.

    Raises:
        ConfigError: an option asks for what was decided when the video was read.
    """
    from retake_edge.cli.progress import shown_progress
    from retake_edge.session.open import open_session
    from retake_edge.session.others import KEY_LETTERS
    from retake_edge.session.store.folder import SessionStore

    for name, option in _DECIDED.items():
        if name in request.given:
            raise ConfigError(
                f"{option} was decided when {key[:KEY_LETTERS]} was read; leave it out, or give "
                "the video in place of the key."
            )
    head = SessionStore(request.cache_dir).info(key).head
    with shown_progress(head.get("video", ""), head.get("model", "")) as progress:
        return open_session(
            key,
            request.config,
            cache_dir=request.cache_dir,
            n_question_reserve=n_question_reserve,
            progress=progress,
        )
