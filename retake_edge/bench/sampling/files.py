"""One rendered scene as video files of several encoders, written in one pass."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from retake_edge.bench.scenes.render import frames
from retake_edge.bench.scenes.scene import Scene
from retake_edge.errors import VideoError
from retake_edge.video.mark import MARK


@dataclass(frozen=True)
class Encoding:
    """An encoder of FFmpeg with its options; `suffix` names the container."""

    codec: str
    options: dict[str, str] = field(default_factory=dict)
    bit_rate: int | None = None
    suffix: str = ".mp4"
    pixels: str = "yuv420p"


_CBR = 32_000
ENCODINGS = {
    "h264 crf": Encoding("libx264", {"preset": "veryfast", "crf": "23"}),
    "h264 cbr": Encoding(
        "libx264",
        {
            "preset": "veryfast",
            "x264-params": f"nal-hrd=cbr:vbv-maxrate={_CBR // 1000}:vbv-bufsize={_CBR // 1000}",
        },
        _CBR,
    ),
    "vp9": Encoding("libvpx-vp9", {"crf": "36", "deadline": "good", "cpu-used": "5"}, 0, ".webm"),
    "av1": Encoding("libsvtav1", {"preset": "12", "crf": "40", "svtav1-params": "lp=1"}),
    "mjpeg": Encoding("mjpeg", {}, 400_000, ".mkv", "yuvj420p"),
    "prores": Encoding("prores_ks", {"profile": "proxy"}, None, ".mov", "yuv422p10le"),
    "raw": Encoding("rawvideo", {}, None, ".avi"),
}
"""Constant quality and constant rate; encoders with golden frames and pyramids; key frames only;
pictures that all have one size.
"""


def write_files(
    scene: Scene, folder: Path, names: tuple[str, ...], fps: int, size_px: int
) -> dict[str, Path]:
    """Write a scene with each of the named encodings, and return the files by name.

    Raises:
        VideoError: this FFmpeg lacks an encoder, or the folder cannot be written.
    """
    import av

    paths = {name: folder / f"{name.replace(' ', '-')}{ENCODINGS[name].suffix}" for name in names}
    with ExitStack() as opened:
        outputs = []
        for name, path in paths.items():
            encoding = ENCODINGS[name]
            try:
                container = opened.enter_context(av.open(str(path), "w"))
                container.metadata["comment"] = MARK
                stream: Any = container.add_stream(
                    encoding.codec, rate=fps, options=encoding.options
                )
            except (av.error.FFmpegError, ValueError, OSError) as error:
                raise VideoError(f"Cannot write {name} with {encoding.codec}: {error}.") from None
            stream.width = stream.height = size_px
            stream.pix_fmt = encoding.pixels
            if encoding.bit_rate is not None:
                stream.bit_rate = encoding.bit_rate
            outputs.append((container, stream, encoding))
        for i, image in enumerate(frames(scene, fps, size_px)):
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            picture.pts, picture.time_base = i, Fraction(1, fps)
            for container, stream, encoding in outputs:
                container.mux(stream.encode(picture.reformat(format=encoding.pixels)))
        for container, stream, _ in outputs:
            container.mux(stream.encode(None))
    return paths
