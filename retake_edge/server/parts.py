"""The parts of a chat message: text, and every form in which clients send a video.

docs/server.md lists the forms with the clients that send them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from retake_edge.server.errors import ApiError

Kind = Literal["url", "base64", "file_id", "path", "uuid", "image"]
TEXT_TYPES = ("text", "input_text", "output_text", "refusal")
_VIDEO_TYPES = ("video_url", "input_video", "video")
_IMAGE_TYPES = ("image_url", "input_image")
_FILE_TYPES = ("file", "input_file")
_JPEGS = "data:video/jpeg;base64"
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)


@dataclass(frozen=True)
class VideoRef:
    """A reference to a video, or to one frame of it ('image').

    `uuid`: the client's own name for it; `knobs`: settings that stand in the part.
    """

    kind: Kind
    value: str
    name: str = ""
    uuid: str | None = None
    knobs: Mapping[str, Any] = field(default_factory=dict, compare=False, hash=False)


def text_of(part: Mapping[str, Any]) -> str | None:
    """Return the text of a text part; None for another part."""
    if part.get("type") not in TEXT_TYPES:
        return None
    text = part.get("text", part.get("refusal", ""))
    if not isinstance(text, str):
        raise ApiError(400, "A text part has no text.", param="messages")
    return text


def refs_of(part: Mapping[str, Any]) -> list[VideoRef]:
    """Return what a part that is not text refers to: a video, or frames.

    Raises:
        ApiError: the part is of a kind that is not known, or lacks what it should hold.
    """
    kind = part.get("type")
    if kind in _VIDEO_TYPES:
        return _videos(part, _content(part, (str(kind), "video_url", "input_video", "video")))
    if kind in _IMAGE_TYPES:
        content = _content(part, (str(kind), "image_url"))
        return [VideoRef("image", _located(content, ("url", "data"))[1])]
    if kind in _FILE_TYPES:
        content = part.get("file", part) if kind == "file" else part
        return [_file(content)]
    raise ApiError(
        400,
        f"A part has the type {ascii(kind)[:60]}, which is not known; send text, video_url, "
        "input_video, video, file, input_file or image_url.",
        param="messages",
    )


def _content(part: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((part[name] for name in names if part.get(name) is not None), None)


def _videos(part: Mapping[str, Any], content: Any) -> list[VideoRef]:
    uuid = part.get("uuid")
    if uuid is not None and not isinstance(uuid, str):
        raise ApiError(400, "The uuid of a video is not text.", param="messages")
    if content is None and uuid:
        return [VideoRef("uuid", uuid)]
    if isinstance(content, list):  # frames, as Qwen's tools write them
        return [VideoRef("image", _located(frame, ("url", "image"))[1]) for frame in content]
    key, value = _located(content, ("data", "url", "file_id", "path"))
    if frames := _jpeg_frames(value):
        return frames
    inside = content if isinstance(content, Mapping) else {}
    knobs = {**part, **inside}
    kind = _kind(key, value)
    return [VideoRef(kind, value, _name(kind, value), uuid, knobs)]


def _jpeg_frames(value: str) -> list[VideoRef]:
    """The frames in a data URL of the type video/jpeg, as vLLM's clients write them."""
    head, comma, body = value.partition(",")
    if not comma or not head.lower().replace(" ", "").startswith(_JPEGS):
        return []
    return [VideoRef("image", f"data:image/jpeg;base64,{frame}") for frame in body.split(",")]


def _located(content: Any, keys: tuple[str, ...]) -> tuple[str, str]:
    """The value that says where something is, and the key it stands under ('' for none)."""
    if isinstance(content, str) and content:
        return "", content
    if isinstance(content, Mapping):
        for key in keys:
            if isinstance(content.get(key), str) and content[key]:
                return key, content[key]
    raise ApiError(
        400, "A video part holds no video; give a URL, base64 data or a file id.", param="messages"
    )


def _kind(key: str, value: str) -> Kind:
    if key == "file_id":
        return "file_id"
    if value[:5].lower() in ("data:", "file:") or _SCHEME.match(value[:64]):
        return "url"
    if key == "data":
        return "base64"
    if key == "path":
        return "path"
    # A dot is in every file's name, and never in base64.
    return "path" if "." in value[:4096] else "base64"


def _file(content: Any) -> VideoRef:
    """A file by its id, its data or its URL."""
    if not isinstance(content, Mapping):
        raise ApiError(400, "A file part holds no file.", param="messages")
    key, value = _located(content, ("file_id", "file_data", "file_url"))
    if key == "file_id":
        return VideoRef("file_id", value, knobs=content)
    name = content.get("filename")
    name = name if isinstance(name, str) else ""
    kind = _kind("data" if key == "file_data" else "url", value)
    return VideoRef(kind, value, name or _name(kind, value), knobs=content)


def _name(kind: Kind, value: str) -> str:
    """Return the name of a video in answers."""
    if kind == "base64" or value[:5].lower() == "data:":
        return "the video sent"
    return value.partition("?")[0].rpartition("/")[2][:200] or "the video"
