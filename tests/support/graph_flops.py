"""Count the operations of matrices in a graph while llama.cpp computes it, by the weight's name."""

import ctypes
from collections import Counter

from native_support import _ggml_base

from retake_edge.llama import library


class _Tensor(ctypes.Structure):
    """The head of ggml.h's ggml_tensor."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("ne", ctypes.c_int64 * 4),
        ("nb", ctypes.c_size_t * 4),
        ("op", ctypes.c_int),
        ("op_params", ctypes.c_int32 * 16),
        ("flags", ctypes.c_int32),
        ("src", ctypes.c_void_p * 10),
    )


class GraphFlops:
    """Operations by weight (`blk.0.ffn_up.weight`), and of attention under `attention`, which
    counts every query with every cell, seen or not. Pass `callback` to a context.
    """

    def __init__(self) -> None:
        self._base = _ggml_base()
        self.by_weight: Counter[str] = Counter()
        self.callback = library.load_libraries().ggml_backend_sched_eval_callback(self._on_tensor)

    def of(self, *parts: str) -> int:
        """Operations of the weights whose names hold one of `parts`."""
        return sum(n for name, n in self.by_weight.items() if any(part in name for part in parts))

    def _on_tensor(self, tensor: int, asked: bool, _data: object) -> bool:
        op = self._base.ggml_op_desc(tensor)
        if asked and op in (b"MUL_MAT", b"FLASH_ATTN_EXT"):
            first, second = _Tensor.from_address(tensor).src[:2]
            a, b = (_Tensor.from_address(source).ne for source in (first, second))
            if op == b"MUL_MAT":
                name = self._base.ggml_get_name(first).decode()
                self.by_weight[name] += 2 * a[0] * a[1] * b[1] * b[2]
            else:  # queries [head_dim, n, n_head], keys [head_dim, n_cells, n_head_kv]
                self.by_weight["attention"] += 4 * a[0] * a[1] * a[2] * b[1]
        return not asked
