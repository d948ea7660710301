"""What compression costs and saves: the same frames with the full cache and with ours.

The video is rendered, decoded and encoded once. Then each setting prefills those features in a
process of its own: the full cache as llama.cpp has it (no capture, nothing evicted), and ours.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from retake_edge import errors
from retake_edge.bench.speed_run import SpeedTask
from retake_edge.config import PivotKVConfig, RuntimeConfig
from retake_edge.errors import ConfigError, NativeError, RetakeError
from retake_edge.families import manifest_of
from retake_edge.llama import Model
from retake_edge.models import ModelManifest, resolve_model
from retake_edge.scene import make_scene, write_video
from retake_edge.video import sample_frames
from retake_edge.vision import VisionEncoder, VisionFeatures

FPS = 2.0
_SCENE_PX = 448


@dataclass(frozen=True)
class SpeedSettings:
    """What is run. `kv_budget`: most cells our runs keep of the video, whatever its length (None:
    the share `keep` of them). `with_full`: whether the full cache runs, too. `encode_frames`: how
    many frames are encoded (None: all); the features of further ones repeat them, since the
    language model's work does not depend on their values."""

    n_frames: int = 128
    keep: float = 0.25
    kv_budget: int | None = None
    with_full: bool = True
    policy: str = PivotKVConfig().policy
    chunk_frames: int = 32
    n_queries: int = 128
    long_side_px: int | None = None
    n_decode: int = 32
    encode_frames: int | None = None
    repeats: int = 1
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    kv_types: tuple[str, ...] = ("f16", "q8_0")

    def __post_init__(self) -> None:
        if self.n_frames < 4 or self.n_decode < 1 or self.repeats < 1:
            raise ConfigError(
                f"--frames {self.n_frames}, --predict {self.n_decode}, --repeats {self.repeats}: "
                "they must be at least 4, 1 and 1."
            )
        if not 0 < self.keep < 1:
            raise ConfigError(f"--keep is {self.keep}, but must be above 0 and below 1.")
        if self.encode_frames is not None and self.encode_frames < 4:
            raise ConfigError(f"--encode-frames is {self.encode_frames}, but must be at least 4.")


def run_speed(
    model: str,
    mmproj: Path | None,
    settings: SpeedSettings,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> dict[str, Any]:
    """Measure everything; return plain values: `video`, `runs` and `ratios`.

    `model`, `mmproj`: a name or a GGUF pair, as on the command line. Of repeats the fastest counts.

    Raises:
        RetakeError: what the child processes report, as the class it was.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        video, task = _prepared(model, mmproj, settings, folder)
        variants = _variants(settings)
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in variants}
        # Repeats are interleaved: what else the machine does then falls on all alike.
        for repeat in range(settings.repeats):
            for i, (name, (pivotkv, runtime)) in enumerate(variants.items()):
                progress("runs", repeat * len(variants) + i, settings.repeats * len(variants))
                runs[name].append(_child(replace(task, pivotkv=pivotkv, runtime=runtime)))
    best = {
        name: min(figures, key=lambda f: f["seconds"]["video in all"])
        for name, figures in runs.items()
    }
    full = best.get("full f16")
    compared = {} if full is None else {n: ratios(full, f) for n, f in best.items() if f != full}
    return {"video": video, "runs": best, "ratios": compared}


def ratios(full: dict[str, Any], ours: dict[str, Any]) -> dict[str, float]:
    """Return ours against the full cache; above 1 is more time, memory or speed."""
    seconds = ours["seconds"]
    extra = seconds["score"] + seconds["select"] + seconds["compact"]
    found = {
        "video time": seconds["video in all"] / full["seconds"]["video in all"],
        "prefill time": seconds["prefill"] / full["seconds"]["prefill"],
        "compression share of prefill": extra / seconds["prefill"],
        "selection share of prefill": seconds["select"] / seconds["prefill"],
        "first token time": ours["first_token_s"] / full["first_token_s"],
        "decode speed": ours["decode_tokens_per_s"] / full["decode_tokens_per_s"],
        "kv bytes": ours["kv_bytes"] / full["kv_bytes"],
        "kv bytes allocated": ours["kv_allocated_bytes"] / full["kv_allocated_bytes"],
        "peak memory": ours["peak_memory_bytes"] / full["peak_memory_bytes"],
    }
    return {name: round(value, 4) for name, value in found.items()}


def _variants(settings: SpeedSettings) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Settings of each run by name: the full cache in f16 and each K/V type, and ours in each."""
    shared = {
        "prefill_chunk_frames": settings.chunk_frames,
        "n_queries": settings.n_queries,
    }
    full = {"policy": "none", **shared}
    ours: dict[str, Any] = {"policy": settings.policy, "kv_budget": settings.kv_budget, **shared}
    if settings.kv_budget is None:
        ours["keep_ratio"] = settings.keep
    runtime = asdict(settings.runtime)
    found = {}
    if settings.with_full:
        for kind in ("f16", *settings.kv_types):
            found[f"full {kind}"] = (full, runtime | {"type_k": kind, "type_v": kind})
    for kind in settings.kv_types:
        found[f"{settings.policy} {kind}"] = (ours, runtime | {"type_k": kind, "type_v": kind})
    return found


def _prepared(
    model: str, mmproj: Path | None, settings: SpeedSettings, folder: Path
) -> tuple[dict[str, Any], SpeedTask]:
    """Render, decode and encode the video; its features go to a file."""
    runtime, source = settings.runtime, resolve_model(model, mmproj)
    n_encoded = min(settings.n_frames, settings.encode_frames or settings.n_frames)
    path = write_video(make_scene(0, n_encoded / FPS), folder / "v.mp4", FPS, _SCENE_PX)
    manifest = manifest_of(source)
    with (
        Model(source.model, n_gpu_layers=runtime.n_gpu_layers) as llm,
        VisionEncoder(
            llm,
            source.mmproj,
            offload=runtime.mmproj_offload,
            n_threads=runtime.n_threads,
            overview=manifest.frames.overview,
        ) as encoder,
    ):
        features, decode_s, encode_s = _encoded(path, manifest, encoder, settings)
        step = encoder.frames_per_step
    n_steps = -(-settings.n_frames // step)
    _write_features(features, n_steps, folder / "features.f32")
    video = {
        "n_frames": settings.n_frames,
        "n_frames_encoded": n_encoded,
        "vision_tokens_per_step": features.rows * features.cols,
        "frames_per_step": step,
        "decode_s_per_frame": round(decode_s / n_encoded, 5),
        "encode_s_per_frame": round(encode_s / n_encoded, 5),
    }
    task = SpeedTask(
        model=model,
        mmproj=None if mmproj is None else str(mmproj),
        features=str(folder / "features.f32"),
        rows=features.rows,
        cols=features.cols,
        n_embd=features.embeddings.shape[2],
        step_s=step / FPS,
        n_decode=settings.n_decode,
        frames_per_step=step,
        pivotkv={},
        runtime={},
    )
    return video, task


def _write_features(features: VisionFeatures, n_steps: int, path: Path) -> None:
    """Write `n_steps` grid frames one by one, the encoded ones again and again."""
    with path.open("wb") as file:
        for step in range(n_steps):
            file.write(features.embeddings[step % len(features.embeddings)].tobytes())


def _encoded(
    path: Path, manifest: ModelManifest, encoder: VisionEncoder, settings: SpeedSettings
) -> tuple[VisionFeatures, float, float]:
    """Return the features of a video, and the seconds that decoding and encoding took."""
    batches = sample_frames(
        path,
        fps=FPS,
        target_size=manifest.frames.size_rule(settings.long_side_px),
        fit=manifest.frames.fit,
        resample=manifest.frames.resample,
    )
    features: VisionFeatures | None = None
    decode_s = encode_s = 0.0
    while True:
        start = time.perf_counter()
        batch = next(batches, None)
        decode_s += time.perf_counter() - start
        if batch is None:
            break
        start = time.perf_counter()
        part = encoder.encode(batch.frames, batch.times_s)
        encode_s += time.perf_counter() - start
        features = part if features is None else features.joined(part)
    assert features is not None
    return features, decode_s, encode_s


def _child(task: SpeedTask) -> dict[str, Any]:
    """Run a task in a process of its own.

    Raises:
        RetakeError: the class and message of the child's own error. NativeError: it crashed.
    """
    done = subprocess.run(
        [sys.executable, "-m", "retake_edge.bench.speed_run"],
        input=json.dumps(asdict(task)),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        figures: dict[str, Any] = json.loads(done.stdout)
        return figures
    name, _, message = (done.stderr.strip().splitlines() or [""])[-1].partition(": ")
    kind = getattr(errors, name, None)
    if isinstance(kind, type) and issubclass(kind, RetakeError):
        raise kind(message)
    raise NativeError(f"A measuring process ended with code {done.returncode}: {message or name}.")
