"""One prefill of given features with one setting, in a process of its own.

A process of its own, because peak memory is known for whole processes only. Reads a task as JSON
from stdin and writes its figures as JSON to stdout:

    python -m retake_edge.bench.speed_run < task.json
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from retake_edge.config import PivotKVConfig, RetakeConfig, RuntimeConfig
from retake_edge.device_memory import buffers_of, peak_memory_bytes
from retake_edge.engine import ChunkResult, Engine
from retake_edge.errors import RetakeError
from retake_edge.families import manifest_of
from retake_edge.kvc import cells_used
from retake_edge.llama import Context, Model
from retake_edge.models import ModelManifest, resolve_model
from retake_edge.planner import MemoryPlan, VideoShape, kv_bytes_per_cell, plan_memory
from retake_edge.prefill import ChunkBuilder, clock_tokens, frame_blocks
from retake_edge.vision import VisionFeatures

QUESTION = "What happens in this video, and when?"


@dataclass(frozen=True)
class SpeedTask:
    """What one process does. `model`, `mmproj`: as on the command line; `features`: a file of
    f32 [T, rows * cols, n_embd], grid frames, each `step_s` seconds after the one before;
    `n_decode` tokens are generated."""

    model: str
    mmproj: str | None
    features: str
    rows: int
    cols: int
    n_embd: int
    step_s: float
    n_decode: int
    frames_per_step: int
    pivotkv: dict[str, Any]
    runtime: dict[str, Any]

    @property
    def n_values_per_step(self) -> int:
        """Numbers in one grid frame's features."""
        return self.rows * self.cols * self.n_embd


@dataclass(frozen=True)
class SpeedFigures:
    """What it took. Seconds by stage; `chunk_s`: prefill seconds of each chunk; `kv_bytes` of the
    cells in use after the video, `kv_allocated_bytes` of the whole cache; `device_memory_bytes`:
    weights, cells and compute buffers on GPUs, as llama.cpp counts them (0 without one)."""

    n_tokens: int
    n_cells: int
    n_ctx: int
    kv_bytes: int
    kv_allocated_bytes: int
    seconds: dict[str, float]
    chunk_s: list[float]
    first_token_s: float
    decode_tokens_per_s: float
    peak_memory_bytes: int
    device_memory_bytes: int


def run_task(task: SpeedTask) -> SpeedFigures:
    """Prefill, compress and decode once.

    Raises:
        ModelError: the files do not load. MemoryBudgetError: the cells do not fit.
    """
    pivotkv, runtime = PivotKVConfig(**task.pivotkv), RuntimeConfig(**task.runtime)
    source = resolve_model(task.model, Path(task.mmproj) if task.mmproj else None)
    with Model(source.model, n_gpu_layers=runtime.n_gpu_layers) as llm:
        manifest = manifest_of(source)
        n_steps = Path(task.features).stat().st_size // (task.n_values_per_step * 4)
        plan = _plan(task, n_steps, llm, manifest, pivotkv, runtime)
        with _context(llm, plan.n_ctx, runtime) as context:
            engine = Engine(
                context, RetakeConfig(pivotkv=pivotkv, runtime=runtime), n_after=plan.shape.n_after
            )
            engine.prefill_text(manifest.prompt.before)
            builder = ChunkBuilder(llm, manifest.layout, engine.next_position)
            blocks = frame_blocks(
                _features(task, n_steps),
                plan.shape.steps_per_chunk,
                per_patch=True,
                n_embd=llm.n_embd,
            )
            results, start = [], time.perf_counter()
            for block in blocks:
                chunk = builder.build(block, engine.next_position)
                results.append(engine.prefill_chunk(chunk, plan.keep_ratio))
            total_s = time.perf_counter() - start
            n_cells = cells_used(context)
            first_token_s, per_s = _decode(
                context, engine, manifest.prompt.question(QUESTION), task
            )
            per_cell = kv_bytes_per_cell(llm, runtime)
            return SpeedFigures(
                n_tokens=sum(result.n_cells for result in results),
                n_cells=n_cells,
                n_ctx=context.n_ctx,
                kv_bytes=int(n_cells * per_cell),
                kv_allocated_bytes=int(context.n_ctx * per_cell),
                seconds=_stages(results) | {"video in all": total_s},
                chunk_s=[round(result.seconds["prefill"], 4) for result in results],
                first_token_s=first_token_s,
                decode_tokens_per_s=per_s,
                peak_memory_bytes=peak_memory_bytes(),
                device_memory_bytes=sum(
                    part.weights + part.cells + part.compute
                    for part in buffers_of(context)
                    if part.device
                ),
            )


def _stages(results: list[ChunkResult]) -> dict[str, float]:
    stages = ("prefill", "score", "select", "compact")
    return {stage: sum(r.seconds.get(stage, 0.0) for r in results) for stage in stages}


def _plan(
    task: SpeedTask,
    n_steps: int,
    llm: Model,
    manifest: ModelManifest,
    pivotkv: PivotKVConfig,
    runtime: RuntimeConfig,
) -> MemoryPlan:
    last = (n_steps - 1) * task.step_s
    text = clock_tokens(llm, manifest.layout, n_steps - 1, last, last)
    shape = VideoShape(
        n_steps=n_steps,
        vision_per_step=task.rows * task.cols,
        text_per_step=len(text),
        n_before=len(llm.tokenize(manifest.prompt.before)),
        n_after=len(llm.tokenize(manifest.prompt.question(QUESTION))) + task.n_decode + 8,
        steps_per_chunk=max(1, pivotkv.prefill_chunk_frames // task.frames_per_step),
    )
    return plan_memory(shape, pivotkv, runtime, kv_bytes_per_cell(llm, runtime))


def _context(llm: Model, n_ctx: int, runtime: RuntimeConfig) -> Context:
    return Context(
        llm,
        n_ctx=n_ctx,
        n_batch=runtime.n_batch,
        n_ubatch=runtime.n_ubatch,
        type_k=runtime.type_k,
        type_v=runtime.type_v,
        n_threads=runtime.n_threads,
    )


def _features(task: SpeedTask, n_steps: int) -> Iterator[VisionFeatures]:
    """The grid frames a few at a time, so that no more of them are in memory (nor mapped)."""
    shape = (-1, task.rows * task.cols, task.n_embd)
    with open(task.features, "rb") as file:
        for first in range(0, n_steps, 8):
            count = min(8, n_steps - first) * task.n_values_per_step
            part = np.fromfile(file, np.float32, count).reshape(shape)
            times_s = np.arange(first, first + len(part), dtype=np.float64) * task.step_s
            yield VisionFeatures(part, times_s, times_s + task.step_s / 4, task.rows, task.cols)


def _decode(context: Context, engine: Engine, prompt: str, task: SpeedTask) -> tuple[float, float]:
    """Return the seconds to the first token, and the tokens a second after it."""
    tokens = engine.model.tokenize(prompt)
    position = engine.next_position
    start = time.perf_counter()
    context.decode_tokens(tokens, position)
    token = int(context.logits().argmax())
    first_token_s = time.perf_counter() - start
    start = time.perf_counter()
    for i in range(task.n_decode):
        context.decode_tokens([token], position + len(tokens) + i)
        token = int(context.logits().argmax())
    return first_token_s, task.n_decode / (time.perf_counter() - start)


def main() -> None:
    """Run the task on stdin; an error of the user's making ends in its class and sentence."""
    try:
        json.dump(asdict(run_task(SpeedTask(**json.load(sys.stdin)))), sys.stdout)
    except RetakeError as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
