"""The opened videos and their conversations on disk, each record written whole or not at all.

    FOLDER/VIDEO/video.json          what it is, and where its file lies
    FOLDER/VIDEO/facts.json          what the page shows of it, once it is read
    FOLDER/VIDEO/chat-ID.json        one conversation

What cannot be read is as good as not there.
"""

from __future__ import annotations

import json
import logging
import secrets
import shutil
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from retake_edge.files import write_atomically
from retake_edge.server.errors import ApiError

_log = logging.getLogger("retake_edge.server")
_TITLE_LENGTH = 120


@dataclass(frozen=True)
class Video:
    """A video that was opened; `id` is made of its content.

    Its file is an upload (`file_id`) or lies below a media path (`path`). `made_by`: what its facts
    were made by ('': it is not read yet); `picture`: a data address. Times are Unix times.
    """

    id: str
    sha256: str
    name: str
    file_id: str
    path: str
    added_s: float
    used_s: float
    made_by: str = ""
    duration_s: float | None = None
    picture: str | None = None


@dataclass(frozen=True)
class Chat:
    """A conversation's head; `title`: its first question."""

    id: str
    title: str
    n_turns: int
    used_s: float


class Library:
    """All opened videos below a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._lock = folder, threading.RLock()
        self._videos: dict[str, Video] = {}
        self._chats: dict[str, dict[str, Chat]] = {}
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for file in folder.glob("*/video.json"):
            with suppress(ValueError, TypeError, OSError):
                video = Video(**json.loads(file.read_bytes()))
                self._videos[video.id] = video
                self._chats[video.id] = dict(_heads(file.parent))

    def videos(self) -> list[Video]:
        """Return all videos, the last used one first."""
        return sorted(self._videos.values(), key=lambda video: -video.used_s)

    def chats(self, video_id: str) -> list[Chat]:
        """Return the heads of a video's conversations, the last used one first."""
        found = self._chats.get(video_id, {}).values()
        return sorted(found, key=lambda chat: -chat.used_s)

    def get(self, video_id: str) -> Video:
        """Return a video; ApiError 404 if there is none."""
        video = self._videos.get(video_id)
        if video is None:
            raise ApiError(404, "There is no such video here any more; open it again.")
        return video

    def add(self, sha256: str, name: str, *, file_id: str = "", path: str = "") -> Video:
        """Add a video, or note that it is used again, perhaps from another place."""
        now, video_id = time.time(), sha256[:24]
        with self._lock:
            known = self._videos.get(video_id)
            video = Video(video_id, sha256, name, file_id, path, now, now)
            if known is not None:
                video = replace(known, name=name, file_id=file_id, path=path, used_s=now)
            self._put(video)
        return video

    def keep_facts(self, video_id: str, made_by: str, facts: Mapping[str, Any]) -> None:
        """Note what the page shows of a video; nothing where it was removed meanwhile."""
        with self._lock:
            video = self._videos.get(video_id)
            if video is None:
                return
            _write(self._place(video_id) / "facts.json", facts)
            pictures = facts["pictures"]
            picture = pictures[len(pictures) // 3][1] if pictures else None
            self._put(
                replace(video, made_by=made_by, duration_s=facts["duration_s"], picture=picture)
            )

    def facts(self, video_id: str) -> dict[str, Any] | None:
        """Return what the page shows of a video, None if it is not read."""
        return _read(self._place(video_id) / "facts.json")

    def turns(self, video_id: str, chat_id: str) -> list[dict[str, Any]]:
        """Return a conversation's turns; ApiError 404 if there is none."""
        if chat_id not in self._chats.get(video_id, {}):
            raise ApiError(404, "There is no such conversation any more; begin a new one.")
        found = _read(self._chat_file(video_id, chat_id)) or {}
        return list(found.get("turns", []))

    def begin_chat(self) -> str:
        """Return the id of a conversation that gets its first turn later."""
        return secrets.token_hex(8)

    def add_turn(self, video_id: str, chat_id: str, turn: Mapping[str, Any]) -> None:
        """Add a question with its answer; nothing where the video was removed meanwhile."""
        with self._lock:
            if video_id not in self._videos:
                return
            known = chat_id in self._chats[video_id]
            turns = [*(self.turns(video_id, chat_id) if known else []), dict(turn)]
            chat = _head(chat_id, turns, time.time())
            _write(self._chat_file(video_id, chat_id), {**asdict(chat), "turns": turns})
            self._chats[video_id][chat_id] = chat
            self._put(replace(self._videos[video_id], used_s=chat.used_s))

    def remove_chat(self, video_id: str, chat_id: str) -> None:
        """Forget a conversation; ApiError 404 if there is none."""
        with self._lock:
            self.turns(video_id, chat_id)
            del self._chats[video_id][chat_id]
            self._chat_file(video_id, chat_id).unlink(missing_ok=True)

    def remove(self, video_id: str) -> Video:
        """Forget a video and all that was said about it; ApiError 404 if there is none."""
        with self._lock:
            video = self.get(video_id)
            (self._place(video_id) / "video.json").unlink(missing_ok=True)  # what makes it one
            shutil.rmtree(self._place(video_id), ignore_errors=True)
            del self._videos[video_id], self._chats[video_id]
        return video

    def _put(self, video: Video) -> None:
        self._place(video.id).mkdir(mode=0o700, exist_ok=True)
        _write(self._place(video.id) / "video.json", asdict(video))
        self._videos[video.id] = video
        self._chats.setdefault(video.id, {})

    def _place(self, video_id: str) -> Path:
        return self._folder / video_id

    def _chat_file(self, video_id: str, chat_id: str) -> Path:
        return self._place(video_id) / f"chat-{chat_id}.json"


def _head(chat_id: str, turns: list[dict[str, Any]], used_s: float) -> Chat:
    title = " ".join(turns[0]["question"].split())[:_TITLE_LENGTH]
    return Chat(chat_id, title, len(turns), used_s)


def _heads(folder: Path) -> list[tuple[str, Chat]]:
    heads = []
    for file in folder.glob("chat-*.json"):
        found = _read(file) or {}
        with suppress(KeyError, TypeError, ValueError):
            chat = Chat(found["id"], found["title"], found["n_turns"], found["used_s"])
            heads.append((chat.id, chat))
    return heads


def _write(file: Path, values: Mapping[str, Any]) -> None:
    try:
        write_atomically(file, json.dumps(values).encode())
    except OSError as error:
        raise ApiError(507, f"This cannot be stored ({error.strerror}).") from error


def _read(file: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(file.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        _log.warning("%s cannot be read: %s", file, error)
        return None
    return found if isinstance(found, dict) else None
