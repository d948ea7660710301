"""Saved videos named by their key in place of the video's file."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from retake_edge.config import all_settings
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
    "fit": "--fit",
    "no_cache": "--no-cache",
}
_LATER = ("runtime", "generation", "look")
"""Sections that may differ each time a saved video is asked, but for the cells' types."""
_OF_CELLS = ("runtime.type_k", "runtime.type_v", "runtime.flash_attention")


def _decided() -> dict[str, str]:
    """The options that shape what is saved of a video, each with its flag."""
    settings = {
        path: one.flag
        for path, one in all_settings().items()
        if path.partition(".")[0] not in _LATER or path in _OF_CELLS
    }
    return _DECIDED | settings | {"compression.guide": "--guided"}


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

    for name, option in _decided().items():
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
