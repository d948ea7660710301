"""The server's limits and guests: one frozen record, made from the command's options."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from retake_edge.errors import ConfigError

GIB = 1 << 30


@dataclass(frozen=True)
class ServerLimits:
    """Who may ask, and how much.

    `api_keys`: none means that no key is asked for. `host_names`: names besides IP addresses and
    localhost by which the server is called. `max_body_bytes`: of a JSON body; `max_upload_bytes`:
    of one video; `max_stored_bytes`: of all that clients sent. `max_video_s`: length of a video.
    `n_queue`: requests that may wait. `max_turns`: questions of one conversation.
    """

    api_keys: tuple[str, ...] = ()
    media_roots: tuple[Path, ...] = ()
    allow_urls: bool = False
    cors_origins: tuple[str, ...] = ()
    host_names: tuple[str, ...] = ()
    max_body_bytes: int = GIB // 4
    max_upload_bytes: int = 8 * GIB
    max_stored_bytes: int = 32 * GIB
    max_video_s: float = 24 * 3600.0
    n_queue: int = 64
    max_turns: int = 200
    max_images: int = 2048

    def __post_init__(self) -> None:
        for name in ("max_body_bytes", "max_upload_bytes", "max_stored_bytes", "max_video_s"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)!r}, but it must be above 0.")
        if self.n_queue < 1:
            raise ConfigError(f"--queue is {self.n_queue}, but it must be at least 1.")
        if any(not key.isascii() or not key.strip() for key in self.api_keys):
            raise ConfigError("An --api-key is empty or has other characters than ASCII's.")
        if "*" in self.cors_origins:
            raise ConfigError("--cors-origins does not take '*'; name the origins.")


def media_roots(folders: list[Path]) -> tuple[Path, ...]:
    """Return the folders below which files may be named, links resolved.

    Raises:
        ConfigError: one is no folder.
    """
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"--media-path {folder} is not a folder; check the path.")
    return tuple(Path(os.path.realpath(folder)) for folder in folders)
