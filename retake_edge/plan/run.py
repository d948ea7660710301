"""The plan of a run: frames, cells, memory and seconds, before any weights are loaded.

Read from the video's packets, the files' headers and the model's vocabulary; the same functions
then carry the run out, so what is shown is what is done.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

from retake_edge.config import KV_TYPES, RetakeConfig
from retake_edge.engine.trial import check_loadable
from retake_edge.errors import MemoryBudgetError
from retake_edge.files import default_cache_dir
from retake_edge.llama.gguf import read_gguf
from retake_edge.llama.model import Model
from retake_edge.models.families import infer_manifest, manifest_of
from retake_edge.models.manifest import ModelFiles, ModelManifest
from retake_edge.plan.cells import CellPlan, plan_cells
from retake_edge.plan.frames import FramePlan, look_frames, look_size, plan_frames
from retake_edge.plan.memory import DeviceUse, fits, memory_use, model_buffers
from retake_edge.plan.seconds import Calibration, Work, calibration_key, work_of
from retake_edge.video.read import VideoInfo

GIB = 1 << 30
_ADVICE = "'retake-edge plan' says what would make it fit, and --fit does it"


@dataclass(frozen=True)
class RunPlan:
    """What one run will do and take.

    `memory`: by device, this machine's first; `work`: what the seconds are estimated
    from; `n_layer`: of the language model.
    """

    settings: RetakeConfig
    video: VideoInfo
    frames: FramePlan
    cells: CellPlan
    memory: list[DeviceUse]
    work: Work
    n_layer: int

    @property
    def fits(self) -> bool:
        """Whether every device has the memory."""
        return fits(self.memory)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return {
            "video": {**asdict(self.video), "path": str(self.video.path)},
            "frames": asdict(self.frames),
            "cells": asdict(self.cells),
            "memory": [device.to_dict() for device in self.memory],
            "fits": self.fits,
            "settings": self.settings.to_dict(),
        }


class Estimate(NamedTuple):
    """The name under which the speed of such runs is kept, and how much work this one is."""

    speed_key: str
    work: Work


class RunPlanner:
    """Plans of runs with one model, for any video and settings.

    `n_after`: cells for text after the video; `available`: bytes by device ('' this machine), in
    place of what they say themselves; `tried`: the files are known to load; `is_loaded`: the
    language model's weights are in memory already, and need no more of it.

    Raises:
        ModelError: the files cannot be read.
    """

    def __init__(
        self,
        source: ModelManifest | ModelFiles,
        n_after: int,
        available: Mapping[str, int | None] | None = None,
        *,
        tried: bool = False,
        is_loaded: bool = False,
    ) -> None:
        if not tried:
            check_loadable(source, default_cache_dir())
        self.source, self.n_after, self.available = source, n_after, available
        self.is_loaded = is_loaded
        self.lm, self.mmproj = read_gguf(source.model), read_gguf(source.mmproj)
        self.manifest = self._manifest("")
        self._models: dict[int, Model] = {}
        self._resources = ExitStack()

    def __enter__(self) -> RunPlanner:
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    def manifest_for(self, settings: RetakeConfig) -> ModelManifest:
        """Return how the model is used with the system prompt of some settings."""
        return self._manifest(settings.prompt.system)

    def _manifest(self, system: str) -> ModelManifest:
        if isinstance(self.source, ModelManifest):
            return manifest_of(self.source, system)
        return infer_manifest(self.lm, self.mmproj, system)

    def model(self, settings: RetakeConfig) -> Model:
        """Return the model without weights, its layers placed as the settings say."""
        n_gpu_layers = settings.runtime.n_gpu_layers
        if n_gpu_layers not in self._models:
            model = Model(self.source.model, n_gpu_layers=n_gpu_layers, weights=False)
            self._models[n_gpu_layers] = self._resources.enter_context(model)
        return self._models[n_gpu_layers]

    def plan(self, video: VideoInfo, settings: RetakeConfig) -> RunPlan:
        """Plan a run.

        Raises:
            MemoryBudgetError: the cells do not fit into `-c`. ModelError: the video has times that
            the model has no word for.
        """
        model = self.model(settings)
        frames = plan_frames(self.manifest, settings, video)
        manifest = self.manifest_for(settings)
        cells = plan_cells(model, manifest, settings, video, self.n_after)
        size, n_look = (video.width_px, video.height_px), look_frames(manifest, settings)
        memory = memory_use(
            model,
            (self.lm, self.mmproj),
            settings,
            cells.memory,
            frames,
            size,
            self.available,
            is_whole=bool(cells.why_whole) or cells.n_chosen is not None,
            look_px=look_size(manifest, n_look, video) if n_look else None,
        )
        if self.is_loaded:
            memory = [replace(use, weights=0, mapped=0) for use in memory]
        work = work_of(self.lm, self.mmproj, cells.memory, frames, video)
        return RunPlan(settings, video, frames, cells, memory, work, model.n_layer)

    def kv_bytes(self, plan: RunPlan) -> dict[str, int]:
        """Return the bytes of the plan's cells at each type of K and V that the model can have."""
        found = {}
        for kind in KV_TYPES:
            runtime = replace(
                plan.settings.runtime, type_k=kind, type_v=kind, flash_attention="auto"
            )
            settings = replace(plan.settings, runtime=runtime)
            with suppress(MemoryBudgetError):  # rows of the model do not divide into its blocks
                buffers = model_buffers(self.model(settings), settings, plan.cells.memory.n_ctx)
                found[kind] = sum(part.cells for part in buffers)
        return found

    def estimated(self, video: VideoInfo, settings: RetakeConfig) -> Estimate:
        """Plan a run and refuse it if it does not fit; return how much work it is.

        Raises:
            MemoryBudgetError: the cells do not fit into `-c`, or the bytes into a device.
        """
        plan = self.plan(video, settings)
        require_room(plan.memory)
        return self.estimate(plan)

    def estimate(self, plan: RunPlan) -> Estimate:
        """Return how much work a plan is."""
        devices = [device.device or "CPU" for device in plan.memory]
        key = calibration_key(self.lm, self.mmproj, plan.settings, devices)
        return Estimate(key, plan.work)

    def seconds(self, plan: RunPlan, calibration: Calibration) -> dict[str, float] | None:
        """Return the seconds expected by stage, None before anything was measured."""
        n_answer = plan.settings.generation.max_tokens
        return calibration.seconds(self.estimate(plan).speed_key, plan.work, n_answer)


def require_room(memory: list[DeviceUse], advice: str = _ADVICE) -> None:
    """Refuse a run that does not fit, with the numbers and an advice.

    Raises:
        MemoryBudgetError: with the numbers of the first device that is too small.
    """
    for use in memory:
        if not use.fits:
            assert use.available is not None
            raise MemoryBudgetError(
                f"The run needs {gib(use.needed)} of {place(use)} ({shares(use)}), but "
                f"{gib(use.available)} are available; {advice}."
            )


def shares(use: DeviceUse) -> str:
    """Return what a device's memory is needed for, the parts that are not nothing."""
    parts = {
        "weights": use.weights,
        "what is kept": use.cells,
        "compute buffers": use.compute,
        "vision tower": use.vision,
        "its buffers": use.vision_compute,
        "frames and features": use.work,
        "program": use.program,
        "decoder process": use.decoder,
    }
    return ", ".join(f"{name} {gib(size)}" for name, size in parts.items() if size)


def place(use: DeviceUse) -> str:
    """Return how a device's memory is called."""
    return f"{use.device}'s memory" if use.device else "memory"


def gib(size: int) -> str:
    """Return bytes as people read them."""
    return f"{size / GIB:.2f} GiB" if size >= GIB else f"{size / 2**20:.1f} MiB"
