"""Time the sampling of long videos against the ffmpeg command line, and write a run file.

    python scripts/measure_video_speed.py benchmarks/video-speed.json --minutes 60 --frames 2048

The film is a talk in 1080p: slides that change every 15 s, a speaker who moves in front of them,
and every minute the camera pans. Two minutes are encoded, and joined without encoding them again
until the film is long enough. For each codec, in turn:
`ffmpeg -vf fps=...,scale=...` writing raw RGB frames, this package sampling the same number of
frames, and this package sampling few of them, far apart. Codecs that the run file
has already and that are not measured now stay in it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from retake_edge.bench.run_file import run_file, write_run_file
from retake_edge.video.read import sample_frames

ENCODERS = {
    "h264": ["-c:v", "libx264", "-preset", "veryfast"],
    "hevc": ["-c:v", "libx265", "-preset", "superfast", "-x265-params", "log-level=error"],
    "av1": ["-c:v", "libsvtav1", "-preset", "12"],
}
CLIP_S, FPS, SLIDE_S = 120, 24, 15
SLIDE_PX, SPEAKER_PX = (2048, 1152), (480, 720)


def make_film(folder: Path, codec: str, seconds: float) -> Path:
    """Return a film of a talk, encoded once and joined to its length."""
    clip, film = folder / f"clip_{codec}.mp4", folder / f"film_{codec}_{seconds:g}.mp4"
    if not clip.exists():
        coded = [*ENCODERS[codec], "-pix_fmt", "yuv420p", "-t", str(CLIP_S), str(clip)]
        ffmpeg(*talk(folder), *coded)
    if not film.exists():
        parts = folder / f"parts_{codec}.txt"
        parts.write_text(f"file '{clip.resolve()}'\n" * max(1, round(seconds / CLIP_S)))
        ffmpeg("-f", "concat", "-safe", "0", "-i", str(parts), "-c", "copy", str(film))
    return film


def talk(folder: Path) -> list[str]:
    """Draw slides and a speaker, and return ffmpeg's arguments that move them."""
    inputs: list[str] = []
    n_slides = CLIP_S // SLIDE_S
    for seed in range(n_slides + 1):
        size = SLIDE_PX if seed < n_slides else SPEAKER_PX
        path = folder / f"texture_{seed}.png"
        cv2.imwrite(str(path), texture(seed, *size))
        length = ["-t", str(SLIDE_S)] if seed < n_slides else []
        inputs += ["-loop", "1", "-framerate", str(FPS), *length, "-i", str(path)]
    slides = "".join(f"[{k}]" for k in range(n_slides)) + f"concat=n={n_slides}"
    pan = "if(lt(mod(t,60),50),0,64-64*cos((mod(t,60)-50)*2*PI/10))"
    camera = f"crop=1920:1080:x='{pan}':y=36"
    speaker = "overlay=x='1200+60*sin(t*0.9)+8*sin(t*5)':y='320+12*sin(t*3)'"
    graph = f"{slides},{camera}[slides];[slides][{n_slides}]{speaker}"
    return [*inputs, "-filter_complex", graph]


def texture(seed: int, width: int, height: int) -> np.ndarray:
    """Return a picture whose detail falls with its fineness, as in photographs."""
    rng = np.random.default_rng(seed)
    down, across = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    falls = np.maximum(np.hypot(down, across), 1 / width) ** 1.5
    layers = []
    for _ in range(3):
        waves = rng.normal(size=(2, *falls.shape))
        layers.append(np.fft.irfft2((waves[0] + 1j * waves[1]) / falls, (height, width)))
    picture = np.stack([layers[0] + 0.3 * layer for layer in layers], axis=-1)
    picture = (picture - picture.mean()) / picture.std() * 45 + 120
    return np.asarray(np.clip(picture, 0, 255).astype(np.uint8))


def ffmpeg(*arguments: str) -> None:
    command = ["ffmpeg", "-v", "error", "-y", *arguments]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def cpu_s() -> float:
    """Return the processor time of all processes that were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def time_ffmpeg(film: Path, seconds: float, n: int, size: tuple[int, int]) -> dict[str, float]:
    """Return the seconds, and those of the processors, that ffmpeg takes to write `n` frames."""
    began_s, began_cpu_s = time.monotonic(), cpu_s()
    picture = f"fps={n / seconds:.9f},scale={size[0]}:{size[1]}"
    raw = ["-an", "-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1"]
    ffmpeg("-i", str(film), "-vf", picture, *raw)
    took_s = time.monotonic() - began_s
    return {"s": round(took_s, 2), "cpu_s": round(cpu_s() - began_cpu_s, 2)}


def time_ours(film: Path, n: int, size: tuple[int, int]) -> dict[str, Any]:
    """Sample in a process of its own: seconds, frames, and the decoder's peak memory."""
    command = [sys.executable, __file__, "--one", str(film), str(n), *map(str, size)]
    began_cpu_s = cpu_s()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return {**found, "cpu_s": round(cpu_s() - began_cpu_s, 2)}


def one(path: str, n: int, width: int, height: int) -> None:
    """Sample one film and print what it took."""
    began_s = time.monotonic()
    batches = sample_frames(path, fps=1000.0, max_frames=n, target_size=(width, height))
    n_frames = sum(len(batch.frames) for batch in batches)
    took_s = time.monotonic() - began_s
    peak_mib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(json.dumps({"s": round(took_s, 2), "n_frames": n_frames, "peak_mib": round(peak_mib)}))


def measure(film: Path, codec: str, seconds: float, options: argparse.Namespace) -> dict[str, Any]:
    """Return one codec's figures."""
    size = (options.width, options.height)
    load = os.getloadavg()[0]
    ours = time_ours(film, options.frames, size)
    far = time_ours(film, options.far_frames, size)
    every = time_ffmpeg(film, seconds, options.frames, size)
    return {
        "codec": codec,
        "film_s": seconds,
        "load_average": round(load, 1),  # of other programs, before
        "ffmpeg_s": every["s"],
        "ffmpeg_cpu_s": every["cpu_s"],
        "ours_s": ours["s"],
        "ours_cpu_s": ours["cpu_s"],
        "ours_to_ffmpeg": round(ours["s"] / every["s"], 3),
        "ours_to_ffmpeg_cpu": round(ours["cpu_s"] / every["cpu_s"], 3),
        "n_frames": ours["n_frames"],
        "peak_mib": ours["peak_mib"],
        "far_s": far["s"],
        "far_cpu_s": far["cpu_s"],
        "far_speedup": round(every["s"] / far["s"], 2),
        "far_speedup_cpu": round(every["cpu_s"] / far["cpu_s"], 2),
        "n_far_frames": far["n_frames"],
        "far_peak_mib": far["peak_mib"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--codecs", nargs="+", choices=ENCODERS, default=list(ENCODERS))
    parser.add_argument("--frames", type=int, default=2048)
    parser.add_argument("--far-frames", type=int, default=128)
    parser.add_argument("--width", type=int, default=448)
    parser.add_argument("--height", type=int, default=252)
    parser.add_argument("--keep", type=Path, help="keep the films in this folder")
    options = parser.parse_args()
    seconds = options.minutes * 60
    with tempfile.TemporaryDirectory() as made:
        folder = options.keep or Path(made)
        films = {codec: make_film(folder, codec, seconds) for codec in options.codecs}
        rows = [measure(film, codec, seconds, options) for codec, film in films.items()]
    if options.out.exists():
        old = json.loads(options.out.read_text())["films"]
        rows = [row for row in old if row["codec"] not in options.codecs] + rows
    for row in rows:
        print(json.dumps(row))
    settings = {
        "size_px": [options.width, options.height],
        "source_fps": FPS,
        "pixels": "1080p",
    }
    document = run_file("video-speed", settings, {}, {"films": rows})
    words = document["command"].removeprefix("retake-edge ")
    document["command"] = f"python scripts/measure_video_speed.py {words}"
    write_run_file(document, options.out)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        one(sys.argv[2], *map(int, sys.argv[3:6]))
    else:
        main()
