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
from retake_edge.plan.frames import FramePlan, plan_frames
from retake_edge.plan.look import look_frames, look_size
from retake_edge.plan.memory import DeviceUse, fits, memory_use, model_buffers
from retake_edge.plan.seconds import Calibration, Work, calibration_key, work_of
from retake_edge.video.read import VideoInfo

GIB = 1 << 30
_ADVICE = "'retake-edge plan' says what would make it fit, and --fit does it"


class Estimate(NamedTuple):
    """The name under which the speed of such runs is kept, and how much work this one is."""

    speed_key: str
    work: Work


@dataclass(frozen=True)
class RunPlan:
    """The work and the needs of one run: planned once, shown, and then carried out.

    `manifest`: how the model is used; `memory`: by device, this machine's first; `estimate`: what
    the seconds are told from; `n_layer`: of the language model; `feature_bytes`: of the frames'
    features on the disk, where they are kept.
    """

    config: RetakeConfig
    manifest: ModelManifest
    video: VideoInfo
    frames: FramePlan
    cells: CellPlan
    memory: list[DeviceUse]
    estimate: Estimate
    n_layer: int
    feature_bytes: int = 0

    @property
    def fits(self) -> bool:
        """True if every device has the memory."""
        return fits(self.memory)

    def seconds(self, calibration: Calibration) -> dict[str, float] | None:
        """Return the seconds expected by stage, None before anything was measured."""
        return calibration.seconds(*self.estimate, self.config.generation.max_tokens)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return {
            "video": self.video.to_dict(),
            "frames": self.frames.to_dict(),
            "cells": asdict(self.cells),
            "memory": [device.to_dict() for device in self.memory],
            "feature_bytes": self.feature_bytes,
            "fits": self.fits,
            "config": self.config.to_dict(),
        }


class RunPlanner:
    """Plans of runs with one model, for any video and settings.

    `n_text_reserve`: cells for text after the video; `available`: bytes by device ('' this
    machine), in place of what they say themselves; `tried`: the files are known to load;
    `is_loaded`: the language model's weights are in memory already, and need no more of it.

    Raises:
        ModelError: the files cannot be read.
    """

    def __init__(
        self,
        source: ModelManifest | ModelFiles,
        n_text_reserve: int,
        available: Mapping[str, int | None] | None = None,
        *,
        tried: bool = False,
        is_loaded: bool = False,
    ) -> None:
        if not tried:
            check_loadable(source, default_cache_dir())
        self.source, self.n_text_reserve, self.available = source, n_text_reserve, available
        self.is_loaded = is_loaded
        self.header, self.mmproj = read_gguf(source.model), read_gguf(source.mmproj)
        self.manifest = self._manifest("")
        self._models: dict[int, Model] = {}
        self._resources = ExitStack()

    def __enter__(self) -> RunPlanner:
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    def _manifest(self, system: str) -> ModelManifest:
        if isinstance(self.source, ModelManifest):
            return manifest_of(self.source, system)
        return infer_manifest(self.header, self.mmproj, system)

    def model(self, config: RetakeConfig) -> Model:
        """Return the model without weights, its layers placed as the settings say."""
        n_gpu_layers = config.runtime.n_gpu_layers
        if n_gpu_layers not in self._models:
            model = Model(self.source.model, n_gpu_layers=n_gpu_layers, weights=False)
            self._models[n_gpu_layers] = self._resources.enter_context(model)
        return self._models[n_gpu_layers]

    def plan(self, video: VideoInfo, config: RetakeConfig) -> RunPlan:
        """Plan a run, straight down: frames, cells, memory, seconds.

        Raises:
            MemoryBudgetError: the cells do not fit into `-c`. ModelError: the video has times that
            the model has no word for.
        """
        model, manifest = self.model(config), self._manifest(config.prompt.system)
        frames = plan_frames(manifest, config, video)
        cells = plan_cells(model, manifest, config, video, frames, self.n_text_reserve)
        size, n_look = (video.width_px, video.height_px), look_frames(manifest, config)
        memory = memory_use(
            model,
            (self.header, self.mmproj),
            config,
            cells.memory,
            frames,
            size,
            self.available,
            saves_at_end=bool(cells.not_compressible) or cells.n_whole_steps is not None,
            look_px=look_size(manifest, n_look, video) if n_look else None,
        )
        if self.is_loaded:
            memory = [replace(use, weights=0, mapped=0) for use in memory]
        work = work_of(self.header, self.mmproj, cells.memory, frames, video)
        devices = [device.device or "CPU" for device in memory]
        estimate = Estimate(calibration_key(self.header, self.mmproj, config, devices), work)
        features = feature_bytes(model, cells, frames) if config.look.keep_features else 0
        return RunPlan(
            config, manifest, video, frames, cells, memory, estimate, model.n_layer, features
        )

    def kv_bytes(self, plan: RunPlan) -> dict[str, int]:
        """Return the bytes of the plan's cells at each type of K and V that the model can have."""
        found = {}
        for kind in KV_TYPES:
            runtime = replace(plan.config.runtime, type_k=kind, type_v=kind, flash_attention="auto")
            config = replace(plan.config, runtime=runtime)
            with suppress(MemoryBudgetError):  # rows of the model do not divide into its blocks
                buffers = model_buffers(self.model(config), config, plan.cells.memory.n_ctx)
                found[kind] = sum(part.cells for part in buffers)
        return found


def feature_bytes(model: Model, cells: CellPlan, frames: FramePlan) -> int:
    """Return the bytes of a video's features on the disk, f16 as they are kept."""
    return 2 * frames.n_steps * cells.memory.shape.vision_per_step * model.n_embd_inp


def require_room(memory: list[DeviceUse], advice: str = _ADVICE) -> None:
    """Refuse a run that does not fit, with the numbers and a way out.

    Raises:
        MemoryBudgetError: with the numbers of the first device that is too small.
    """
    for use in memory:
        if not use.fits:
            assert use.available is not None
            raise MemoryBudgetError(
                f"The run needs {gib(use.needed)} of {device_name(use)} ({shares(use)}), but "
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


def device_name(use: DeviceUse) -> str:
    """Return how a device's memory is called."""
    return f"{use.device}'s memory" if use.device else "memory"


def gib(size: int) -> str:
    """Return bytes as people read them."""
    return f"{size / GIB:.2f} GiB" if size >= GIB else f"{size / 2**20:.1f} MiB"
