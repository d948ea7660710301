"""What the tests of sessions share: a small real model, a real video, and how to open both."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from retake_edge.config import CompressionConfig, GenerationConfig, RetakeConfig, RuntimeConfig
from retake_edge.config import SamplingConfig as Sampling
from retake_edge.models.manifest import ModelFiles
from retake_edge.session.open import open_video
from retake_edge.session.session import Session

GOLDEN = Path(__file__).parents[1] / "golden"
MODEL = ModelFiles(GOLDEN / "tiny-f32.gguf", GOLDEN / "mmproj-tiny-f32.gguf")
VIDEO = Path(__file__).parents[1] / "data" / "video" / "h264.mp4"
LONG_VIDEO = VIDEO.with_name("long.mkv")
QUESTION = "What is it?"

ARGUMENTS = [
    *("-m", str(MODEL.model), "-mm", str(MODEL.mmproj), "--long-side", "112", "--fps", "8"),
    *("--keep-ratio", "0.25", "--prefill-chunk-frames", "4", "-n", "6", "-t", "1"),
]


def settings(
    *,
    fps: float = 8.0,
    end_s: float | None = None,
    max_frames: int | None = None,
    max_tokens: int = 6,
    type_kv: str = "f16",
    n_batch: int = 2048,
    batch: int = 16,
    n_ctx: int | None = None,
    **compression: Any,
) -> RetakeConfig:
    """Settings under which the video has 24 frames in 6 chunks."""
    compression = {"keep_ratio": 0.25, "prefill_chunk_frames": 4, **compression}
    if compression.get("kv_budget") is not None:
        compression["keep_ratio"] = None
    runtime = RuntimeConfig(
        type_k=type_kv,
        type_v=type_kv,
        n_threads=1,
        n_batch=n_batch,
        encode_batch_frames=batch,
        n_ctx=n_ctx,
    )
    return RetakeConfig(
        Sampling(fps=fps, max_frames=max_frames, long_side_px=112, end_s=end_s),
        compression=CompressionConfig(**compression),
        runtime=runtime,
        generation=GenerationConfig(max_tokens=max_tokens),
    )


def opened(
    cache_dir: Path,
    config: RetakeConfig | None = None,
    video: Path = VIDEO,
    model: ModelFiles = MODEL,
    **options: Any,
) -> Session:
    """The session of a video, in a cache of the test's own."""
    return open_video(video, model, config or settings(), cache_dir=cache_dir, **options)


def question_logits(session: Session) -> np.ndarray:
    """The logits after a question, f32 [n_vocab]: equal bits only if all cells are equal."""
    engine = session.engine
    prompt, mark = session.manifest.prompt.question(QUESTION), engine.mark()
    engine.context.decode_tokens(engine.model.tokenize(prompt), engine.next_position)
    logits = engine.context.logits()
    engine.rewind(mark)
    return logits


def command(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    """Start the command line in a process of its own."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
    environment = {**options.pop("env", os.environ), "PYTHONPATH": str(Path(__file__).parents[2])}
    call = [sys.executable, "-m", "retake_edge", *arguments]
    return subprocess.Popen(call, env=environment, **options)


def run(*arguments: str, **options: Any) -> tuple[int, str, str]:
    """Run the command line; return its exit code, standard output and standard error."""
    with command(*arguments, **options) as process:
        out, err = process.communicate(timeout=300)
    return process.returncode, out, err
