"""Features for the speed benchmark: a rendered video, decoded and encoded once for each cut."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from retake_edge.bench.scenes.render import write_video
from retake_edge.bench.scenes.scene import make_scene
from retake_edge.config import RuntimeConfig
from retake_edge.llama.model import Model
from retake_edge.models.families import manifest_of
from retake_edge.models.manifest import ModelFiles, ModelManifest
from retake_edge.video.read import sample_frames
from retake_edge.vision.encoder import VisionEncoder

FPS = 2.0
_SCENE_PX = 448


@dataclass(frozen=True)
class EncodedVideo:
    """Features in a file: f32 [n_steps, rows * cols, n_embd], a grid frame after the other, of
    `frames_per_step` frames each; `figures`: what decoding and encoding took.
    """

    path: Path
    rows: int
    cols: int
    n_embd: int
    frames_per_step: int
    figures: dict[str, Any]


def encode_video(
    source: ModelManifest | ModelFiles,
    folder: Path,
    n_frames: int,
    runtime: RuntimeConfig,
    long_side_px: int | None,
) -> EncodedVideo:
    """Render a video of `n_frames`, decode and encode it; its features go to a file in `folder`.

    Raises:
        ModelError: the files do not load.
    """
    video = write_video(make_scene(0, n_frames / FPS), folder / "v.mp4", FPS, _SCENE_PX)
    manifest, path = manifest_of(source), folder / f"{source.model.stem}.f32"
    with (
        Model(source.model, n_gpu_layers=runtime.n_gpu_layers) as model,
        VisionEncoder(
            model,
            source.mmproj,
            offload=runtime.mmproj_offload,
            n_threads=runtime.n_threads,
            overview=manifest.frames.overview,
            pooling=manifest.frames.pooling,
        ) as encoder,
    ):
        shape, decode_s, encode_s = _write_features(video, manifest, encoder, path, long_side_px)
        step = encoder.frames_per_step
    rows, cols, n_embd = shape
    figures = {
        "n_frames_encoded": n_frames,
        "vision_tokens_per_step": rows * cols,
        "frames_per_step": step,
        "decode_s_per_frame": round(decode_s / n_frames, 5),
        "encode_s_per_frame": round(encode_s / n_frames, 5),
    }
    return EncodedVideo(path, rows, cols, n_embd, step, figures)


def _write_features(
    video: Path,
    manifest: ModelManifest,
    encoder: VisionEncoder,
    path: Path,
    long_side_px: int | None,
) -> tuple[tuple[int, int, int], float, float]:
    """Write a video's features; return rows, columns and width, and the seconds that it took."""
    batches = sample_frames(
        video,
        fps=FPS,
        target_size=manifest.frames.size_rule(long_side_px),
        fit=manifest.frames.fit,
        resample=manifest.frames.resample,
    )
    shape = (0, 0, 0)
    decode_s = encode_s = 0.0
    with path.open("wb") as file:
        while True:
            start = time.perf_counter()
            batch = next(batches, None)
            decode_s += time.perf_counter() - start
            if batch is None:
                return shape, decode_s, encode_s
            start = time.perf_counter()
            part = encoder.encode(batch.frames, batch.times_s)
            encode_s += time.perf_counter() - start
            file.write(np.ascontiguousarray(part.embeddings, np.float32).tobytes())
            shape = (part.rows, part.cols, part.embeddings.shape[2])
