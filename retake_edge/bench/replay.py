"""Prefill one video's features again and again, each time compressed by another policy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from retake_edge.bench.variants import Variant
from retake_edge.compress.budgets import Ledger
from retake_edge.compress.coverage import evenly_spaced
from retake_edge.compress.dpselect import select_keyframes
from retake_edge.compress.policies import kept_vision
from retake_edge.config import CompressionConfig, GenerationConfig, RetakeConfig, RuntimeConfig
from retake_edge.engine.chunks import ChunkBuilder, FrameBlock, frame_blocks, n_text_per_step
from retake_edge.engine.engine import ChunkResult, Engine
from retake_edge.engine.keyframes import n_keyframes
from retake_edge.engine.prefill import prefill
from retake_edge.llama.context import Context
from retake_edge.llama.model import Ints, Model
from retake_edge.models.manifest import ModelManifest
from retake_edge.plan.choose import choose_frames, in_whole_video
from retake_edge.vision.encoder import VisionFeatures, newline_of

ANSWER_TOKENS = 12
N_TEXT_RESERVE = 96


@dataclass(frozen=True)
class ReplaySettings:
    """Settings of all replays: `steps_per_chunk` grid frames lie between two compressions."""

    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    steps_per_chunk: int = 16
    n_queries: int = 128
    seed: int = 0


@dataclass(frozen=True)
class Replayed:
    """A prefilled engine, and where its cells come from (grid frames of the WHOLE video).

    `cell_frames` int32 [n_layer, n_kept]: -1 - frame for clock text.
    """

    engine: Engine
    results: list[ChunkResult]
    cell_frames: Ints

    def seconds(self, stage: str) -> float:
        """Return the time that a stage took over all chunks."""
        return sum(result.seconds.get(stage, 0.0) for result in self.results)


def replay(
    context: Context,
    manifest: ModelManifest,
    features: VisionFeatures,
    variant: Variant,
    keep_ratio: float,
    settings: ReplaySettings,
    question: str = "",
) -> Replayed:
    """Empty the context and prefill the video under a variant at a keep ratio.

    `question`: the one for which a guided variant reads it.

    Raises:
        MemoryBudgetError: the context has too few cells.
    """
    context.clear()
    n_text = n_clock_tokens(context.model, manifest, features)
    frames = kept_frames(features, variant, keep_ratio, n_text, context.model.n_embd)
    prompt = manifest.prompt.question(question) if variant.is_guided else ""
    engine = Engine(
        context,
        _config(variant, settings),
        n_text_reserve=N_TEXT_RESERVE,
        guide=context.model.tokenize(prompt) if prompt else (),
        ledger=_ledger(variant, len(frames), features.embeddings.shape[1], keep_ratio, settings),
    )
    engine.prefill_text(manifest.prompt.before)
    builder = ChunkBuilder(
        context.model, manifest.positions, engine.next_position, newline=newline_of(manifest)
    )
    ratio = variant.keep_ratio(keep_ratio)
    blocks = _blocks(features, frames, context.model, settings)
    results = [result for _, result in prefill(engine, builder, blocks, ratio)]
    cells = np.concatenate([result.cell_frames for result in results], axis=1)
    return Replayed(engine, results, in_whole_video(cells, frames))


def _ledger(
    variant: Variant, n_steps: int, n_tokens: int, keep_ratio: float, settings: ReplaySettings
) -> Ledger | None:
    """The cells that chunks share by what is new in them, where the variant has them do so."""
    ratio = variant.keep_ratio(keep_ratio)
    if variant.budgets == "even" or ratio >= 1:
        return None
    full, rest = divmod(n_steps, settings.steps_per_chunk)
    steps = [settings.steps_per_chunk] * full + [rest] * (rest > 0)
    return Ledger.of([n * n_tokens for n in steps], ratio)


def _config(variant: Variant, settings: ReplaySettings) -> RetakeConfig:
    return RetakeConfig(
        compression=CompressionConfig(
            policy=variant.policy,
            pivot=variant.pivot,
            n_queries=settings.n_queries,
            seed=settings.seed,
        ),
        runtime=settings.runtime,
        generation=GenerationConfig(max_tokens=ANSWER_TOKENS, temperature=0),
    )


def _blocks(
    features: VisionFeatures, frames: Ints, model: Model, settings: ReplaySettings
) -> Iterator[FrameBlock]:
    chosen = VisionFeatures(
        features.embeddings[frames],
        features.times_s[frames],
        features.middle_s[frames],
        features.rows,
        features.cols,
    )
    steps = settings.steps_per_chunk
    return frame_blocks(iter([chosen]), steps, per_patch=True, n_embd=model.n_embd)


def kept_frames(
    features: VisionFeatures, variant: Variant, keep_ratio: float, n_text: int, n_embd: int
) -> Ints:
    """Return the grid frames that are prefilled, int32 ascending.

    All of them, unless the variant drops frames: then its share, or as many as have together the
    cells that eviction at this keep ratio would leave, `n_text` tokens of clock text a frame
    included.
    """
    n_frames, n_tokens = features.embeddings.shape[:2]
    if not variant.frames or keep_ratio >= 1:
        return np.arange(n_frames, dtype=np.int32)
    n_cells = kept_vision(n_frames * n_tokens, keep_ratio) + n_frames * n_text
    n_keep = max(1, min(n_frames, round(n_cells / (n_tokens + n_text))))
    if variant.share is not None:
        n_keep = n_keyframes(n_frames, max(variant.share, keep_ratio))
    if variant.frames == "uniform":
        return evenly_spaced(n_frames, n_keep)
    if variant.frames == "different":
        return choose_frames([features], n_frames, n_keep, n_embd).index
    seen = features.embeddings[..., :n_embd]
    selected: Ints = select_keyframes(seen, n_keep, per_patch=False).selected[0]
    return selected


def n_clock_tokens(model: Model, manifest: ModelManifest, features: VisionFeatures) -> int:
    """Return how many tokens of clock text and learned rows a grid frame has."""
    last, middle = float(features.times_s[-1]), float(features.middle_s[-1])
    return n_text_per_step(model, manifest.positions, len(features.times_s) - 1, last, middle)
