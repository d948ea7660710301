"""PivotKV through llama.cpp's public API alone: slow, exact, and what the native path must equal.

A chunk's cells leave the cache as llama.cpp's own state blob, each layer keeps its rows and has
its keys turned in numpy, and the blob goes back. Queries come from the graph's own tensors
through the evaluation callback. It costs a round trip of the chunk to the host.
"""

from __future__ import annotations

import ctypes
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retake_edge.errors import ModelError
from retake_edge.golden.reference.cache import Rope, chunk_scores, make_rope, move_keys
from retake_edge.golden.runners.blob import Bytes, SequenceState, parse_sequence_state
from retake_edge.golden.runners.case import Floats, Ints, Move, Select
from retake_edge.golden.runners.native import NativeRunner, shared_positions
from retake_edge.llama import library

_SCRATCH_SEQUENCE = 1
_FLOAT_TYPES = {0: np.float32, 1: np.float16}


class OracleRunner(NativeRunner):
    """Runs a case like `NativeRunner`, its chunks without the native library's own calls.

    Scores and moved keys need K in f32 or f16 (quantized K is stored transformed); kept rows may
    be of any type. A chunk must fit one ubatch.

    Raises:
        ModelError: the model file lacks what the rotary embedding needs.
    """

    def __init__(self, path: Path, **settings: Any) -> None:
        self._queries: dict[int, Floats] = {}
        # The callback must outlive the context.
        self._callback = _query_callback(self._queries)
        super().__init__(path, n_seq_max=2, cb_eval=self._callback, **settings)
        self._rope = _read_rope(path, self._model.rope_kind)
        self._has_mrope = self._model.n_pos_per_embd > 1

    def chunk(
        self, rows: Floats, ids: Ints, select: Select, move: Move, *, unrotate: bool
    ) -> tuple[Floats, Ints, Ints]:
        """Decode a chunk, score it in numpy, and write back what each layer keeps."""
        shared = shared_positions(ids)
        self._queries.clear()
        self._context.decode_embeddings(rows, shared if self._has_mrope else shared[0])
        first, end = int(shared[0].min()), int(shared[0].max()) + 1
        self._context.copy(0, _SCRATCH_SEQUENCE, first, end)
        blob = self._context.sequence_state(_SCRATCH_SEQUENCE)
        state = parse_sequence_state(blob)
        # A chunk that starts mid-frame shares its first t with cells of the chunk before.
        n_before = len(state.cells) - len(rows)
        assert (state.cells[n_before:, 0] == shared[0]).all(), "cells are not in token order"
        chunk = state.take(*_all_layers(np.arange(n_before, len(state.cells)), state))
        scores = np.stack(
            [self._scores(chunk, layer, ids, unrotate) for layer in range(self.n_layer)]
        )
        kept = select(scores)
        moved = move(kept)
        chunk = chunk.take(kept, moved[:, 0].max(axis=0))
        self._turn(chunk, ids, kept, moved)
        state = state.take(*_all_layers(np.arange(n_before), state)).followed_by(chunk)
        for sequence in (0, _SCRATCH_SEQUENCE):
            self._context.remove(first, end, seq=sequence)
        self._context.set_sequence_state(state.to_bytes(), _SCRATCH_SEQUENCE)
        self._context.copy(_SCRATCH_SEQUENCE, 0)
        self._context.remove(seq=_SCRATCH_SEQUENCE)
        return scores, kept, moved

    def state(self) -> bytes:
        """Return the cache's blob."""
        return self._context.sequence_state()

    def _turn(self, chunk: SequenceState, ids: Ints, kept: Ints, moved: Ints) -> None:
        """Re-rotate kept keys from where they stood in `ids` to `moved`, in place."""
        old = np.take_along_axis(ids, kept[:, None].astype(np.int64), axis=2)
        for layer in range(self.n_layer):
            if (moved[layer] != old[layer]).any():
                keys = self._keys(chunk, layer, kept.shape[1])
                turned = move_keys(keys, self._rope, old[layer], moved[layer])
                chunk.k[layer] = _as_rows(turned, chunk.k_types[layer])

    def _scores(self, state: SequenceState, layer: int, ids: Ints, unrotate: bool) -> Floats:
        n = ids.shape[2]
        d = 2 * len(self._rope.axis)
        q = self._queries[layer].reshape(n, -1, d).transpose(1, 0, 2)
        k = self._keys(state, layer, n)
        if unrotate:
            q, k = (self._rope.rotate(x, ids[layer], back=True) for x in (q, k))
        return chunk_scores(q, k)

    def _keys(self, state: SequenceState, layer: int, n: int) -> Floats:
        """A layer's keys, f32 [n_kv, n, d]."""
        kind = _FLOAT_TYPES.get(state.k_types[layer])
        assert kind is not None, "keys in f32 or f16 only"
        rows = np.ascontiguousarray(state.k[layer]).view(kind).astype(np.float32)
        return rows.reshape(n, -1, 2 * len(self._rope.axis)).transpose(1, 0, 2)


def _all_layers(rows: npt.NDArray[np.integer], state: SequenceState) -> tuple[Ints, Ints]:
    """The same rows of every layer, and their positions."""
    return np.tile(rows, (len(state.k), 1)), state.cells[rows, 0]


def _as_rows(keys: Floats, kind: int) -> Bytes:
    rows = keys.transpose(1, 0, 2).reshape(keys.shape[1], -1)
    return np.ascontiguousarray(rows.astype(_FLOAT_TYPES[kind])).view(np.uint8)


def _read_rope(path: Path, kind: str) -> Rope:
    from gguf import GGUFReader

    fields = GGUFReader(path).fields
    arch = fields["general.architecture"].contents()

    def value(key: str, default: Any = None) -> Any:
        field = fields.get(f"{arch}.{key}")
        if field is None and default is None:
            raise ModelError(f"{path} has no field {arch}.{key}.")
        return default if field is None else field.contents()

    head_dim = value("embedding_length") // value("attention.head_count")
    head_dim = value("attention.key_length", head_dim)
    sections = tuple(value("rope.dimension_sections", ()))
    return make_rope(kind, head_dim, value("rope.freq_base", 10000.0), sections)


@lru_cache(maxsize=1)
def _ggml() -> ctypes.CDLL:
    """The ggml that libllama uses: the same file, so the same instance."""
    library.load_libraries()
    path = min(library.library_dir().glob("*ggml-base.*"), key=lambda p: len(p.name))
    lib = ctypes.CDLL(str(path))
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    lib.ggml_get_name.argtypes, lib.ggml_get_name.restype = [pointer], ctypes.c_char_p
    lib.ggml_nbytes.argtypes, lib.ggml_nbytes.restype = [pointer], size
    lib.ggml_backend_tensor_get.argtypes = [pointer, pointer, size, size]
    lib.ggml_backend_tensor_get.restype = None
    return lib


def _query_callback(queries: dict[int, Floats]) -> Any:
    """A callback that stores each layer's last Qcur: the rotated one, which attention reads."""
    ggml = _ggml()

    def evaluate(tensor: int, is_question: bool, _user_data: object) -> bool:
        name = re.fullmatch(rb"Qcur-(\d+)", ggml.ggml_get_name(tensor))
        if is_question or not name:
            return bool(name)
        values = np.empty(ggml.ggml_nbytes(tensor) // 4, np.float32)
        ggml.ggml_backend_tensor_get(tensor, values.ctypes.data, 0, values.nbytes)
        queries[int(name[1])] = values
        return True

    return library.load_libraries().ggml_backend_sched_eval_callback(evaluate)
