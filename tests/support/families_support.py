"""Run a toy of a model family over the clip, all the way, and note what passes each stage.

Nothing is computed a second way here: the reader, the projector, the chunk builder and the engine
are those of `retake-edge ask`, and what goes into llama.cpp is written down as it goes in.
"""

from __future__ import annotations

import ctypes
import json
import struct
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from retake_edge.config import CompressionConfig, RetakeConfig, RuntimeConfig, SamplingConfig
from retake_edge.llama import library
from retake_edge.llama.context import Context
from retake_edge.models.manifest import ModelFiles
from retake_edge.progress import no_progress
from retake_edge.session.ingest import plan_of, read_video
from retake_edge.session.prefilled import OpenRequest
from retake_edge.vision.encoder import VisionEncoder, VisionFeatures

FOLDER = Path(__file__).parents[1] / "golden" / "families"
CLIP = FOLDER / "clip.mp4"
Array = npt.NDArray[Any]
FEATURE = -1
"""Stands in `Run.tokens` for a row of features."""


@dataclass(frozen=True)
class Golden:
    """What the family's processor and model made of a case (`scripts/parity`)."""

    family: str
    case: str
    question: str
    asked: dict[str, Any]
    repeat: int
    mean: Array
    std: Array
    stages: dict[str, Array]


@dataclass
class Run:
    """What passed through retake-edge.

    `tokens` int [n]: FEATURE for a vision token; `positions` int [3, n] or [n]; `frames` u8 as
    they left the decoder; `pixels`: f32 [3, H, W] as the vision tower got them, frame by frame;
    `features` f32 [T, N, C]; `logits` f32 [n_vocab] after the last token.
    """

    tokens: list[int] = field(default_factory=list)
    positions: list[Array] = field(default_factory=list)
    frames: list[Array] = field(default_factory=list)
    pixels: list[Array] = field(default_factory=list)
    features: list[VisionFeatures] = field(default_factory=list)
    logits: Array | None = None


def cases() -> list[tuple[str, str]]:
    """Return (family, case) of all goldens."""
    return [
        (folder.parent.name, case)
        for folder in sorted(FOLDER.glob("*/cases.json"))
        for case in json.loads(folder.read_text())["cases"]
    ]


@lru_cache(maxsize=1)
def golden(family: str, case: str) -> Golden:
    """Read the golden data of a case."""
    document = json.loads((FOLDER / family / "cases.json").read_text())
    asked = document["cases"][case]
    return Golden(
        family,
        case,
        document["question"],
        asked["retake"],
        asked["repeat"],
        np.array(document["mean"]),
        np.array(document["std"]),
        dict(np.load(FOLDER / family / f"{case}.npz")),
    )


def files(family: str) -> ModelFiles:
    """Return a family's toy."""
    return ModelFiles(FOLDER / family / "model.gguf", FOLDER / family / "mmproj.gguf")


def settings(asked: dict[str, Any], **compression: Any) -> RetakeConfig:
    """Return settings without loss: f32 cells, all of them kept, chunk by chunk."""
    return RetakeConfig(
        sampling=SamplingConfig(**asked),
        compression=CompressionConfig(
            **{"policy": "none", "prefill_chunk_frames": 4, **compression}
        ),
        runtime=RuntimeConfig(type_k="f32", type_v="f32", n_threads=1, n_gpu_layers=0),
    )


@lru_cache(maxsize=2)
def run(family: str, case: str, own_features: bool = True) -> Run:
    """Prefill the clip, ask the question, and return what was seen on the way.

    Without `own_features` the golden features take their place, so that the language model's part
    is seen alone. Attention is computed without llama.cpp's flash attention, which rounds to half
    precision on a CPU; quantized cells need it, f32 ones do not.
    """
    expected, seen = golden(family, case), Run()
    tower = TowerInput(seen.pixels)
    with pytest.MonkeyPatch.context() as patch:
        _watch_tower(patch, tower)
        _watch_encoder(patch, seen, None if own_features else expected.stages["features"])
        _watch_context(patch, seen)
        config = settings(expected.asked)
        config = replace(config, runtime=replace(config.runtime, flash_attention="off"))
        request = OpenRequest(CLIP, files(family), config, 300, no_progress)
        prefilled = read_video(request, plan_of(request))
        with prefilled.resources:
            prompt = prefilled.manifest.prompt.question(expected.question)
            answer: Any = prefilled.engine.generate(prompt)
            next(answer, None)  # its logits are those of the prompt's last token
            seen.logits = prefilled.engine.context.logits()
            answer.close()
    return seen


def _watch_encoder(patch: pytest.MonkeyPatch, seen: Run, instead: Array | None) -> None:
    encode = VisionEncoder.encode

    def watched(self: VisionEncoder, frames: Array, *more: Any) -> VisionFeatures:
        seen.frames.append(frames)
        features = encode(self, frames, *more)
        if instead is not None:
            first = sum(len(part.embeddings) for part in seen.features)
            rows = instead[first : first + len(features.embeddings)]
            features = replace(features, embeddings=rows)
        seen.features.append(features)
        return features

    patch.setattr(VisionEncoder, "encode", watched)


def _watch_context(patch: pytest.MonkeyPatch, seen: Run) -> None:
    decode_tokens, decode_embeddings = Context.decode_tokens, Context.decode_embeddings

    def tokens_watched(self: Context, tokens: list[int], position: int, **more: Any) -> None:
        seen.tokens.extend(tokens)
        places = np.arange(position, position + len(tokens))
        seen.positions.append(np.tile(places, (3, 1)) if self.model.n_pos_per_embd == 4 else places)
        decode_tokens(self, tokens, position, **more)

    def rows_watched(self: Context, rows: Array, positions: Array, **more: Any) -> None:
        seen.tokens.extend(_tokens_of(self, rows))
        seen.positions.append(positions[:3] if positions.ndim == 2 else positions)
        decode_embeddings(self, rows, positions, **more)

    patch.setattr(Context, "decode_tokens", tokens_watched)
    patch.setattr(Context, "decode_embeddings", rows_watched)


def _tokens_of(context: Context, rows: Array) -> list[int]:
    """Tell text between frames from features: its rows stand in the embedding table."""
    model = context.model
    table = {
        row.tobytes(): i for i, row in enumerate(model.embed_tokens(list(range(model.n_vocab))))
    }
    return [table.get(row.tobytes(), FEATURE) for row in rows]


class TowerInput:
    """Copies the pictures that the vision tower's first convolution is about to read."""

    def __init__(self, pixels: list[Array]) -> None:
        self._pixels = pixels
        self._base = ctypes.CDLL(str(next(library.library_dir().glob("*ggml-base.*"))))
        self._base.ggml_get_name.restype = ctypes.c_char_p
        self._base.ggml_get_name.argtypes = [ctypes.c_void_p]
        self._base.ggml_backend_tensor_get.argtypes = [ctypes.c_void_p] * 2 + [ctypes.c_size_t] * 2

    def on_tensor(self, tensor: int, asked: bool, _data: object) -> bool:
        """Be told of a tensor that is about to be computed (`asked`)."""
        source = _source(tensor, 1)
        if asked and source and self._base.ggml_get_name(source).startswith(b"inp_raw"):
            self._pixels.append(self._copied(source))
        return not asked

    def _copied(self, tensor: int) -> Array:
        width, height, channels, n = struct.unpack("4q", ctypes.string_at(tensor + 16, 32))
        data = np.empty((n, channels, height, width), np.float32)
        self._base.ggml_backend_tensor_get(tensor, data.ctypes.data, 0, data.nbytes)
        return np.asarray(data[0])


def _source(tensor: int, index: int) -> int:
    """src[index] of a ggml_tensor: 152 bytes of type, buffer, ne, nb, op, its parameters, flags."""
    return int(struct.unpack("Q", ctypes.string_at(tensor + 152 + 8 * index, 8))[0])


def _watch_tower(patch: pytest.MonkeyPatch, tower: TowerInput) -> None:
    mtmd, llama = library.load_mtmd(), library.load_libraries()
    defaults = mtmd.mtmd_context_params_default
    callback = llama.ggml_backend_sched_eval_callback(tower.on_tensor)

    def watched() -> Any:
        params = defaults()
        params.cb_eval = callback
        return params

    patch.setattr(mtmd, "mtmd_context_params_default", watched)
