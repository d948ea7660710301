"""Frames that came as images become a video, in a process of its own like all decoding.

`server.images` starts it (`python -m retake_edge.video.stills`). After the request each image comes
as a JSON line with its number of bytes, and those bytes; 0 bytes end them. Each is answered with
its size, and the end with the video: lossless, each frame shown equally long. The messages are
those of `video.worker`.
"""

from __future__ import annotations

import io
import json
from fractions import Fraction
from typing import Any, BinaryIO

from retake_edge.video.worker import Channel, WorkerError, limit_memory, run

_CODEC, _CONTAINER, _PIXELS = "ffv1", "matroska", "bgr0"
_BLOCK_BYTES = 1 << 20


def serve(request: dict[str, Any], channel: Channel, commands: BinaryIO) -> None:
    """Take all images, and send the video."""
    import av
    import cv2

    cv2.setNumThreads(1)
    limit_memory(request["max_memory_bytes"])
    target = io.BytesIO()
    rate = Fraction(request["fps"]).limit_denominator(1000)
    stream: Any = None
    # The same images make the same bytes, which is how a video is known that was read before.
    with av.open(target, "w", _CONTAINER, options={"fflags": "+bitexact"}) as container:
        while n_bytes := json.loads(commands.readline())["n_bytes"]:
            picture = _decoded(commands.read(n_bytes))
            height, width = picture.shape[:2]
            if stream is None:
                stream = container.add_stream(_CODEC, rate=rate)
                stream.width, stream.height, stream.pix_fmt = width, height, _PIXELS
            if (width, height) == (stream.width, stream.height):  # the parent refuses another
                frame = av.VideoFrame.from_ndarray(picture, format="bgr24")
                container.mux(stream.encode(frame))
            channel.send({"kind": "size", "width_px": width, "height_px": height})
        if stream is None:
            raise WorkerError("no_frames")
        container.mux(stream.encode(None))
    content = target.getbuffer()
    for start in range(0, len(content), _BLOCK_BYTES):
        channel.send({"kind": "block"}, content[start : start + _BLOCK_BYTES])
    channel.send({"kind": "end"})


def _decoded(data: bytes) -> Any:
    """The pixels uint8 (H, W, 3), BGR; only the formats that every client sends are tried."""
    import cv2
    import numpy as np

    is_known = data[:3] == b"\xff\xd8\xff" or data[:8] == b"\x89PNG\r\n\x1a\n"
    is_known = is_known or (data[:4] == b"RIFF" and data[8:12] == b"WEBP")
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise MemoryError from None
        picture = None
    if not is_known or picture is None:
        raise WorkerError("no_image")
    return picture


if __name__ == "__main__":
    run(serve)
