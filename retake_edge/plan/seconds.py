"""Estimate a run's seconds from those of earlier runs.

Each stage's seconds are held against a number that says how much work it was (operations, bytes,
pixels), so that what one video taught holds for another length, size and keep ratio. Kept in the
user's cache folder, by what the speed depends on; every run that saves its session adds to it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from retake_edge.compress.policies import kept_vision
from retake_edge.config import RetakeConfig
from retake_edge.files import JsonCache
from retake_edge.llama.gguf import GgufFile
from retake_edge.plan.frames import CellBudget, FramePlan
from retake_edge.plan.memory import patches_per_step
from retake_edge.video.read import VideoInfo

STAGES = ("decode", "encode", "prefill", "answer", "attention")
QUESTION_TOKENS = 32
"""Tokens of a question as plans assume it."""

_MAX_KEYS = 200
# Older runs count half as much as the newest one: a machine's speed changes, noise averages out.
_OLD_SHARE = 0.5


@dataclass(frozen=True)
class Work:
    """The amount of work, by stage.

    `decode`: pixels of the frames that the decoder passes; `encode`, `prefill`: operations;
    `question`: those of a question; `answer`: bytes read for each token of an answer. `attention`:
    the part of `prefill` that is attention to cells before, which runs at a speed of its own.
    """

    decode: float
    encode: float
    prefill: float
    question: float
    answer: float
    attention: float = 0.0

    def done(self, encoded: float, prefilled: float) -> Work:
        """Return the work that was left where only these shares of it were done."""
        return replace(
            self,
            encode=self.encode * encoded,
            prefill=self.prefill * prefilled,
            attention=self.attention * prefilled,
        )


def work_of(
    header: GgufFile,
    mmproj: GgufFile,
    cells: CellBudget,
    frames: FramePlan,
    video: VideoInfo,
) -> Work:
    """Return the work of reading a video, of a question, and of each token of an answer."""
    seen_s = max(frames.times_s[1] - frames.times_s[0], video.frame_s)
    n_decoded = video.n_frames * min(1.0, seen_s / max(video.duration_s, 1e-9))
    shape = cells.shape
    patches = patches_per_step(mmproj, frames)
    n_dense, per_pair, weights = language_work(header)
    per_cell = cells.kv_bytes / max(1, cells.n_ctx)
    n_cells = shape.n_before + cells.n_kept_cells
    dense, attention = _prefill_work(cells, n_dense, per_pair)
    return Work(
        decode=n_decoded * video.width_px * video.height_px,
        encode=frames.n_steps * encode_work(mmproj, patches),
        prefill=dense + attention,
        question=QUESTION_TOKENS * (2.0 * n_dense + 4.0 * per_pair * n_cells),
        answer=weights + per_cell * n_cells,
        attention=attention,
    )


def encode_work(mmproj: GgufFile, n_patches: int) -> float:
    """Return the operations of the vision tower for one grid frame."""
    n_tower = _parameters(mmproj, ("v.", "mm."))
    width = int(mmproj.get("clip.vision.embedding_length", 1024))
    n_blocks = int(mmproj.get("clip.vision.block_count", 1))
    return 2.0 * n_tower * n_patches + 4.0 * n_blocks * width * n_patches**2


def language_work(header: GgufFile) -> tuple[int, float, int]:
    """Return what a token costs: weights it meets in prefill, attention's width, bytes read to
    generate it. The last layer's feed-forward network is no part of prefill: llama.cpp computes it
    for output rows only.
    """
    last = f"blk.{int(header.get('.block_count', 1)) - 1}.ffn"
    weights = sum(size for name, size in header.tensor_bytes.items() if "token_embd" not in name)
    n_dense = _parameters(header, ("blk.",)) - _parameters(header, (last,))
    return n_dense, _attention_width(header), weights


def _prefill_work(cells: CellBudget, n_dense: int, per_pair: float) -> tuple[float, float]:
    """Operations of all chunks: the tokens' own, and their attention to the cells before them."""
    shape, dense, attention, kept = cells.shape, 0.0, 0.0, cells.shape.n_before
    for steps in shape.chunk_steps():
        n_vision, n_text = steps * shape.vision_per_step, steps * shape.text_per_step
        n = n_vision + n_text
        dense += 2.0 * n_dense * n
        attention += 4.0 * per_pair * n * (kept + n / 2)
        kept += kept_vision(n_vision, cells.keep_ratio) + n_text
    return dense, attention


def _attention_width(header: GgufFile) -> float:
    """Query width times layers: what one token's attention to one cell costs."""
    heads = header.get(".attention.head_count", 1)
    n_layer = int(header.get(".block_count", 1))
    mean = sum(heads) / len(heads) if isinstance(heads, list) else float(heads)
    width = header.get(".attention.key_length") or int(header.get(".embedding_length", 1)) / max(
        1.0, mean
    )
    return mean * float(width) * n_layer


def _parameters(file: GgufFile, prefixes: tuple[str, ...]) -> int:
    """Weights that each token is multiplied with; of experts, those that it is sent to."""
    used, of = file.get(".expert_used_count"), file.get(".expert_count")
    share = used / of if used and of else 1.0
    total = 0.0
    for name, shape in file.tensor_shapes.items():
        if name.startswith(prefixes) and len(shape) > 1:
            total += math.prod(shape) * (share if "_exps" in name else 1.0)
    return int(total)


def calibration_key(
    header: GgufFile, mmproj: GgufFile, config: RetakeConfig, devices: list[str]
) -> str:
    """Return the name of what the speed depends on: shapes, types, devices, threads."""
    runtime = config.runtime
    facts = {
        "model": [
            sorted((n, *s) for n, s in file.tensor_shapes.items()) for file in (header, mmproj)
        ],
        "types": [sorted(file.tensor_types.items()) for file in (header, mmproj)],
        "devices": devices,
        "runtime": [
            *(runtime.n_threads, runtime.n_gpu_layers, runtime.mmproj_offload),
            *(runtime.type_k, runtime.type_v, runtime.n_ubatch),
        ],
        "policy": config.compression.policy,
    }
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


class Calibration:
    """Seconds of earlier runs, in a JSON file; one that cannot be read or written is ignored.

    Held as key -> stage -> [work, seconds]. Without a folder nothing is known nor kept.
    """

    def __init__(self, cache_dir: Path | None) -> None:
        path = cache_dir / "calibration.json" if cache_dir else None
        self._known = JsonCache(path, _MAX_KEYS)

    def seconds(self, key: str, work: Work, n_answer: int) -> dict[str, float] | None:
        """Return the seconds expected of each stage that was measured, None before any was.

        'answer': a question and `n_answer` tokens.
        """
        rates = {stage: seconds / amount for stage, (amount, seconds) in self._entry(key).items()}
        found = {stage: rate * getattr(work, stage) for stage, rate in rates.items()}
        if "attention" in found:  # told apart where a machine was measured, not a model
            found["prefill"] = rates["prefill"] * (work.prefill - work.attention)
            found["prefill"] += found.pop("attention")
        if "answer" in found:
            found["answer"] = found["answer"] * n_answer + rates.get("prefill", 0) * work.question
        return found or None

    def knows(self, key: str) -> bool:
        """Return whether anything was measured under a key."""
        return bool(self._entry(key))

    def add(self, key: str, work: Work, seconds: Mapping[str, float], n_answer: int = 0) -> None:
        """Learn from a run: seconds by stage, 'answer' for `n_answer` tokens."""
        entry = self._entry(key)
        for stage in STAGES:
            amount = getattr(work, stage) * (n_answer if stage == "answer" else 1)
            if stage in seconds and amount > 0 and seconds[stage] > 0:
                old_work, old_s = entry.get(stage, (0.0, 0.0))
                entry[stage] = (
                    _OLD_SHARE * old_work + amount,
                    _OLD_SHARE * old_s + seconds[stage],
                )
        self._known.put(key, entry)

    def _entry(self, key: str) -> dict[str, tuple[float, float]]:
        """A key's stages; whatever else the file holds is left out."""
        found = self._known.get(key)
        entry = {}
        for stage, pair in (found if isinstance(found, dict) else {}).items():
            if stage in STAGES and _is_rate(pair):
                entry[stage] = (float(pair[0]), float(pair[1]))
        return entry


def _is_rate(pair: Any) -> bool:
    is_pair = isinstance(pair, list) and len(pair) == 2
    return is_pair and all(isinstance(n, int | float) and n > 0 for n in pair)


def measured(seconds: Mapping[str, float]) -> dict[str, float]:
    """Return a run's seconds by the stages of a plan; compression belongs to prefill."""
    parts = ("prefill", "score", "select", "compact")
    found = {stage: seconds[stage] for stage in ("decode", "encode") if stage in seconds}
    if "prefill" in seconds:
        found["prefill"] = sum(seconds.get(part, 0.0) for part in parts)
    return found
