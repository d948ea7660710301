"""Make the small videos of tests/data/video with ffmpeg (only maintainers run this).

Every frame carries its own number as eight black or white bars (least significant bit on the
left) below a strip whose left half is red and right half blue, so that a test reads from the
pixels which frame it was given and which way up the picture is. The videos are committed; a
user's machine needs no ffmpeg.

    python scripts/make_video_fixtures.py tests/data/video
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

WIDTH_PX, HEIGHT_PX = 128, 64
STRIP_PX = 16
N_BITS = 8

X264 = ["-c:v", "libx264", "-preset", "veryslow", "-crf", "30"]
SLOW_THEN_FAST = "settb=1/1000,setpts=(if(lt(N\\,10)\\,N*0.3\\,3+(N-10)*0.05))/TB"


def numbered_frame(index: int) -> npt.NDArray[np.uint8]:
    """Draw frame `index` as uint8 (HEIGHT_PX, WIDTH_PX, 3) RGB."""
    frame = np.zeros((HEIGHT_PX, WIDTH_PX, 3), np.uint8)
    frame[:STRIP_PX, : WIDTH_PX // 2] = (230, 20, 20)
    frame[:STRIP_PX, WIDTH_PX // 2 :] = (20, 20, 230)
    bar_px = WIDTH_PX // N_BITS
    for bit in range(N_BITS):
        if index >> bit & 1:
            frame[STRIP_PX:, bit * bar_px : (bit + 1) * bar_px] = 255
    return frame


def ffmpeg(arguments: list[str], raw: bytes = b"") -> None:
    """Run ffmpeg on `raw` given on its standard input; output bytes do not depend on the day."""
    quiet = ["ffmpeg", "-nostdin", "-v", "error", "-y", "-threads", "1"]
    exact = ["-fflags", "+bitexact", "-flags:v", "+bitexact", "-map_metadata", "-1"]
    command = [*quiet, *arguments[:-1], *exact, arguments[-1]]
    subprocess.run(command, input=raw, check=True)


def encode(path: Path, n_frames: int, fps: int, options: list[str]) -> None:
    """Encode `n_frames` numbered frames at `fps` into `path` with the given output options."""
    raw = b"".join(numbered_frame(index).tobytes() for index in range(n_frames))
    size = f"{WIDTH_PX}x{HEIGHT_PX}"
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", str(fps), "-i", "pipe:0"]
    ffmpeg([*source, *options, str(path)], raw)


def make_codecs(folder: Path) -> None:
    """One file a codec, 30 frames at 10 per second; ffmpeg writes the moov atom at the end."""
    x265 = ["-c:v", "libx265", "-tag:v", "hvc1", "-x265-params", "log-level=none:info=0:pools=1"]
    av1 = ["-c:v", "libaom-av1", "-crf", "40", "-cpu-used", "6"]
    vp9 = ["-c:v", "libvpx-vp9", "-crf", "40", "-b:v", "0"]
    encode(folder / "h264.mp4", 30, 10, [*X264, "-pix_fmt", "yuv420p"])
    encode(folder / "h264_10bit.mp4", 30, 10, [*X264, "-pix_fmt", "yuv420p10le"])
    encode(folder / "hevc.mp4", 30, 10, [*x265, "-pix_fmt", "yuv420p"])
    encode(folder / "hevc_10bit.mp4", 30, 10, [*x265, "-pix_fmt", "yuv420p10le"])
    encode(folder / "vp9.webm", 30, 10, [*vp9, "-pix_fmt", "yuv420p"])
    encode(folder / "vp9_10bit.webm", 30, 10, [*vp9, "-profile:v", "2", "-pix_fmt", "yuv420p10le"])
    encode(folder / "av1.mp4", 30, 10, [*av1, "-pix_fmt", "yuv420p"])
    encode(folder / "av1_10bit.mp4", 30, 10, [*av1, "-pix_fmt", "yuv420p10le"])


def make_clocks(folder: Path) -> None:
    """Odd clocks: a variable rate, a start that is not zero, one frame, missing frames."""
    h264 = [*X264, "-pix_fmt", "yuv420p"]
    # Frames 0-9 every 0.3 s, frames 10-39 every 0.05 s, so frame numbers say nothing of time.
    slow_then_fast = ["-vf", SLOW_THEN_FAST, "-fps_mode", "passthrough"]
    clock = ["-enc_time_base", "1/1000", "-video_track_timescale", "1000"]
    encode(folder / "vfr.mp4", 40, 10, [*slow_then_fast, *clock, *h264])
    encode(folder / "vfr.mkv", 40, 10, [*slow_then_fast, "-enc_time_base", "1/1000", *h264])
    encode(folder / "start_5s.mkv", 30, 10, ["-output_ts_offset", "5", *h264])
    encode(folder / "start_5s.ts", 30, 10, ["-output_ts_offset", "5", *h264])
    encode(folder / "one_frame.mp4", 1, 10, h264)
    # No B frames and a key frame every second: cut anywhere, what comes before decodes.
    simple = ["-bf", "0", "-g", "10"]
    encode(folder / "faststart.mp4", 60, 10, [*h264, *simple, "-movflags", "+faststart"])
    fragments = ["-movflags", "+empty_moov+frag_keyframe"]
    encode(folder / "fragmented.mp4", 30, 10, [*h264, *simple, *fragments])
    encode(folder / "h264.avi", 30, 10, h264)
    encode(folder / "h264.h264", 30, 25, h264)
    encode(folder / "long.mkv", 200, 1, [*h264, *simple])
    encode(folder / "mpeg2.mpg", 30, 25, ["-c:v", "mpeg2video", "-q:v", "8", "-bf", "2"])
    encode(folder / "flv1.flv", 30, 10, ["-c:v", "flv1", "-q:v", "8"])


def make_rotations(folder: Path) -> None:
    """The h264 file with a display matrix: how phones store portrait video."""
    for degrees in (90, 180, 270):
        source = ["-i", str(folder / "h264.mp4"), "-c", "copy"]
        target = folder / f"rotated_{degrees}.mp4"
        with tempfile.TemporaryDirectory() as scratch:
            plain = Path(scratch) / "plain.mp4"
            ffmpeg([*source, str(plain)])
            rotate = ["-metadata:s:v:0", f"rotate={degrees}"]
            command = ["ffmpeg", "-nostdin", "-v", "error", "-y", "-i", str(plain), "-c", "copy"]
            subprocess.run([*command, *rotate, "-fflags", "+bitexact", str(target)], check=True)


def make_oddities(folder: Path) -> None:
    """Audio alone, and a picture whose sides are large for its file size."""
    tone = ["-f", "lavfi", "-i", "sine=frequency=440:duration=0.3", "-c:a", "aac", "-b:a", "16k"]
    ffmpeg([*tone, str(folder / "audio_only.m4a")])
    black = ["-f", "lavfi", "-i", "color=black:size=4096x4096:rate=1", "-frames:v", "1"]
    ffmpeg([*black, *X264, "-pix_fmt", "yuv420p", str(folder / "large.mp4")])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    make_codecs(folder)
    make_clocks(folder)
    make_rotations(folder)
    make_oddities(folder)


if __name__ == "__main__":
    main()
