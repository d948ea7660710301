"""The patch sgemm-take-any-row-length: rows of any length have the fast product on a CPU."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from retake_edge.llama import library

TYPES = {"f32": 0, "f16": 1, "bf16": 30}
"""ggml_type."""
LENGTHS = (3, 17, 36, 588, 3420)
"""No multiple of 8; a patch of 14 px, and hidden rows of Qwen2.5-VL's tower, are the last ones."""
M, N = 8, 9
TOLERANCES = {"f32": 1e-5, "f16": 1e-2, "bf16": 1e-5}
"""For values of about 1; some CPUs add up in f16."""


class _InitParams(ctypes.Structure):
    _fields_ = (
        ("mem_size", ctypes.c_size_t),
        ("mem", ctypes.c_void_p),
        ("no_alloc", ctypes.c_bool),
    )


def _ggml() -> tuple[ctypes.CDLL, ctypes.CDLL]:
    library.load_libraries()
    base, cpu = (
        ctypes.CDLL(str(next(library.library_dir().glob(f"*ggml-{name}.*"))))
        for name in ("base", "cpu")
    )
    pointer = ctypes.c_void_p
    base.ggml_init.argtypes = [_InitParams]
    base.ggml_new_tensor_2d.argtypes = [pointer, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    base.ggml_mul_mat.argtypes = [pointer] * 3
    base.ggml_build_forward_expand.argtypes = [pointer] * 2
    for name in ("new_graph", "get_data", "free"):
        getattr(base, f"ggml_{name}").argtypes = [pointer]
    for name in ("init", "new_tensor_2d", "mul_mat", "new_graph", "get_data"):
        getattr(base, f"ggml_{name}").restype = pointer
    cpu.ggml_graph_compute_with_ctx.argtypes = [pointer, pointer, ctypes.c_int]
    return base, cpu


def stored(rows: np.ndarray, kind: str) -> np.ndarray:
    """Rows f32 as ggml holds them."""
    if kind == "bf16":
        bits = rows.view(np.uint32)
        return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
    return rows.astype({"f16": np.float16, "f32": np.float32}[kind])


def loaded(rows: np.ndarray, kind: str) -> np.ndarray:
    """The same as f64."""
    if kind == "bf16":
        rows = (rows.astype(np.uint32) << 16).view(np.float32)
    return rows.astype(np.float64)


def product(a: np.ndarray, kind: str, b: np.ndarray, n_threads: int = 2) -> np.ndarray:
    """Return the product of the rows of `a`, held as `kind`, and of `b` in f32: f32 [N, M]."""
    base, cpu = _ggml()
    context = base.ggml_init(_InitParams(4 << 20, None, False))
    left = base.ggml_new_tensor_2d(context, TYPES[kind], *a.shape[::-1])
    right = base.ggml_new_tensor_2d(context, TYPES["f32"], *b.shape[::-1])
    out = base.ggml_mul_mat(context, left, right)
    for tensor, held in ((left, stored(a, kind)), (right, b)):
        ctypes.memmove(base.ggml_get_data(tensor), held.ctypes.data, held.nbytes)
    graph = base.ggml_new_graph(context)
    base.ggml_build_forward_expand(graph, out)
    assert cpu.ggml_graph_compute_with_ctx(context, graph, n_threads) == 0
    found = np.empty((len(b), len(a)), np.float32)
    ctypes.memmove(found.ctypes.data, base.ggml_get_data(out), found.nbytes)
    base.ggml_free(context)
    return found


def rows(length: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(length)
    a, b = (rng.standard_normal((n, length)).astype(np.float32) for n in (M, N))
    return a, b


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("kind", ["f32", "f16"])
def test_a_product_has_the_bits_of_one_of_rows_filled_up_with_zeros(kind: str, length: int) -> None:
    a, b = rows(length)
    filled = [np.pad(part, ((0, 0), (0, -length % 64))) for part in (a, b)]
    assert np.array_equal(product(a, kind, b), product(filled[0], kind, filled[1]))


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("kind", list(TYPES))
def test_a_product_is_that_of_f64_but_for_rounding(kind: str, length: int) -> None:
    a, b = rows(length)
    exact = loaded(stored(b, kind), kind) @ loaded(stored(a, kind), kind).T
    off = np.abs(product(a, kind, b) - exact).max() / np.sqrt(length)
    assert off < TOLERANCES[kind], f"differs by {off:.2g}"
