"""The video that a request refers to: by its data, a path, a URL, an id or as frames."""

from __future__ import annotations

import binascii
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, unquote_to_bytes, urlsplit

from retake_edge.server.blobs import BLOCK_BYTES, BlobStore
from retake_edge.server.errors import ApiError
from retake_edge.server.fetch import fetch
from retake_edge.server.images import digest_of_images, video_of_images
from retake_edge.server.limits import ServerLimits
from retake_edge.server.parts import VideoRef
from retake_edge.server.uploads import Uploads
from retake_edge.session.store.key import HashCache
from retake_edge.video.path import check_path

IMAGE_FPS = 1.0
_MAX_UUIDS = 10_000
_Value = TypeVar("_Value")


@dataclass(frozen=True)
class SentVideo:
    """A video on the disk; `held` keeps it there until it is closed.

    `image_fps`: at which rate its frames stand that were sent as images, None for a real video.
    """

    path: Path
    sha256: str
    name: str
    image_fps: float | None = None
    held: ExitStack = field(default_factory=ExitStack, compare=False)


class Sources:
    """The places that videos come from."""

    def __init__(
        self, limits: ServerLimits, blobs: BlobStore, uploads: Uploads, hashes: HashCache
    ) -> None:
        self._limits, self._blobs, self._uploads, self._hashes = limits, blobs, uploads, hashes
        self._lock = threading.Lock()
        self._uuids: OrderedDict[str, tuple[str, str]] = OrderedDict()
        self._clips: OrderedDict[str, str] = OrderedDict()  # of images, to blob

    def get(self, refs: Sequence[VideoRef], image_fps: float | None) -> SentVideo:
        """Return the one video that all refer to; its `held` must be closed.

        Raises:
            ApiError, VideoError: it cannot be had, or they are several.
        """
        if refs[0].kind == "image":
            return self._of_images([ref.value for ref in refs], image_fps or IMAGE_FPS)
        found: list[SentVideo] = []
        try:
            for ref in refs:
                found.append(self._one(ref))
                if found[-1].sha256 != found[0].sha256:
                    raise ApiError(
                        400,
                        "The messages have several videos, and a conversation is about one; ask "
                        "about each in a conversation of its own.",
                        code="several_videos",
                        param="messages",
                    )
        except BaseException:
            for video in found:
                video.held.close()
            raise
        for video in found[1:]:
            video.held.close()
        return found[0]

    def _one(self, ref: VideoRef) -> SentVideo:
        if ref.kind == "uuid":
            sha256, name = self._uuids.get(ref.value, ("", ""))
            return self._blob(sha256, name, f"uuid {ascii(ref.value)[:80]}")
        if ref.kind == "file_id":
            upload = self._uploads.get(ref.value)
            return self._blob(upload.sha256, upload.filename, upload.id)
        scheme = ref.value[:8].lower() if ref.kind == "url" else ""
        if ref.kind == "path" or scheme.startswith("file:"):
            video = self._local(ref)
        else:
            self._refuse_url(scheme)
            sha256, _ = self._blobs.add(self._blocks(ref), hold=True)
            video = self._held(sha256, ref.name)
        if ref.uuid:
            self._remember(ref.uuid, video)
        return video

    def _refuse_url(self, scheme: str) -> None:
        if scheme.startswith("http") and not self._limits.allow_urls:
            raise ApiError(
                403,
                "URLs are not fetched; send the video itself, or start the server with "
                "--allow-urls.",
                code="url_not_allowed",
            )

    def _blocks(self, ref: VideoRef) -> Iterator[bytes]:
        if ref.kind == "base64":
            return _in_blocks(from_base64(ref.value))
        if ref.value[:5].lower() == "data:":
            return _in_blocks(data_url(ref.value))
        return fetch(ref.value)

    def _local(self, ref: VideoRef) -> SentVideo:
        """A file of this machine, below a media path once all links are resolved."""
        name = ref.value
        if ref.kind == "url":
            try:
                parts = urlsplit(ref.value)
            except ValueError:
                raise ApiError(400, "The file URL is not valid.") from None
            if parts.netloc not in ("", "localhost"):
                raise ApiError(400, "A file URL names another machine; write file:///PATH.")
            name = unquote(parts.path)
        path = self._below_root(name)
        check_path(path)
        return SentVideo(path, self._hashes.sha256(path), path.name)

    def _below_root(self, name: str) -> Path:
        if "\0" in name:
            raise ApiError(400, "The path of the video has NUL characters.")
        for root in self._limits.media_roots:
            try:
                path = Path(os.path.realpath(root / name))
                if path.is_relative_to(root) and path.is_file():
                    return path
            except (OSError, ValueError):
                continue
        # The same words for a file elsewhere and for none: no one can look around with them.
        raise ApiError(
            403,
            "There is no such file below a --media-path of this server; choose another file, or "
            "upload it to /v1/files.",
            code="path_not_allowed",
        )

    def _of_images(self, places: Sequence[str], fps: float) -> SentVideo:
        if len(places) > self._limits.max_images:
            raise ApiError(413, f"There are more than {self._limits.max_images} images.")
        images = [self._image(place) for place in places]
        digest = digest_of_images(images, fps)
        sha256 = self._clips.get(digest, "")
        if not sha256 or not self._blobs.hold(sha256):
            sha256, _ = self._blobs.add(video_of_images(images, fps), hold=True)
            with self._lock:
                _put(self._clips, digest, sha256)
        return self._held(sha256, "the frames sent", fps)

    def _image(self, place: str) -> bytes:
        head = place[:8].lower()
        if head.startswith("data:"):
            return data_url(place)
        if head.startswith("http"):
            self._refuse_url(head)
            return _joined(fetch(place), self._limits.max_body_bytes)
        if head.startswith("file:") or "." in place[:4096]:
            ref = VideoRef("url" if head.startswith("file:") else "path", place)
            path = self._local(ref).path
            if path.stat().st_size > self._limits.max_body_bytes:
                raise _too_large_image(self._limits.max_body_bytes)
            return path.read_bytes()
        return from_base64(place)

    def _blob(self, sha256: str, name: str, said: str) -> SentVideo:
        if not sha256 or not self._blobs.hold(sha256):
            raise ApiError(
                404,
                f"There is no video {said} here any more; send it again.",
                code="not_found",
            )
        return self._held(sha256, name)

    def _held(self, sha256: str, name: str, image_fps: float | None = None) -> SentVideo:
        held = ExitStack()
        held.callback(self._blobs.release, sha256)
        return SentVideo(self._blobs.path(sha256), sha256, name, image_fps, held)

    def _remember(self, uuid: str, video: SentVideo) -> None:
        with self._lock:
            if self._blobs.path(video.sha256).is_file():
                _put(self._uuids, uuid, (video.sha256, video.name))


def _put(known: OrderedDict[str, _Value], key: str, value: _Value) -> None:
    known[key] = value
    while len(known) > _MAX_UUIDS:
        known.popitem(last=False)


def from_base64(text: str) -> bytes:
    """Return the bytes of base64 text, also URL-safe; ApiError 400 if it is none."""
    try:
        data = text.encode("ascii").translate(_URL_SAFE, b" \r\n\t")
        return binascii.a2b_base64(data + b"=" * (-len(data) % 4), strict_mode=True)
    except (binascii.Error, UnicodeEncodeError):
        raise ApiError(
            400, "The video is neither a URL nor base64 data; check the part.", param="messages"
        ) from None


_URL_SAFE = bytes.maketrans(b"-_", b"+/")


def data_url(url: str) -> bytes:
    """Return the content of a data: URL; ApiError 400 if it is none."""
    head, comma, body = url[5:].partition(",")
    if not comma:
        raise ApiError(400, "The data URL has no comma.", param="messages")
    if "base64" in [part.strip().lower() for part in head.split(";")]:
        return from_base64(body)
    return unquote_to_bytes(body)


def _in_blocks(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), BLOCK_BYTES):
        yield data[start : start + BLOCK_BYTES]


def _joined(blocks: Iterator[bytes], most: int) -> bytes:
    whole = bytearray()
    for block in blocks:
        whole += block
        if len(whole) > most:
            raise _too_large_image(most)
    return bytes(whole)


def _too_large_image(most: int) -> ApiError:
    return ApiError(413, f"An image is larger than {most} bytes.", code="too_large")
