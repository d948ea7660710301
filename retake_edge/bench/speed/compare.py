"""Time the same frames with the full cache and with ours.

The video is rendered, decoded and encoded once for each cut of the model. Then each setting
prefills those features in a process of its own: the full cache as llama.cpp has it (no capture,
nothing evicted), and ours. A benchmark of many minutes can be made in parts: every run that has
ended counts.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from retake_edge import errors
from retake_edge.bench.speed.cuts import Figures, extrapolated, ratios
from retake_edge.bench.speed.features import FPS, encode_video
from retake_edge.bench.speed.models import Cut
from retake_edge.bench.speed.run import SpeedTask
from retake_edge.config import CompressionConfig, RuntimeConfig
from retake_edge.errors import ConfigError, NativeError, RetakeError
from retake_edge.models.resolve import resolve_model

BASE = "full f16"
"""The run that all others are held against: stock llama.cpp as it comes."""
Results = dict[str, Any]


@dataclass(frozen=True)
class SpeedSettings:
    """Settings of a run.

    `kv_budget`: most cells our runs keep of the video, whatever its length (None: the share
    `keep_ratio` of them). `with_full`: whether the full cache runs, too. `encode_frames`: how many
    frames are encoded (None: all); the features of further ones repeat them, since the
    language model's work does not depend on their values.
    """

    n_frames: tuple[int, ...] = (128,)
    keep_ratio: float = 0.25
    kv_budget: int | None = None
    with_full: bool = True
    policy: str = CompressionConfig().policy
    chunk_frames: int = 32
    n_queries: int = 128
    long_side_px: int | None = None
    n_decode: int = 32
    encode_frames: int | None = None
    repeats: int = 1
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    kv_types: tuple[str, ...] = ("f16", "q8_0")

    def __post_init__(self) -> None:
        if min(self.n_frames) < 4 or self.n_decode < 1 or self.repeats < 1:
            raise ConfigError(
                f"--frames {min(self.n_frames)}, --predict {self.n_decode}, --repeats "
                f"{self.repeats}: they must be at least 4, 1 and 1."
            )
        if not 0 < self.keep_ratio < 1:
            raise ConfigError(f"--keep-ratio is {self.keep_ratio}, but must lie between 0 and 1.")
        if self.encode_frames is not None and self.encode_frames < 4:
            raise ConfigError(f"--encode-frames is {self.encode_frames}, but must be at least 4.")


def run_speed(
    cuts: Sequence[Cut],
    n_layer: int,
    settings: SpeedSettings,
    *,
    earlier: Results | None = None,
    minutes: float | None = None,
    save: Callable[[Results], None] = lambda results: None,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Results:
    """Measure what `earlier` lacks; return `cuts` and, for each length, `runs` and what follows.

    `cuts`: the whole model of `n_layer` layers, or two cuts of it. After `minutes` no further run
    begins. `save` gets the results after each run. Of repeats the fastest counts.

    Raises:
        RetakeError: what the child processes report, as the class it was.
    """
    results = earlier or {
        "cuts": [{"layers": c.n_layer, "vision_layers": c.n_vision_layer} for c in cuts],
        "lengths": [{"n_frames": n, "runs": [{} for _ in cuts]} for n in settings.n_frames],
    }
    variants, units = _variants(settings), list(_units(len(cuts), settings))
    started, n_begun = time.monotonic(), 0
    with tempfile.TemporaryDirectory() as scratch:
        tasks: dict[int, SpeedTask] = {}
        for done, (repeat, length, name, cut) in enumerate(units):
            runs = results["lengths"][length]["runs"][cut]
            if runs.get(name, {}).get("n_runs", 0) > repeat:
                continue
            if n_begun and minutes is not None and time.monotonic() - started > 60 * minutes:
                break
            n_begun += 1
            progress("runs", done, len(units))
            if cut not in tasks:
                tasks[cut], video = _prepared(cuts[cut], settings, Path(scratch))
                results["cuts"][cut]["video"] = video
            task = _at_length(tasks[cut], settings.n_frames[length])
            compression, runtime = variants[name]
            figures = _child(replace(task, compression=compression, runtime=runtime))
            runs[name] = _fastest(runs.get(name), figures)
            _derive(results["lengths"][length], results["cuts"], n_layer, list(variants))
            save(results)
    return results


def _units(n_cuts: int, settings: SpeedSettings) -> Iterator[tuple[int, int, str, int]]:
    """Every run: repeat, length, variant, cut.

    Repeats are interleaved: what else the machine does then falls on all alike. A variant's cuts
    are neighbours: it is their difference that counts.
    """
    for repeat in range(settings.repeats):
        for length in range(len(settings.n_frames)):
            for name in _variants(settings):
                for cut in range(n_cuts):
                    yield repeat, length, name, cut


def _fastest(known: Figures | None, figures: Figures) -> Figures:
    n_runs = 1 + (known or {}).get("n_runs", 0)
    found = [figures] if known is None else [known, figures]
    return min(found, key=lambda f: float(f["seconds"]["video in all"])) | {"n_runs": n_runs}


def _derive(
    length: dict[str, Any], cuts: list[dict[str, Any]], n_layer: int, names: list[str]
) -> None:
    """Add to a length whose runs are complete what follows from them for the whole model."""
    runs, layers = length["runs"], [cut["layers"] for cut in cuts]
    if any(name not in of_cut for of_cut in runs for name in names):
        return
    if len(cuts) == 1:
        length["whole"] = runs[0]
    else:
        low, high = runs
        found = {
            name: extrapolated((layers[0], low[name]), (layers[1], high[name]), n_layer)
            for name in names
        }
        length["layer"] = {name: parts["layer"] for name, parts in found.items()}
        length["fixed"] = {name: parts["fixed"] for name, parts in found.items()}
        length["whole"] = {name: parts["whole"] for name, parts in found.items()}
    whole = length["whole"]
    if BASE in whole:
        others = (name for name in names if name != BASE)
        length["ratios"] = {name: ratios(whole[BASE], whole[name]) for name in others}


def _variants(settings: SpeedSettings) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Settings of each run by name: the full cache in f16 and each K/V type, and ours in each."""
    shared = {
        "prefill_chunk_frames": settings.chunk_frames,
        "n_queries": settings.n_queries,
    }
    full = {"policy": "none", **shared}
    ours: dict[str, Any] = {"policy": settings.policy, "kv_budget": settings.kv_budget, **shared}
    if settings.kv_budget is None:
        ours["keep_ratio"] = settings.keep_ratio
    runtime = asdict(settings.runtime)
    found = {}
    if settings.with_full:
        for kind in ("f16", *settings.kv_types):
            found[f"full {kind}"] = (full, runtime | {"type_k": kind, "type_v": kind})
    for kind in settings.kv_types:
        found[f"{settings.policy} {kind}"] = (ours, runtime | {"type_k": kind, "type_v": kind})
    return found


def _prepared(cut: Cut, settings: SpeedSettings, scratch: Path) -> tuple[SpeedTask, dict[str, Any]]:
    """Encode the video with a cut's tower: a task without length and settings, and the figures."""
    longest = max(settings.n_frames)
    video = encode_video(
        resolve_model(cut.model, cut.mmproj),
        scratch,
        min(longest, settings.encode_frames or longest),
        settings.runtime,
        settings.long_side_px,
    )
    task = SpeedTask(
        model=cut.model,
        mmproj=None if cut.mmproj is None else str(cut.mmproj),
        features=str(video.path),
        rows=video.rows,
        cols=video.cols,
        n_embd=video.n_embd,
        n_steps=0,
        step_s=video.frames_per_step / FPS,
        n_decode=settings.n_decode,
        frames_per_step=video.frames_per_step,
        compression={},
        runtime={},
    )
    return task, video.figures


def _at_length(task: SpeedTask, n_frames: int) -> SpeedTask:
    return replace(task, n_steps=-(-n_frames // task.frames_per_step))


def _child(task: SpeedTask) -> dict[str, Any]:
    """Run a task in a process of its own.

    Raises:
        RetakeError: the class and message of the child's own error. NativeError: it crashed.
    """
    done = subprocess.run(
        [sys.executable, "-m", "retake_edge.bench.speed.run"],
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
