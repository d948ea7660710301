"""A model's needs for an hour of video on this machine: memory, and time to read it.

It is planned as any run is, with the model's files, or with hollow ones made of its shape. What
does not change (bytes, work) is remembered; what does (free memory, speed) is looked up each time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from retake_edge.config import RetakeConfig
from retake_edge.files import JsonCache, default_cache_dir
from retake_edge.llama.buffers import available_memory_bytes
from retake_edge.models.manifest import ModelFiles, ModelManifest
from retake_edge.models.published import Published, hollow_files
from retake_edge.plan.cells import text_reserve
from retake_edge.plan.machine import machine_key, machine_seconds
from retake_edge.plan.run import RunPlanner
from retake_edge.plan.seconds import Calibration, Work
from retake_edge.version import __version__
from retake_edge.video.read import VideoInfo

HOUR_S = 3600.0
AN_HOUR = VideoInfo(
    *(Path("an hour of video"), 1280, 720, 0, HOUR_S, 108_000, "h264", 30.0, 1 / 30, 0.0)
)
"""The video that models are compared on: 720p at 30 frames a second."""

_READING = ("decode", "encode", "prefill")
_MAX_REMEMBERED = 200


@dataclass(frozen=True)
class Needs:
    """The cost of reading an hour of video.

    `needed`: bytes by device ('' this machine's memory); `work`: what the time is estimated from;
    `speed_key`: under which this model's own speed is kept.
    """

    needed: Mapping[str, int]
    work: Work
    speed_key: str

    @property
    def n_bytes(self) -> int:
        """All memory, of whatever device."""
        return sum(self.needed.values())

    @property
    def fits(self) -> bool:
        """True if every device has that much left, or does not tell."""
        free = free_memory()
        return all(self.needed[name] <= free.get(name, size) for name, size in self.needed.items())

    def hour_s(self, calibration: Calibration) -> float | None:
        """Return the seconds that the hour takes here; None before anything was measured."""
        own = calibration.seconds(self.speed_key, self.work, 1) or {}
        general = machine_seconds(calibration, self.work) or {}
        # How fast videos are decoded has nothing to do with the model; a short one tells little.
        both = general | own | {"decode": general.get("decode", own.get("decode", 0.0))}
        found = [both.get(stage) for stage in _READING]
        known = [seconds for seconds in found if seconds is not None]
        return sum(known) if len(known) == len(found) else None


def free_memory() -> dict[str, int]:
    """Return the bytes that are left by device ('' this machine), of those that tell."""
    from retake_edge.llama.devices import devices

    found = {d.name: d.free_bytes for d in devices() if d.total_bytes and d.is_gpu}
    own = available_memory_bytes()
    return found if own is None else {"": own, **found}


def needs_of(source: ModelManifest | ModelFiles | Published) -> Needs:
    """Return what a model takes, its files here or not.

    Raises:
        RetakeError: its files are damaged, or it cannot read an hour.
    """
    memory = JsonCache(default_cache_dir() / "needs.json", _MAX_REMEMBERED)
    key = _key(source)
    known = _from_dict(memory.get(key))
    if known is None:
        known = _planned(source)
        memory.put(key, asdict(known))
    return known


def _planned(source: ModelManifest | ModelFiles | Published) -> Needs:
    config = RetakeConfig()
    with ExitStack() as held:
        is_hollow = isinstance(source, Published)
        if isinstance(source, Published):
            folder = TemporaryDirectory(prefix="retake-edge-")
            held.enter_context(folder)
            source = hollow_files(source, folder)
        planner = RunPlanner(source, text_reserve(config), tried=is_hollow)
        plan = held.enter_context(planner).plan(AN_HOUR, config)
        needed = {use.device: use.needed for use in plan.memory}
        return Needs(needed, plan.estimate.work, plan.estimate.speed_key)


def _key(source: ModelManifest | ModelFiles | Published) -> str:
    """The name of all that the needs depend on."""
    facts: list[Any] = [__version__, machine_key()]
    if isinstance(source, Published):
        facts.append([str(source.ref), asdict(source.shape) if source.shape else None])
    else:
        for path in (source.model, source.mmproj):
            about = path.stat()
            facts.append([str(path.resolve()), about.st_size, about.st_mtime_ns])
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def _from_dict(data: Any) -> Needs | None:
    """Return the remembered needs, or None where `data` is something else."""
    try:
        needed = {str(name): int(size) for name, size in data["needed"].items()}
        return Needs(needed, Work(**data["work"]), str(data["speed_key"]))
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
