"""What the native tests share: raw calls of retake-kvc.h, test models, captured q/k, state blobs.

The calls here go straight through ctypes, so that refusals and statuses are seen as they are.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retake_edge.golden import limits
from retake_edge.llama import library
from retake_edge.llama.context import Context
from retake_edge.llama.devices import devices
from retake_edge.llama.model import Model

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]

OK, INVALID, UNSUPPORTED, STATE, SHARED, NOT_FINITE = 0, -1, -2, -3, -4, -5
COMPUTE, CHUNK_LOST = -7, -8
CAPTURE_Q, Q_F32, SCHEDULED, NO_OUT_PROD = 1, 2, 4, 8
UNROTATE = 1
N_LAYER, CAPTURE, N_TOKENS, N_QUERIES, N_EMBD_V, N_POS, N_CELLS, N_CELLS_USED, Q_BYTES = range(9)
IDLE, OPEN, BROKEN = 0, 1, 2

# What is allowed on this machine's processor, and on a device if the models run on one.
ON_DEVICE = any(device.is_gpu for device in devices())


def near(cpu: float, device: float) -> float:
    """Return the limit of a difference, by where the models run."""
    return device if ON_DEVICE else cpu


SCORE = near(limits.CPU_SCORE, limits.DEVICE_SCORE)
"""Scores of given q and k."""

GOLDEN_MODEL = Path(__file__).parents[1] / "golden" / "tiny-f32.gguf"


class Kvc:
    """The C calls on one context; every method returns the status (or count) as it came."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._lib: Any = library.load_libraries()._lib
        self._lib.retake_kvc_query.restype = ctypes.c_int64
        self._lib.retake_kvc_last_error.restype = ctypes.c_char_p
        self._handle = ctypes.c_void_p(context.handle)

    @property
    def reason(self) -> str:
        text: bytes = self._lib.retake_kvc_last_error()
        return text.decode()

    def query(self, key: int) -> int:
        return int(self._lib.retake_kvc_query(self._handle, key))

    def supported(self) -> int:
        return int(self._lib.retake_kvc_supported(self._handle))

    def begin(
        self, n_max: int, *, seq: int = 0, first: int = 0, stride: int = 1, flags: int = CAPTURE_Q
    ) -> int:
        kept = (n_max, first, stride)
        return int(self._lib.retake_kvc_begin(self._handle, seq, *kept, flags))

    def scores(
        self, n: int, *, q: tuple[int, int] | None = None, k0: int = 0, flags: int = 0
    ) -> tuple[int, Floats]:
        """Scores of n tokens from k0 on by the queries q = (q0, nq) (default: the same tokens)."""
        q0, nq = q or (k0, n)
        return self.window_scores((q0, q0 + nq), n, k0=k0, flags=flags)

    def window_scores(
        self, edges: Sequence[int], n: int, *, k0: int = 0, flags: int = 0
    ) -> tuple[int, Floats]:
        """Scores of n tokens from k0 on, by windows of queries between edges."""
        out = np.full((max(self.query(N_LAYER), 0), max(n, 0)), np.nan, np.float32)
        edge = np.array(edges, np.int64).astype(np.int32)  # too large ones wrap around
        windows = (_pointer(out), len(edge) - 1, _pointer(edge))
        return int(self._lib.retake_kvc_scores(self._handle, *windows, k0, n, flags)), out

    def measure(self, edges: Sequence[int], n: int, dim: int) -> tuple[int, Floats, Floats]:
        """Scores by windows and values, in one call."""
        n_layer, edge = self.query(N_LAYER), np.array(edges, np.int32)
        scores, values = np.empty((n_layer, n), np.float32), np.empty((n_layer, n, dim), np.float32)
        arrays = (_pointer(scores), len(edge) - 1, _pointer(edge), _pointer(values), None)
        status = self._lib.retake_kvc_measure(self._handle, *arrays, dim, 0, n, 0)
        return int(status), scores, values

    def attention(self, q: tuple[int, int], c0: int, nc: int) -> tuple[int, Floats]:
        out = np.full((self.query(N_LAYER), max(nc, 0)), np.nan, np.float32)
        return int(self._lib.retake_kvc_attention(self._handle, _pointer(out), *q, c0, nc)), out

    def cells(self, seq: int = 0) -> tuple[Ints, Ints]:
        n = self._lib.retake_kvc_cells(self._handle, seq, 0, None, None)
        assert n >= 0, self.reason
        cell, pos = np.empty(n, np.int32), np.empty(n, np.int32)
        self._lib.retake_kvc_cells(self._handle, seq, n, _pointer(cell), _pointer(pos))
        return cell, pos

    def values(
        self, n: int, dim: int, projection: Floats | None = None, *, k0: int = 0
    ) -> tuple[int, Floats]:
        out = np.full((self.query(N_LAYER), max(n, 0), max(dim, 0)), np.nan, np.float32)
        status = self._lib.retake_kvc_values(
            self._handle, _pointer(out), _pointer(projection), dim, k0, n
        )
        return int(status), out

    def commit(
        self,
        keep: Array | None,
        pos_cell: Array | None,
        *,
        n_keep: int | None = None,
        delta: Array | None = None,
        mask: int = 1,
        bias: Array | None = None,
    ) -> int:
        keep = None if keep is None else np.ascontiguousarray(keep, np.int32)
        delta = None if delta is None else np.ascontiguousarray(delta, np.int32)
        pos_cell = None if pos_cell is None else np.ascontiguousarray(pos_cell, np.int32)
        bias = None if bias is None else np.ascontiguousarray(bias, np.float32)
        if n_keep is None:
            assert keep is not None
            n_keep = keep.shape[1]
        arrays = (_pointer(keep), _pointer(delta), mask, _pointer(pos_cell), _pointer(bias))
        return int(self._lib.retake_kvc_commit(self._handle, n_keep, *arrays))

    def abort(self, *, remove: bool = True) -> int:
        return int(self._lib.retake_kvc_abort(self._handle, ctypes.c_bool(remove)))

    def free(self) -> int:
        return int(self._lib.retake_kvc_free(self._handle))


def _pointer(array: Array | None) -> Any:
    return None if array is None else ctypes.c_void_p(array.ctypes.data)


@contextmanager
def open_context(model: Model, **options: Any) -> Iterator[tuple[Context, Kvc]]:
    """A small context: f32 K/V without flash attention unless told otherwise."""
    defaults: dict[str, Any] = {
        "n_ctx": 256, "n_ubatch": 32, "n_threads": 1,
        "type_k": "f32", "type_v": "f32", "flash_attention": "off",
    }  # fmt: skip
    with Context(model, **(defaults | options)) as context:
        yield context, Kvc(context)


# --- chunks -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Chunk:
    """Embedding rows f32 [n, n_embd_inp] and positions int32 [n_pos, n]."""

    rows: Floats
    positions: Ints

    def __len__(self) -> int:
        return len(self.rows)


def make_chunk(model: Model, n_frames: int, grid: tuple[int, int], t0: int, seed: int) -> Chunk:
    """Random features of n_frames frames from time t0 on; one position an token without M-RoPE."""
    n = n_frames * grid[0] * grid[1]
    rows = np.random.default_rng(seed).standard_normal((n, model.n_embd_inp)).astype(np.float32)
    if model.n_pos_per_embd == 1:
        return Chunk(rows, np.arange(t0, t0 + n, dtype=np.int32)[None])
    t, h, w = np.meshgrid(*map(np.arange, (n_frames, *grid)), indexing="ij")
    positions = np.stack([t0 + t.ravel(), h.ravel() + 2, w.ravel() + 2, np.zeros(n)])
    return Chunk(rows, positions.astype(np.int32))


def decode(context: Context, chunk: Chunk, *, seq: int = 0) -> None:
    """Decode a chunk; it may span several ubatches."""
    context.decode_embeddings(chunk.rows, chunk.positions, seq=seq)


def ask(context: Context, position: int, *, seq: int = 0) -> Floats:
    """Logits after four text tokens at `position`; the cells are removed again."""
    context.decode_tokens([5, 6, 7, 8], position, seq=seq)
    logits = context.logits()
    assert context.remove(position, -1, seq=seq)
    return np.asarray(logits)


# --- what the graph saw -----------------------------------------------------------------------


class AttentionTrace:
    """Collects every layer's rotated q and k during decodes, through llama.cpp's own cb_eval.

    `q(layer)` and `k(layer)` are float64 [n_head, n, d]. Pass `callback` to a context.
    """

    def __init__(self) -> None:
        self._parts: dict[tuple[str, int], list[Floats]] = {}
        self._base = _ggml_base()
        llama = library.load_libraries()
        self.callback = llama.ggml_backend_sched_eval_callback(self._on_tensor)

    def clear(self) -> None:
        self._parts.clear()

    def q(self, layer: int) -> Array:
        return self._stack("Qcur", layer)

    def k(self, layer: int) -> Array:
        return self._stack("Kcur", layer)

    def _stack(self, name: str, layer: int) -> Array:
        parts = np.concatenate(self._parts[name, layer])  # [n, n_head, d]
        return parts.transpose(1, 0, 2).astype(np.float64)

    def _on_tensor(self, tensor: int, asked: bool, _data: object) -> bool:
        if self._base.ggml_op_desc(tensor) != b"ROPE":
            return not asked
        if asked:
            return True
        name, _, layer = self._base.ggml_get_name(tensor).decode().rpartition("-")
        d, n_head, n, _ = _shape(tensor)
        data = np.empty((n, n_head, d), np.float32)
        self._base.ggml_backend_tensor_get(tensor, data.ctypes.data, 0, data.nbytes)
        self._parts.setdefault((name, int(layer)), []).append(data)
        return True


def _ggml_base() -> ctypes.CDLL:
    base = ctypes.CDLL(str(next(library.library_dir().glob("*ggml-base.*"))))
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    base.ggml_get_name.restype = base.ggml_op_desc.restype = ctypes.c_char_p
    base.ggml_get_name.argtypes = base.ggml_op_desc.argtypes = [pointer]
    base.ggml_backend_tensor_get.argtypes = [pointer, pointer, size, size]
    return base


def _shape(tensor: int) -> tuple[int, ...]:
    """ne[4] of a ggml_tensor: type (4 bytes), padding, buffer pointer, then ne."""
    return struct.unpack("4q", ctypes.string_at(tensor + 16, 32))


def expected_scores(q: Array, k: Array, scale: float) -> Array:
    """Column sums of softmax(q k^T) over the keys, mean over heads, float64 [n_k].

    q [n_head, n_q, d], k [n_head_kv, n_k, d].
    """
    k = np.repeat(k, len(q) // len(k), axis=0)
    logits = np.einsum("hqd,hkd->hqk", q, k) * scale
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return np.asarray(weights.sum(1).mean(0))


# --- llama.cpp's sequence state ---------------------------------------------------------------


@dataclass(frozen=True)
class State:
    """A sequence's cells as its state blob holds them, in cell order.

    pos int32 [n]; xy int32 [n, 2] (0 without M-RoPE); bias f32 [n]; k and v: per layer uint8
    [n, bytes].
    """

    pos: Ints
    xy: Ints
    bias: Floats
    k: list[npt.NDArray[np.uint8]]
    v: list[npt.NDArray[np.uint8]]


def read_state(context: Context, seq: int = 0) -> State:
    """Parse `llama_state_seq_get_data` of a context with one stream."""
    blob = _Reader(context.sequence_state(seq))
    blob.take("I"), blob.take("i")  # magic, sequence
    assert blob.take("I") == 1, "one stream"
    n = blob.take("I")
    pos, xy, bias = np.empty(n, np.int32), np.zeros((n, 2), np.int32), np.empty(n, np.float32)
    for i in range(n):
        pos[i], n_seq = blob.take("i"), blob.take("I")
        xy[i] = blob.take("i"), blob.take("i")
        blob.take("i")
        bias[i] = blob.take("f")
        for _ in range(n_seq):
            blob.take("i")
    v_trans, n_layer = blob.take("I"), blob.take("I")
    k = [blob.rows(n) for _ in range(n_layer)]
    v = [blob.columns(n) if v_trans else blob.rows(n) for _ in range(n_layer)]
    return State(pos, xy, bias, k, v)


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, kind: str) -> Any:
        (value,) = struct.unpack_from("<" + kind, self._data, self._at)
        self._at += struct.calcsize("<" + kind)
        return value

    def rows(self, n: int) -> npt.NDArray[np.uint8]:
        self.take("i")
        return self._bytes(n, self.take("Q"))

    def columns(self, n: int) -> npt.NDArray[np.uint8]:
        """A transposed V: stored [n_embd, n] elements, returned as rows."""
        self.take("i")
        size, width = self.take("I"), self.take("I")
        data = self._bytes(width, n * size).reshape(width, n, size)
        return np.ascontiguousarray(data.transpose(1, 0, 2)).reshape(n, width * size)

    def _bytes(self, n: int, width: int) -> npt.NDArray[np.uint8]:
        data = np.frombuffer(self._data, np.uint8, n * width, self._at).reshape(n, width)
        self._at += n * width
        return data.copy()
