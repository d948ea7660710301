"""Measure this machine's speed for models that are not here yet, once, with a stand-in.

The stand-in has the widths of Qwen2.5-VL 3B, two layers of them, and random weights: it is written,
sees a frame, reads some thousand tokens, and is gone. What each operation took holds for other
models of that kind; a model's own runs, once there are any, count instead.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from retake_edge.llama import devices
from retake_edge.plan.seconds import Calibration, Work
from retake_edge.progress import ProgressCallback, no_progress

if TYPE_CHECKING:
    from retake_edge.llama.context import Context
    from retake_edge.llama.model import Model

STAGE = "measuring this machine, once"
_SHAPE, _N_LAYER, _QUANT = "qwen2.5-vl-3b", 2, "q4_0"
_VISION_QUANT = "q8_0"
_SIDE_PX = 448
_N_BATCH, _N_CELLS, _N_SINGLE = 512, 4096, 4
_CLIP_PX, _CLIP_FRAMES = (1280, 720), 48


def machine_key() -> str:
    """Return the name under which this machine's speed is kept: its devices and processors."""
    found = [(d.name, d.description) for d in devices.devices()]
    digest = hashlib.sha256(json.dumps([_N_LAYER, found, os.cpu_count()]).encode())
    return f"machine {digest.hexdigest()[:24]}"


def machine_seconds(
    calibration: Calibration, work: Work, n_answer: int = 1
) -> dict[str, float] | None:
    """Return the seconds by stage that work takes here, None before the machine was measured.

    'answer': a question and `n_answer` tokens.
    """
    return calibration.seconds(machine_key(), work, n_answer)


def measure_machine(calibration: Calibration, progress: ProgressCallback = no_progress) -> None:
    """Measure, and keep it; nothing is done if it is known already.

    Raises:
        RetakeError: the stand-in cannot be written or run.
    """
    key = machine_key()
    if calibration.knows(key):
        return
    progress(STAGE, 0, 3)
    with TemporaryDirectory(prefix="retake-edge-") as name:
        folder = Path(name)
        pixels, seconds = _decoding(folder)
        progress(STAGE, 1, 3)
        work, spent = _reading(folder)
    progress(STAGE, 3, 3)
    calibration.add(key, replace(work, decode=pixels), {**spent, "decode": seconds}, n_answer=1)


def _decoding(folder: Path) -> tuple[float, float]:
    """Pixels of a clip, and the seconds that decoding them takes."""
    import av
    import numpy as np

    path, rng = folder / "clip.mp4", np.random.default_rng(0)
    width, height = _CLIP_PX
    with av.open(str(path), "w") as clip:
        codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
        stream: Any = clip.add_stream(codec, rate=30)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        blocks = rng.integers(0, 224, (height // 8, width // 8), np.uint8)
        picture = np.kron(blocks, np.ones((8, 8), np.uint8))
        for i in range(_CLIP_FRAMES):
            noise = rng.integers(0, 24, picture.shape, np.uint8)
            noisy = np.roll(picture, 4 * i, axis=1) + noise
            frame = av.VideoFrame.from_ndarray(np.repeat(noisy[..., None], 3, 2), "rgb24")
            clip.mux(stream.encode(frame))
        clip.mux(stream.encode(None))
    started, n_frames = time.perf_counter(), 0
    with av.open(str(path)) as clip:
        clip.streams.video[0].thread_type = "AUTO"
        n_frames = sum(1 for _ in clip.decode(video=0))
    return float(width * height * n_frames), time.perf_counter() - started


def _reading(folder: Path) -> tuple[Work, dict[str, float]]:
    """Work done with the stand-in, and its seconds."""
    from retake_edge.llama.gguf import read_gguf
    from retake_edge.llama.model import Model
    from retake_edge.models.hollow import vision_types
    from retake_edge.models.random_gguf import write_random
    from retake_edge.models.shape_gguf import mmproj_layout, model_layout
    from retake_edge.models.shapes import shape_of
    from retake_edge.plan.seconds import encode_work, language_work

    shape, about = shape_of(_SHAPE, _N_LAYER), "a stand-in"
    file, mmproj = folder / "model.gguf", folder / "mmproj.gguf"
    write_random(model_layout(shape, file, lambda *_: _QUANT, about))
    write_random(mmproj_layout(shape, mmproj, vision_types(_VISION_QUANT), about))
    patches = (_SIDE_PX // shape.vision.patch_px) ** 2
    n_dense, per_pair, n_bytes = language_work(read_gguf(file))
    with Model(file) as model:
        encode_s = _encode_seconds(model, mmproj)
        first_s, last_s, token_s = _decode_seconds(model)
    more = 4.0 * per_pair * _N_BATCH * (_N_CELLS - _N_BATCH)  # attention of the last to the first
    attention_s = max(last_s - first_s, 1e-6)
    work = Work(
        decode=0.0,
        encode=encode_work(read_gguf(mmproj), patches),
        prefill=2.0 * n_dense * _N_BATCH,
        question=0.0,
        answer=float(n_bytes),
        attention=more,
    )
    seconds = {"encode": encode_s, "prefill": first_s, "attention": attention_s, "answer": token_s}
    return work, seconds


def _encode_seconds(model: Model, mmproj: Path) -> float:
    """Seconds of one grid frame, the first one left out."""
    import numpy as np

    from retake_edge.vision.encoder import VisionEncoder

    frames = np.random.default_rng(0).integers(0, 256, (2, _SIDE_PX, _SIDE_PX, 3), np.uint8)
    with VisionEncoder(model, mmproj) as encoder:
        encoder.encode(frames, np.arange(2.0))
        started = time.perf_counter()
        encoder.encode(frames, np.arange(2.0))
        return time.perf_counter() - started


def _decode_seconds(model: Model) -> tuple[float, float, float]:
    """Seconds of the first full batch, of the one that fills the cache, and of a single token."""
    from retake_edge.llama.context import Context

    tokens, spent = [i % 200 for i in range(_N_BATCH)], []
    with Context(model, n_ctx=_N_CELLS + 256, n_batch=_N_BATCH, n_ubatch=_N_BATCH) as context:
        context.decode_tokens(tokens, 0)  # the first time is slower
        context.clear()
        for start in range(0, _N_CELLS, _N_BATCH):
            spent.append(_seconds(context, tokens, start))
        single = [_seconds(context, tokens[:1], _N_CELLS + i) for i in range(_N_SINGLE)]
    return spent[0], spent[-1], min(single)


def _seconds(context: Context, tokens: list[int], position: int) -> float:
    started = time.perf_counter()
    context.decode_tokens(tokens, position)
    context.synchronize()
    return time.perf_counter() - started
