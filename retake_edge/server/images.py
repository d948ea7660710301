"""Frames that a client sent as images, as a video: lossless, each shown equally long."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

from retake_edge.server.errors import ApiError

MAX_PIXELS = 8192 * 4320
_CODEC, _CONTAINER, _PIXELS = "ffv1", "matroska", "bgr0"


def video_of_images(images: Sequence[bytes], fps: float) -> Iterator[bytes]:
    """Yield a video that shows each PNG, JPEG or WebP image for 1 / `fps` seconds.

    Raises:
        ApiError: one is no image, is too large, or has another size than the first.
    """
    import av

    target = io.BytesIO()
    rate = Fraction(fps).limit_denominator(1000)
    # The same images make the same bytes, which is how a video is known that was read before.
    with av.open(target, "w", _CONTAINER, options={"fflags": "+bitexact"}) as container:
        stream: Any = None
        for number, data in enumerate(images, 1):
            picture = _decoded(data, number)
            height, width = picture.shape[:2]
            if stream is None:
                stream = container.add_stream(_CODEC, rate=rate)
                stream.width, stream.height, stream.pix_fmt = width, height, _PIXELS
            if (width, height) != (stream.width, stream.height):
                raise ApiError(
                    400,
                    f"Image {number} has {width} x {height} pixels and the first one "
                    f"{stream.width} x {stream.height}; send frames of one size.",
                )
            frame = av.VideoFrame.from_ndarray(picture, format="bgr24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    yield target.getvalue()


def digest_of_images(images: Sequence[bytes], fps: float) -> str:
    """Return what tells one list of images from another."""
    whole = hashlib.sha256(repr(fps).encode())
    for data in images:
        whole.update(hashlib.sha256(data).digest())
    return whole.hexdigest()


def _decoded(data: bytes, number: int) -> Any:
    """The pixels uint8 (H, W, 3), BGR; only the formats that every client sends are tried."""
    import cv2
    import numpy as np

    is_known = data[:3] == b"\xff\xd8\xff" or data[:8] == b"\x89PNG\r\n\x1a\n"
    is_known = is_known or (data[:4] == b"RIFF" and data[8:12] == b"WEBP")
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        picture = None
    if not is_known or picture is None:
        raise ApiError(415, f"Image {number} is not a PNG, JPEG or WebP image.")
    if picture.shape[0] * picture.shape[1] > MAX_PIXELS:
        raise ApiError(413, f"Image {number} has more than {MAX_PIXELS} pixels.")
    return picture
