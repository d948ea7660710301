"""The native compression of one chunk: what retake-kvc.h offers, as numpy arrays and errors.

    with Capture(context, n_max=..., q_stride=1) as capture:
        context.decode_embeddings(...)
        scores = capture.scores()
        capture.commit(kept, positions)

Leaving the block without a commit (or release) removes the chunk.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from retake_edge import stopping
from retake_edge.errors import ModelError, NativeError
from retake_edge.llama import library
from retake_edge.llama.context import Context
from retake_edge.llama.model import Floats, Ints, Model

_CAPTURE_Q, _Q_F32 = 1, 2
_UNROTATE = 1
_KEYS = {"n_layer": 0, "n_tokens": 2, "n_queries": 3, "n_embd_v": 4, "n_cells_used": 7}
_UNSUPPORTED = -2
_TIME_AXIS = 1
_PROBE_CELLS = 64

_INT32_ARRAY = np.ctypeslib.ndpointer(np.int32, flags="C_CONTIGUOUS")
_FLOAT_ARRAY = np.ctypeslib.ndpointer(np.float32, flags="C_CONTIGUOUS")


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL:
    # A handle of its own: argument types belong to a handle, and other users have others.
    lib = ctypes.CDLL(library.load_libraries()._lib._name)
    context, i32, u32, null = ctypes.c_void_p, ctypes.c_int32, ctypes.c_uint32, ctypes.c_void_p
    signatures: dict[str, list[Any]] = {
        "supported": [context],
        "begin": [context, i32, i32, i32, i32, u32],
        "scores": [context, _FLOAT_ARRAY, i32, _INT32_ARRAY, i32, i32, u32],
        "attention": [context, _FLOAT_ARRAY, i32, i32, i32, i32],
        "cells": [context, i32, i32, null, null],
        "values": [context, _FLOAT_ARRAY, null, i32, i32, i32],
        "measure": [
            *(context, _FLOAT_ARRAY, i32, _INT32_ARRAY),
            *(_FLOAT_ARRAY, null, i32, i32, i32, u32),
        ],
        "commit": [context, i32, _INT32_ARRAY, null, u32, _INT32_ARRAY, null],
        "abort": [context, ctypes.c_bool],
        "free": [context],
    }
    for name, arguments in signatures.items():
        function = getattr(lib, f"retake_kvc_{name}")
        function.argtypes, function.restype = arguments, i32
    lib.retake_kvc_query.argtypes = [context, i32]
    lib.retake_kvc_query.restype = ctypes.c_int64
    lib.retake_kvc_last_error.restype = ctypes.c_char_p
    return lib


def _check(status: int) -> int:
    if status >= 0:
        return status
    stopping.obey()  # a wish to stop ends graphs half way
    reason = _reason()
    if status == _UNSUPPORTED:
        raise ModelError(
            f"This model keeps all or nothing of a frame ({reason}); use --policy frames."
        )
    raise NativeError(f"KV cache compression failed with status {status}: {reason}.")


def _reason() -> str:
    return (_library().retake_kvc_last_error() or b"").decode("utf-8", "replace")


def require_compressible(context: Context) -> None:
    """Check that the context's cache can be compressed.

    Raises:
        ModelError: it cannot, with the library's reason.
    """
    _check(_library().retake_kvc_supported(context.handle))


def is_compressible(context: Context) -> bool:
    """Return whether the context's cache can be captured and compressed."""
    return int(_library().retake_kvc_supported(context.handle)) >= 0


def why_not_compressible(model: Model, *, type_k: str = "f16", type_v: str = "f16") -> str:
    """Return why caches of this model cannot be compressed, '' if they can.

    Raises:
        MemoryBudgetError: llama.cpp cannot make a context of the model.
    """
    n = _PROBE_CELLS
    with Context(model, n_ctx=n, n_batch=n, n_ubatch=n, type_k=type_k, type_v=type_v) as context:
        return "" if is_compressible(context) else _reason()


def n_cache_layers(context: Context) -> int:
    """Return the layers that have cells; of a cache that cannot be compressed, all layers."""
    if not is_compressible(context):
        return context.model.n_layer
    return _check(int(_library().retake_kvc_query(context.handle, _KEYS["n_layer"])))


class Capture:
    """One chunk of a sequence between its decoding and its compression.

    `n_max` tokens at most; `q_first`: the first token whose query is kept; `q_stride`: every how
    many tokens from there on (0: none, which serves policies that need no scores); `q_f32`: keep
    queries in f32 even for narrower K.

    Raises:
        ModelError: the cache cannot be compressed. NativeError: a capture is open already.
    """

    def __init__(
        self,
        context: Context,
        *,
        n_max: int,
        q_first: int = 0,
        q_stride: int = 1,
        q_f32: bool = False,
        seq: int = 0,
    ) -> None:
        self._lib, self._context = _library(), context.handle
        flags = (_CAPTURE_Q if q_stride else 0) | (_Q_F32 if q_f32 else 0)
        kept = (n_max, q_first, max(1, q_stride))
        _check(self._lib.retake_kvc_begin(self._context, seq, *kept, flags))
        self._open, self._q_first, self._q_stride = True, q_first, max(1, q_stride)

    def __enter__(self) -> Capture:
        return self

    def __exit__(self, *_: object) -> None:
        if self._open:
            self._lib.retake_kvc_abort(self._context, True)

    def _query(self, key: str) -> int:
        return _check(int(self._lib.retake_kvc_query(self._context, _KEYS[key])))

    @property
    def n_tokens(self) -> int:
        """Tokens decoded since the capture began."""
        return self._query("n_tokens")

    @property
    def n_layer(self) -> int:
        """Layers of the KV cache."""
        return self._query("n_layer")

    def scores(self, *, n: int | None = None, unrotate: bool = False, n_windows: int = 1) -> Floats:
        """Return the attention each token of the chunk receives, f32 [n_layer, n_tokens].

        Mean over query heads of the sum over the chunk's queries, softmax over the chunk alone
        (no causal mask); each layer's scores add up to n_tokens. Source: video-ReTaKe, PivotKV.
        With several windows the queries are summed in so many equal parts of the chunk, and the
        part that attends most counts: a token that matters to few others stands out.

        `n`: the first tokens alone are scored, by all queries that were kept; each layer's scores
        then add up to the tokens from the first query on.
        """
        n, edges = self.n_tokens if n is None else n, self._edges(n_windows)
        flags = _UNROTATE if unrotate else 0
        out = np.empty((self.n_layer, n), np.float32)
        windows = (out, len(edges) - 1, edges)
        _check(self._lib.retake_kvc_scores(self._context, *windows, 0, n, flags))
        return out

    def scores_and_values(
        self,
        projection: Floats | None = None,
        *,
        n: int | None = None,
        unrotate: bool = False,
        n_windows: int = 1,
    ) -> tuple[Floats, Floats]:
        """Return `scores` and `values`; on a device both together cost one update of its memory."""
        n, edges = self.n_tokens if n is None else n, self._edges(n_windows)
        out, values = np.empty((self.n_layer, n), np.float32), self._values_like(projection, n)
        flags = _UNROTATE if unrotate else 0
        windows = (out, len(edges) - 1, edges)
        rows = (values, _pointer(projection), values.shape[2])
        _check(self._lib.retake_kvc_measure(self._context, *windows, *rows, 0, n, flags))
        return out, values

    def _edges(self, n_windows: int) -> Ints:
        """Return the starts of equal windows of the queries, and the end: each window has one."""
        first, stride = self._q_first, self._q_stride
        n_rows = -(-(self.n_tokens - first) // stride)
        n_windows = min(n_windows, n_rows)
        starts = [first + i * n_rows // n_windows * stride for i in range(n_windows)]
        return np.array([*starts, self.n_tokens], np.int32)

    def attention(self, first_row: int, n_rows: int, first_cell: int, n_cells: int) -> Floats:
        """Return the attention that cells of the whole sequence receive, f32 [n_layer, n_cells].

        From the captured tokens `first_row` on, `n_rows` of them, over the `n_cells` cells from
        `first_cell` on in order of position: mean over query heads of the sum over rows, softmax
        over these cells alone, so that each layer's values add up to n_rows.
        """
        out = np.empty((self.n_layer, n_cells), np.float32)
        window = (first_row, n_rows, first_cell, n_cells)
        _check(self._lib.retake_kvc_attention(self._context, out, *window))
        return out

    def values(self, projection: Floats | None = None) -> Floats:
        """Return the chunk's value rows, f32 [n_layer, n_tokens, dim].

        All KV heads concatenated, times `projection` f32 [dim, n_embd_v] if given.
        """
        out = self._values_like(projection, self.n_tokens)
        rows = (out, _pointer(projection), out.shape[2])
        _check(self._lib.retake_kvc_values(self._context, *rows, 0, out.shape[1]))
        return out

    def _values_like(self, projection: Floats | None, n: int) -> Floats:
        dim = self.n_embd_v if projection is None else len(projection)
        return np.empty((self.n_layer, n, dim), np.float32)

    def release(self) -> None:
        """Stop capturing; the tokens decoded meanwhile stay in the cache."""
        self._lib.retake_kvc_abort(self._context, False)
        self._open = False

    @property
    def n_embd_v(self) -> int:
        """Floats of one token's value row."""
        return self._query("n_embd_v")

    def commit(
        self,
        kept: Ints,
        cell_positions: Ints,
        deltas: npt.NDArray[np.int32] | None = None,
        bias: Floats | None = None,
    ) -> None:
        """Keep each layer's own tokens and free the chunk's other cells.

        `kept`: int32 [n_layer, n_keep], ascending token indices. `cell_positions`: int32 [n_keep],
        non-decreasing, below every later token's position. `deltas`: int32 [n_layer, n_keep],
        change of the kept keys' time positions. `bias`: f32 [n_keep], added to the attention logits
        of each kept cell in all layers.

        Raises:
            NativeError: the library refused; the chunk is then removed on leaving the block.
        """
        kept = np.ascontiguousarray(kept, np.int32)
        positions = np.ascontiguousarray(cell_positions, np.int32)
        pointer: Any = None
        if deltas is not None:
            deltas = np.ascontiguousarray(deltas, np.int32)
            pointer = deltas.ctypes.data
        bias_pointer: Any = None
        if bias is not None:
            bias = np.ascontiguousarray(bias, np.float32)
            bias_pointer = bias.ctypes.data
        arguments = (kept.shape[1], kept, pointer, _TIME_AXIS, positions, bias_pointer)
        _check(self._lib.retake_kvc_commit(self._context, *arguments))
        self._open = False


def _pointer(array: Floats | None) -> int | None:
    """The address of a contiguous f32 array; None without one."""
    if array is None:
        return None
    assert array.flags.c_contiguous and array.dtype == np.float32
    return int(array.ctypes.data)


def cells_used(context: Context) -> int:
    """Return how many KV cells of the context are in use."""
    return _check(int(_library().retake_kvc_query(context.handle, _KEYS["n_cells_used"])))
