"""One prefill of given features with one setting, in a process of its own.

A process of its own, because peak memory is known for whole processes only. Reads a task as JSON
from stdin and writes its figures as JSON to stdout:

    python -m retake_edge.bench.speed.run < task.json
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from retake_edge.config import CompressionConfig, RetakeConfig, RuntimeConfig
from retake_edge.engine.chunks import ChunkBuilder, frame_blocks, n_text_per_step
from retake_edge.engine.engine import ChunkResult, Engine
from retake_edge.engine.prefill import prefill
from retake_edge.errors import RetakeError
from retake_edge.llama.buffers import buffers_of, peak_memory_bytes
from retake_edge.llama.capture import cells_used
from retake_edge.llama.context import Context
from retake_edge.llama.model import Model
from retake_edge.models.families import manifest_of
from retake_edge.models.manifest import ModelManifest
from retake_edge.models.resolve import resolve_model
from retake_edge.plan.frames import CellBudget, VideoShape, kv_bytes_per_cell, plan_memory
from retake_edge.plan.memory import context_settings
from retake_edge.vision.encoder import VisionFeatures, newline_of

QUESTION = "What happens in this video, and when?"


@dataclass(frozen=True)
class SpeedTask:
    """The work of one process.

    `model`, `mmproj`: as on the command line; `features`: a file of f32
    [T, rows * cols, n_embd], repeated until there are `n_steps` grid frames, each `step_s` seconds
    after the one before; `n_decode` tokens are generated.
    """

    model: str
    mmproj: str | None
    features: str
    rows: int
    cols: int
    n_embd: int
    n_steps: int
    step_s: float
    n_decode: int
    frames_per_step: int
    compression: dict[str, Any]
    runtime: dict[str, Any]

    @property
    def n_values_per_step(self) -> int:
        """Numbers in one grid frame's features."""
        return self.rows * self.cols * self.n_embd


@dataclass(frozen=True)
class SpeedFigures:
    """The cost of a run.

    Seconds by stage; `chunk_s`: prefill seconds of each chunk, `chunk_tokens`: its tokens,
    `chunk_cells`: the cells before it; `kv_bytes` of the cells in use after the video,
    `kv_allocated_bytes` of the whole cache; `token_s`: median seconds of a generated token;
    `device_memory_bytes`: weights, cells and compute buffers on GPUs, as llama.cpp counts them (0
    without one); `load_before`: processes that wanted to run in the minute before (None: unknown).
    """

    n_tokens: int
    n_cells: int
    n_ctx: int
    kv_bytes: int
    kv_allocated_bytes: int
    seconds: dict[str, float]
    chunk_s: list[float]
    chunk_tokens: list[int]
    chunk_cells: list[int]
    first_token_s: float
    token_s: float
    peak_memory_bytes: int
    device_memory_bytes: int
    load_before: float | None


def run_task(task: SpeedTask) -> SpeedFigures:
    """Prefill, compress and decode once.

    Raises:
        ModelError: the files do not load. MemoryBudgetError: the cells do not fit.
    """
    load_before = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
    compression, runtime = CompressionConfig(**task.compression), RuntimeConfig(**task.runtime)
    source = resolve_model(task.model, Path(task.mmproj) if task.mmproj else None)
    with Model(source.model, n_gpu_layers=runtime.n_gpu_layers) as model:
        manifest = manifest_of(source)
        plan = _plan(task, model, manifest, compression, runtime)
        with _context(model, plan.n_ctx, runtime) as context:
            engine = Engine(
                context,
                RetakeConfig(compression=compression, runtime=runtime),
                n_text_reserve=plan.shape.n_text_reserve,
            )
            engine.prefill_text(manifest.prompt.before)
            builder = ChunkBuilder(
                model, manifest.positions, engine.next_position, newline=newline_of(manifest)
            )
            blocks = frame_blocks(
                _features(task),
                plan.shape.steps_per_chunk,
                per_patch=True,
                n_embd=model.n_embd,
            )
            results, cells, start = [], [cells_used(context)], time.perf_counter()
            for _, result in prefill(engine, builder, blocks, plan.keep_ratio):
                results.append(result)
                cells.append(cells_used(context))
            total_s = time.perf_counter() - start
            n_cells = cells_used(context)
            prompt = manifest.prompt.question(QUESTION)
            first_token_s, token_s = _decode(context, engine, prompt, task)
            per_cell = kv_bytes_per_cell(model, runtime)
            return SpeedFigures(
                n_tokens=sum(result.n_cells for result in results),
                n_cells=n_cells,
                n_ctx=context.n_ctx,
                kv_bytes=int(n_cells * per_cell),
                kv_allocated_bytes=int(context.n_ctx * per_cell),
                seconds=_stages(results) | {"video in all": total_s},
                chunk_s=[round(result.seconds["prefill"], 4) for result in results],
                chunk_tokens=[result.n_cells for result in results],
                chunk_cells=cells[:-1],
                first_token_s=first_token_s,
                token_s=token_s,
                peak_memory_bytes=peak_memory_bytes(),
                device_memory_bytes=sum(
                    part.weights + part.cells + part.compute
                    for part in buffers_of(context)
                    if part.device
                ),
                load_before=load_before,
            )


def _stages(results: list[ChunkResult]) -> dict[str, float]:
    stages = ("prefill", "score", "select", "compact")
    return {stage: sum(r.seconds.get(stage, 0.0) for r in results) for stage in stages}


def _plan(
    task: SpeedTask,
    model: Model,
    manifest: ModelManifest,
    compression: CompressionConfig,
    runtime: RuntimeConfig,
) -> CellBudget:
    last = (task.n_steps - 1) * task.step_s
    shape = VideoShape(
        n_steps=task.n_steps,
        vision_per_step=task.rows * task.cols,
        text_per_step=n_text_per_step(model, manifest.positions, task.n_steps - 1, last, last),
        n_before=len(model.tokenize(manifest.prompt.before)),
        n_text_reserve=len(model.tokenize(manifest.prompt.question(QUESTION))) + task.n_decode + 8,
        steps_per_chunk=max(1, compression.prefill_chunk_frames // task.frames_per_step),
    )
    return plan_memory(shape, compression, runtime, kv_bytes_per_cell(model, runtime))


def _context(model: Model, n_ctx: int, runtime: RuntimeConfig) -> Context:
    return Context(model, **context_settings(runtime, n_ctx, n_seq_max=1))


def _features(task: SpeedTask) -> Iterator[VisionFeatures]:
    """The grid frames a few at a time, so that no more of them are in memory (nor mapped)."""
    shape = (-1, task.rows * task.cols, task.n_embd)
    n_bytes = task.n_values_per_step * 4
    n_encoded = Path(task.features).stat().st_size // n_bytes
    with open(task.features, "rb") as file:
        done = 0
        while done < task.n_steps:
            first = done % n_encoded
            count = min(8, task.n_steps - done, n_encoded - first)
            file.seek(first * n_bytes)
            part = np.fromfile(file, np.float32, count * task.n_values_per_step).reshape(shape)
            times_s = np.arange(done, done + count, dtype=np.float64) * task.step_s
            yield VisionFeatures(part, times_s, times_s + task.step_s / 4, task.rows, task.cols)
            done += count


def _decode(context: Context, engine: Engine, prompt: str, task: SpeedTask) -> tuple[float, float]:
    """Return the seconds to the first token, and the median seconds of a token after it."""
    tokens = engine.model.tokenize(prompt)
    position = engine.next_position
    start = time.perf_counter()
    context.decode_tokens(tokens, position)
    token = int(context.logits().argmax())
    first_token_s, spent = time.perf_counter() - start, []
    for i in range(task.n_decode):
        start = time.perf_counter()
        context.decode_tokens([token], position + len(tokens) + i)
        token = int(context.logits().argmax())
        spent.append(time.perf_counter() - start)
    return first_token_s, statistics.median(spent)


def main() -> None:
    """Run the task on stdin; an error of the user's making ends in its class and sentence."""
    try:
        json.dump(asdict(run_task(SpeedTask(**json.load(sys.stdin)))), sys.stdout)
    except RetakeError as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
