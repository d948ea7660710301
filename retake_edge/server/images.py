"""Frames that a client sent as images, as a video: lossless, each shown equally long."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from retake_edge.errors import VideoError
from retake_edge.server.errors import ApiError
from retake_edge.video.process import DecoderProcess, VideoLimits

_MODULE = "retake_edge.video.stills"
_NAME = Path("the images")
_LEAST_FPS = 0.001


def video_of_images(
    images: Sequence[bytes], fps: float, limits: VideoLimits | None = None
) -> Iterator[bytes]:
    """Yield a video that shows each PNG, JPEG or WebP image for 1 / `fps` seconds.

    A process of its own decodes them, under the limits of all decoding.

    Raises:
        ApiError: one is no image, is too large, or has another size than the first.
        VideoError: the process took too long, or needed too much memory.
    """
    if fps < _LEAST_FPS:
        raise ApiError(400, f"fps is {fps}, but for images it must be at least {_LEAST_FPS}.")
    limits = limits or VideoLimits()
    with DecoderProcess(_NAME, limits, _MODULE, fps=fps) as process:
        first = _size(process, images[0], 1, limits)
        for number, data in enumerate(images[1:], 2):
            width, height = _size(process, data, number, limits)
            if (width, height) != first:
                raise ApiError(
                    400,
                    f"Image {number} has {width} x {height} pixels and the first one "
                    f"{first[0]} x {first[1]}; send frames of one size.",
                )
        process.send({"n_bytes": 0})
        while True:
            message, block = process.receive()
            if message["kind"] == "end":
                return
            yield bytes(block)


def _size(
    process: DecoderProcess, data: bytes, number: int, limits: VideoLimits
) -> tuple[int, int]:
    """Hand an image over; return its width and height."""
    if not data:
        raise ApiError(415, f"Image {number} is empty.")
    process.send({"n_bytes": len(data)}, data)
    try:
        message, _ = process.receive()
    except VideoError as error:
        raise ApiError(415, f"Image {number} cannot be read: {error}") from None
    width, height = message["width_px"], message["height_px"]
    if width * height > limits.max_pixels:
        raise ApiError(413, f"Image {number} has more than {limits.max_pixels} pixels.")
    return width, height


def digest_of_images(images: Sequence[bytes], fps: float) -> str:
    """Return what tells one list of images from another."""
    whole = hashlib.sha256(repr(fps).encode())
    for data in images:
        whole.update(hashlib.sha256(data).digest())
    return whole.hexdigest()
