"""retake-kvc.h, called as it is: scores, kept rows, re-rotation, and every refusal.

Oracles: a float64 softmax over the q and k that llama.cpp's own cb_eval shows; the rows in
llama.cpp's own state blob; contexts that were decoded at other positions or had cells removed.
"""

from __future__ import annotations

import ctypes
import math
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import native_support as ns
import numpy as np
import pytest
from gguf import GGMLQuantizationType
from gguf.quants import dequantize
from native_support import AttentionTrace, Kvc, ask, decode, make_chunk, open_context, read_state
from random_models import HEAD_DIM, write_model

from retake_edge.errors import MemoryBudgetError, NativeError
from retake_edge.golden.limits import DEVICE_FORWARD, DEVICE_LOGIT, DEVICE_MOVED, DEVICE_QUANTIZED
from retake_edge.llama import library
from retake_edge.llama.buffers import buffers_of
from retake_edge.llama.context import Context
from retake_edge.llama.model import Model

KINDS = ["golden", "norm", "neox", "imrope", "yarn"]
CACHES = {
    "f32": {"type_k": "f32", "type_v": "f32", "flash_attention": "off"},
    "f16": {"type_k": "f16", "type_v": "f16", "flash_attention": "off"},
    "f32 flash": {"type_k": "f32", "type_v": "f32", "flash_attention": "on"},
    "f16 flash": {"type_k": "f16", "type_v": "f16", "flash_attention": "on"},
    "q8_0 flash": {"type_k": "q8_0", "type_v": "q8_0", "flash_attention": "on"},
    "q4_0 flash": {"type_k": "q4_0", "type_v": "q4_0", "flash_attention": "on"},
}
N_TEXT = 3
# how a capture's graphs are run: as this backend would, and as another one
RUNS = {
    "as it is": 0,
    "scheduled": ns.SCHEDULED,
    "no outer product": ns.NO_OUT_PROD,
    "scheduled, no outer product": ns.SCHEDULED | ns.NO_OUT_PROD,
}


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Model]]:
    folder = tmp_path_factory.mktemp("random-models")
    loaded: dict[str, Model] = {}

    def get(kind: str) -> Model:
        if kind not in loaded:
            if kind == "golden on the CPU":  # the only backend with an abort callback
                loaded[kind] = Model(ns.GOLDEN_MODEL, n_gpu_layers=0)
            elif kind == "golden":
                loaded[kind] = Model(ns.GOLDEN_MODEL)
            else:
                loaded[kind] = Model(write_model(folder / f"{kind}.gguf", kind))
        return loaded[kind]

    yield get
    for model in loaded.values():
        model.close()


def start(context: Context, kvc: Kvc, chunk: ns.Chunk, **begin: Any) -> None:
    """Text, then the chunk under a capture."""
    context.decode_tokens([1, 2, 3], 0)
    assert kvc.begin(len(chunk), **begin) == ns.OK, kvc.reason
    decode(context, chunk)


def chunk_of(model: Model, *, seed: int = 0) -> ns.Chunk:
    """72 tokens (three ubatches of 32) after the text."""
    return make_chunk(model, 6, (3, 4), N_TEXT, seed)


def random_keep(n_layer: int, n: int, n_keep: int, seed: int = 1) -> ns.Array:
    """A kept set a layer, all different."""
    rng = np.random.default_rng(seed)
    return np.stack([np.sort(rng.choice(n, n_keep, replace=False)) for _ in range(n_layer)])


def positions_for(chunk: ns.Chunk, n_keep: int) -> ns.Array:
    """Non-decreasing cell positions that end at the chunk's last one."""
    return np.asarray(chunk.positions[0][-n_keep:])


# --- scores -----------------------------------------------------------------------------------


def head_scale(model: Model) -> float:
    head_dim = 32 if model.path == ns.GOLDEN_MODEL else HEAD_DIM
    return 1 / math.sqrt(head_dim)


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("kind", KINDS)
def test_scores_equal_a_float64_softmax_of_the_same_q_and_k(
    models: Any, kind: str, run: str
) -> None:
    model, trace = models(kind), AttentionTrace()
    chunk = chunk_of(model)
    with open_context(model, cb_eval=trace.callback) as (context, kvc):
        context.decode_tokens([1, 2, 3], 0)
        trace.clear()
        assert kvc.begin(len(chunk), flags=ns.CAPTURE_Q | RUNS[run]) == ns.OK, kvc.reason
        decode(context, chunk)
        status, scores = kvc.scores(len(chunk))
    assert status == ns.OK, kvc.reason
    expected = [
        ns.expected_scores(trace.q(layer), trace.k(layer), head_scale(model))
        for layer in range(len(scores))
    ]
    np.testing.assert_allclose(scores, expected, rtol=0, atol=ns.SCORE)
    assert np.ptp(expected, axis=1).min() > 0.1, "the model's attention is too flat to test with"


@pytest.mark.parametrize("stride", [2, 5, 71, 72])
def test_a_stride_uses_every_stride_th_query_and_keeps_the_sum(models: Any, stride: int) -> None:
    model, trace = models("golden"), AttentionTrace()
    chunk = chunk_of(model)
    n = len(chunk)
    with open_context(model, cb_eval=trace.callback) as (context, kvc):
        assert kvc.begin(n, stride=stride) == ns.OK, kvc.reason
        decode(context, chunk)
        status, scores = kvc.scores(n)
        assert kvc.query(ns.N_QUERIES) == len(range(0, n, stride))
    assert status == ns.OK, kvc.reason
    for layer, got in enumerate(scores):
        q = trace.q(layer)[:, ::stride]
        expected = ns.expected_scores(q, trace.k(layer), head_scale(model)) * n / q.shape[1]
        np.testing.assert_allclose(got, expected, rtol=0, atol=ns.SCORE * stride)
    np.testing.assert_allclose(scores.sum(1), n, rtol=1e-5)


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("stride", [1, 5])
def test_of_several_windows_each_tokens_best_one_counts(models: Any, stride: int, run: str) -> None:
    model, trace = models("golden"), AttentionTrace()
    chunk, edges = chunk_of(model), (5, 9, 30, 31, 72) if stride == 1 else (5, 9, 32, 72)
    with open_context(model, cb_eval=trace.callback) as (context, kvc):
        assert kvc.begin(len(chunk), stride=stride, flags=ns.CAPTURE_Q | RUNS[run]) == ns.OK
        decode(context, chunk)
        status, scores = kvc.window_scores(edges, 50, k0=7)
    assert status == ns.OK, kvc.reason
    for layer, got in enumerate(scores):
        q, k = trace.q(layer), trace.k(layer)[:, 7:57]
        windows = []
        for start, end in pairwise(edges):
            kept = q[:, [i for i in range(start, end) if i % stride == 0]]
            share = (end - start) / kept.shape[1]
            windows.append(share * ns.expected_scores(kept, k, head_scale(model)))
        expected = np.max(windows, axis=0)
        np.testing.assert_allclose(got, expected, rtol=0, atol=ns.SCORE * stride)


@pytest.mark.parametrize("run", RUNS)
def test_scores_and_values_in_one_call_are_those_of_two(models: Any, run: str) -> None:
    model = models("imrope")
    chunk, edges = chunk_of(model), (0, 20, 72)
    with open_context(model) as (context, kvc):
        start(context, kvc, chunk, flags=ns.CAPTURE_Q | RUNS[run])
        width = kvc.query(ns.N_EMBD_V)
        status, scores, values = kvc.measure(edges, 72, width)
        assert status == ns.OK, kvc.reason
        assert kvc.measure((0, 73), 72, width)[0] == ns.INVALID
        assert kvc.measure(edges, 72, width + 1)[0] == ns.INVALID
        assert np.array_equal(scores, kvc.window_scores(edges, 72)[1])
        assert np.array_equal(values, kvc.values(72, width)[1])
        keep = random_keep(len(scores), 72, 20)
        assert kvc.commit(keep, positions_for(chunk, 20)) == ns.OK, kvc.reason


def test_windows_must_ascend_and_hold_a_query(models: Any) -> None:
    model = models("golden")
    chunk = chunk_of(model)
    with open_context(model) as (context, kvc):
        start(context, kvc, chunk, stride=10)
        for edges in [(0, 0), (0, 20, 20), (0, 20, 10), (0, 1, 5), (0, 72, 73), (-1, 5), (0,)]:
            assert kvc.window_scores(edges, 72)[0] == ns.INVALID, edges
            assert kvc.reason
        assert kvc.window_scores((0, 1, 72), 72)[0] == ns.OK, kvc.reason


def test_queries_may_be_kept_from_a_later_token_on(models: Any) -> None:
    model = models("golden")
    chunk = chunk_of(model)
    with open_context(model) as (context, kvc):
        start(context, kvc, chunk)
        whole_bytes = kvc.query(ns.Q_BYTES)
        status, expected = kvc.scores(72, q=(60, 12))
        assert status == ns.OK and kvc.abort() == ns.OK
        assert kvc.begin(len(chunk), first=60) == ns.OK, kvc.reason
        decode(context, chunk)
        status, scores = kvc.scores(72, q=(60, 12))
        assert status == ns.OK, kvc.reason
        assert kvc.query(ns.N_QUERIES) == 12
        assert kvc.query(ns.Q_BYTES) < whole_bytes / 4
        assert kvc.scores(72, q=(59, 13))[0] == ns.INVALID
        assert "token 60" in kvc.reason
    assert np.array_equal(scores, expected)


@pytest.mark.parametrize("cache", ["f32", "f16 flash", "q8_0 flash"])
def test_any_number_of_threads_gives_the_same_bits(models: Any, cache: str) -> None:
    """600 queries are three tasks a layer, added up in their order."""
    model = models("imrope")
    chunk = make_chunk(model, 12, (5, 10), 0, 0)
    results = []
    for n_threads in (1, 2, 5):
        options = CACHES[cache] | {"n_ctx": 768, "n_ubatch": 768, "n_batch": 768}
        with open_context(model, **options) as (context, kvc):
            decode(context, chunk)
            state = context.sequence_state(0)
        with open_context(model, n_threads=n_threads, **options) as (context, kvc):
            assert kvc.begin(600) == ns.OK
            decode(context, chunk)
            status, scores = kvc.window_scores(range(0, 601, 50), 600, flags=ns.UNROTATE)
            assert status == ns.OK, kvc.reason
            if context.sequence_state(0) == state:  # the decode itself gave the same bits
                results.append(scores)
    assert len(results) > 1
    assert all(np.array_equal(scores, results[0]) for scores in results)


def test_query_and_key_windows_may_differ(models: Any) -> None:
    model, trace = models("golden"), AttentionTrace()
    chunk = chunk_of(model)
    with open_context(model, cb_eval=trace.callback) as (context, kvc):
        assert kvc.begin(len(chunk)) == ns.OK
        decode(context, chunk)
        status, scores = kvc.scores(40, q=(50, 13), k0=7)
    assert status == ns.OK, kvc.reason
    for layer, got in enumerate(scores):
        q, k = trace.q(layer)[:, 50:63], trace.k(layer)[:, 7:47]
        expected = ns.expected_scores(q, k, head_scale(model))
        np.testing.assert_allclose(got, expected, rtol=0, atol=ns.SCORE)


def test_a_large_chunk_is_scored_in_many_blocks(models: Any) -> None:
    """640 tokens: seven blocks a layer, more than one graph holds, cut within a layer."""
    model, trace = models("golden"), AttentionTrace()
    chunk = make_chunk(model, 10, (8, 8), 0, 0)
    with open_context(model, n_ctx=768, n_ubatch=256, cb_eval=trace.callback) as (context, kvc):
        assert kvc.begin(640) == ns.OK
        decode(context, chunk)
        status, scores = kvc.scores(640)
    assert status == ns.OK, kvc.reason
    for layer, got in enumerate(scores):
        expected = ns.expected_scores(trace.q(layer), trace.k(layer), head_scale(model))
        np.testing.assert_allclose(got, expected, rtol=0, atol=ns.SCORE)


@pytest.mark.parametrize(
    ("cache", "tolerance"),
    [("f16", 0.01), ("f16 flash", 0.02), ("q8_0 flash", 0.05), ("q4_0 flash", 0.5)],
)
@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("kind", ["golden", "imrope"])
def test_scores_of_narrow_caches_stay_near(
    models: Any, kind: str, cache: str, tolerance: float, run: str
) -> None:
    """Heads of 64 with imrope are Hadamard-rotated in quantized caches, golden's of 32 are not."""
    model, trace = models(kind), AttentionTrace()
    chunk = chunk_of(model)
    with open_context(model, cb_eval=trace.callback, **CACHES[cache]) as (context, kvc):
        assert kvc.begin(len(chunk), flags=ns.CAPTURE_Q | RUNS[run]) == ns.OK
        decode(context, chunk)
        status, scores = kvc.scores(len(chunk))
    assert status == ns.OK, kvc.reason
    for layer, got in enumerate(scores):
        expected = ns.expected_scores(trace.q(layer), trace.k(layer), head_scale(model))
        assert np.abs(got - expected).max() < tolerance
        assert np.corrcoef(got, expected)[0, 1] > 0.98


@pytest.mark.parametrize("kind", ["golden", "norm", "neox", "imrope"])
def test_unrotated_scores_are_those_of_position_zero(models: Any, kind: str) -> None:
    """Layer 0 sees the embeddings alone: at position 0 on all axes RoPE does nothing there."""
    model = models(kind)
    chunk = chunk_of(model)
    at_zero = ns.Chunk(chunk.rows, np.zeros_like(chunk.positions))
    results = []
    for part, flags in ((at_zero, 0), (chunk, ns.UNROTATE), (chunk, 0)):
        with open_context(model) as (context, kvc):
            if part is chunk:
                context.decode_tokens([1, 2, 3], 0)
            assert kvc.begin(len(part)) == ns.OK
            decode(context, part)
            status, scores = kvc.scores(len(part), flags=flags)
            assert status == ns.OK, kvc.reason
        results.append(scores[0])
    plain, unrotated, rotated = results
    np.testing.assert_allclose(unrotated, plain, rtol=0, atol=ns.near(2e-5, DEVICE_FORWARD))
    assert np.abs(rotated - plain).max() > 0.01


def test_unrotating_takes_yarns_magnitude_out(models: Any) -> None:
    """The yarn model is the neox model with other frequencies and a magnitude factor."""
    results = []
    for kind in ("neox", "yarn"):
        model = models(kind)
        chunk = chunk_of(model)
        with open_context(model) as (context, kvc):
            start(context, kvc, chunk)
            status, scores = kvc.scores(len(chunk), flags=ns.UNROTATE)
            assert status == ns.OK, kvc.reason
        results.append(scores[0])
    np.testing.assert_allclose(results[1], results[0], rtol=0, atol=ns.near(2e-5, DEVICE_FORWARD))


@pytest.mark.parametrize("run", RUNS)
def test_attention_of_a_question_over_compressed_cells(models: Any, run: str) -> None:
    model, trace = models("golden"), AttentionTrace()
    chunk = chunk_of(model)
    with open_context(model, cb_eval=trace.callback) as (context, kvc):
        start(context, kvc, chunk)
        keep = random_keep(4, len(chunk), 20)
        video_k = [trace.k(layer)[:, N_TEXT:] for layer in range(4)]
        assert kvc.commit(keep, positions_for(chunk, 20)) == ns.OK, kvc.reason
        trace.clear()
        assert kvc.begin(5, flags=ns.CAPTURE_Q | RUNS[run]) == ns.OK
        context.decode_tokens([9, 8, 7, 6, 5], 20)
        cells, pos = kvc.cells()
        status, seen = kvc.attention((0, 5), N_TEXT, 20)
        assert status == ns.OK, kvc.reason
    assert cells.tolist() == list(range(N_TEXT + 20 + 5))
    assert pos[N_TEXT : N_TEXT + 20].tolist() == positions_for(chunk, 20).tolist()
    for layer, got in enumerate(seen):
        k = video_k[layer][:, keep[layer]]
        expected = ns.expected_scores(trace.q(layer), k, head_scale(model))
        np.testing.assert_allclose(got, expected, rtol=0, atol=ns.SCORE)


@pytest.mark.parametrize("cache", CACHES)
def test_few_queries_over_many_cells_read_the_keys_in_place(models: Any, cache: str) -> None:
    """As over the same cells with so many queries that their keys are copied, row by row."""
    model = models("imrope")
    chunk = chunk_of(model)
    with open_context(model, **CACHES[cache]) as (context, kvc):
        context.decode_tokens([1, 2, 3], 0)
        decode(context, chunk)
        assert kvc.begin(12) == ns.OK
        context.decode_tokens([4] * 12, 20)
        status, many = kvc.attention((0, 12), N_TEXT, 72)
        assert status == ns.OK, kvc.reason
        parts = [kvc.attention((i, 3), N_TEXT, 72) for i in range(0, 12, 3)]
        assert all(status == ns.OK for status, _ in parts)
    np.testing.assert_allclose(sum(part for _, part in parts), many, rtol=0, atol=ns.SCORE)


@pytest.mark.parametrize("run", ["as it is", "scheduled"])
@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("kind", ["golden", "imrope"])
def test_values_are_the_projected_rows_of_the_cache(
    models: Any, kind: str, cache: str, run: str
) -> None:
    model = models(kind)
    chunk = chunk_of(model)
    with open_context(model, **CACHES[cache]) as (context, kvc):
        start(context, kvc, chunk, flags=RUNS[run])
        width = kvc.query(ns.N_EMBD_V)
        status, rows = kvc.values(len(chunk), width)
        assert status == ns.OK, kvc.reason
        projection = np.random.default_rng(0).standard_normal((16, width)).astype(np.float32)
        status, projected = kvc.values(50, 16, projection, k0=9)
        assert status == ns.OK, kvc.reason
        stored = read_state(context)
    exact = rows[:, 9:59].astype(np.float64) @ projection.T
    tolerance = 1e-4 if kind == "golden" or "f" in cache.split()[0] else 1e-3
    np.testing.assert_allclose(
        projected, exact, rtol=0, atol=ns.near(tolerance, DEVICE_FORWARD) * np.abs(exact).max()
    )
    for layer, got in enumerate(rows):
        expected = as_floats(stored.v[layer][N_TEXT:], cache)
        if cache.startswith("q") and kind == "imrope":
            expected = undo_hadamard(expected)
        np.testing.assert_allclose(got, expected, rtol=0, atol=ns.near(1e-4, DEVICE_FORWARD))


def as_floats(rows: ns.Array, cache: str) -> ns.Array:
    kind = GGMLQuantizationType[cache.split()[0].upper()]
    if kind in (GGMLQuantizationType.F32, GGMLQuantizationType.F16):
        dtype = np.float32 if kind == GGMLQuantizationType.F32 else np.float16
        return np.ascontiguousarray(rows).view(dtype).astype(np.float32)
    return np.asarray(dequantize(rows, kind))


def undo_hadamard(rows: ns.Array) -> ns.Array:
    matrix = np.array([[1.0]])
    while len(matrix) < 64:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return np.asarray((rows.reshape(len(rows), -1, 64) @ matrix / 8).reshape(rows.shape))


# --- commit: rows and cells --------------------------------------------------------------------


@pytest.mark.parametrize("run", ["as it is", "scheduled"])
@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("kind", ["golden", "norm", "imrope"])
def test_commit_keeps_each_layers_own_rows_bit_for_bit(
    models: Any, kind: str, cache: str, run: str
) -> None:
    model = models(kind)
    chunk = chunk_of(model)
    with open_context(model, **CACHES[cache]) as (context, kvc):
        start(context, kvc, chunk, flags=ns.CAPTURE_Q | RUNS[run])
        before = read_state(context)
        keep = random_keep(kvc.query(ns.N_LAYER), len(chunk), 20)
        assert kvc.commit(keep, positions_for(chunk, 20)) == ns.OK, kvc.reason
        after = read_state(context)
        assert kvc.query(ns.N_CELLS_USED) == N_TEXT + 20
        assert kvc.query(ns.CAPTURE) == ns.IDLE
    assert after.pos.tolist() == [0, 1, 2, *positions_for(chunk, 20)]
    for layer, kept in enumerate(keep):
        rows = [*range(N_TEXT), *(N_TEXT + kept)]
        assert np.array_equal(after.k[layer], before.k[layer][rows])
        assert np.array_equal(after.v[layer], before.v[layer][rows])


def test_many_layers_are_compacted_in_several_graphs(tmp_path: Path) -> None:
    n_layer = 14
    with Model(write_model(tmp_path / "deep.gguf", "norm", n_layer=n_layer)) as model:
        chunk = chunk_of(model)
        keep = random_keep(n_layer, len(chunk), 20)
        with open_context(model) as (context, kvc):
            start(context, kvc, chunk)
            before = read_state(context)
            delta = np.zeros_like(keep)
            delta[13] = 2
            assert kvc.commit(keep, positions_for(chunk, 20), delta=delta) == ns.OK, kvc.reason
            after = read_state(context)
    for layer, kept in enumerate(keep):
        rows = [*range(N_TEXT), *(N_TEXT + kept)]
        assert np.array_equal(after.v[layer], before.v[layer][rows])
        assert np.array_equal(after.k[layer], before.k[layer][rows]) == (layer != 13)


@pytest.mark.parametrize("cache", ["f32", "q8_0 flash"])
def test_a_cache_with_a_stream_per_sequence_compresses_the_same(models: Any, cache: str) -> None:
    model = models("golden")
    limit = DEVICE_FORWARD if cache == "f32" else DEVICE_QUANTIZED
    chunk, other = chunk_of(model), make_chunk(model, 4, (3, 4), 0, 7)
    keep = random_keep(4, len(chunk), 20)
    results = []
    for unified in (True, False):
        options = CACHES[cache] | {"n_seq_max": 2, "kv_unified": unified, "n_ctx": 512}
        with open_context(model, **options) as (context, kvc):
            decode(context, other, seq=0)
            context.decode_tokens([1, 2, 3], 0, seq=1)
            assert kvc.begin(len(chunk), seq=1) == ns.OK
            decode(context, chunk, seq=1)
            status, scores = kvc.scores(len(chunk))
            assert status == ns.OK, kvc.reason
            before = context.sequence_state(0)
            assert kvc.commit(keep, positions_for(chunk, 20)) == ns.OK, kvc.reason
            assert context.sequence_state(0) == before
            results.append((scores, ask(context, 20, seq=1)))
    np.testing.assert_allclose(results[1][0], results[0][0], rtol=0, atol=ns.near(1e-4, limit))
    np.testing.assert_allclose(
        results[1][1], results[0][1], rtol=0, atol=ns.near(3e-2, DEVICE_LOGIT)
    )


@pytest.mark.parametrize("cache", CACHES)
def test_keeping_everything_changes_no_logit(models: Any, cache: str) -> None:
    model = models("golden")
    chunk = chunk_of(model)
    with open_context(model, **CACHES[cache]) as (context, kvc):
        start(context, kvc, chunk)
        reference = ask(context, 20)
        assert kvc.abort(remove=False) == ns.OK  # asking removed cells: that capture is over
        context.clear()
        start(context, kvc, chunk)
        keep = np.tile(np.arange(len(chunk)), (4, 1))
        assert kvc.commit(keep, chunk.positions[0]) == ns.OK, kvc.reason
        assert np.array_equal(ask(context, 20), reference)
        context.clear()
        start(context, kvc, chunk)
        delta = np.zeros_like(keep)
        assert kvc.commit(keep, chunk.positions[0], delta=delta, mask=7) == ns.OK, kvc.reason
        assert np.array_equal(ask(context, 20), reference)


def test_asking_to_keep_more_than_there_is_keeps_everything(models: Any) -> None:
    model = models("golden")
    chunk = chunk_of(model)
    with open_context(model) as (context, kvc):
        start(context, kvc, chunk)
        before = context.sequence_state()
        assert kvc.commit(None, None, n_keep=len(chunk) + 1) == ns.OK, kvc.reason
        assert context.sequence_state() == before
        assert kvc.query(ns.CAPTURE) == ns.IDLE


@pytest.mark.parametrize("cache", ["f32", "f16 flash", "q8_0 flash"])
@pytest.mark.parametrize("kind", ["golden", "norm", "imrope"])
def test_a_uniform_keep_equals_removing_the_same_cells(models: Any, kind: str, cache: str) -> None:
    """Frames 1 and 4 of six go (with one position a token: their twelve positions each)."""
    model = models(kind)
    chunk = chunk_of(model)
    frame = np.arange(len(chunk)) // 12
    kept = np.flatnonzero((frame != 1) & (frame != 4))
    with open_context(model, **CACHES[cache]) as (context, kvc):
        start(context, kvc, chunk)
        keep = np.tile(kept, (kvc.query(ns.N_LAYER), 1))
        assert kvc.commit(keep, chunk.positions[0][kept]) == ns.OK, kvc.reason
        compressed = ask(context, int(chunk.positions[0].max()) + 1)
        cells = read_state(context)
    with open_context(model, **CACHES[cache]) as (context, _):
        context.decode_tokens([1, 2, 3], 0)
        decode(context, chunk)
        for gone in (1, 4):
            t = chunk.positions[0][frame == gone]
            assert context.remove(int(t.min()), int(t.max()) + 1)
        removed = ask(context, int(chunk.positions[0].max()) + 1)
        expected = read_state(context)
    assert cells.pos.tolist() == expected.pos.tolist()
    assert cells.xy.tolist() == expected.xy.tolist()
    # other cells, so another order of summation, in f16 under flash attention
    tolerance = 1e-4 if cache == "f32" else 3e-2
    np.testing.assert_allclose(compressed, removed, rtol=0, atol=ns.near(tolerance, DEVICE_LOGIT))


def test_the_next_chunk_attends_to_what_was_kept_and_nothing_else(models: Any) -> None:
    """Two contexts whose dropped tokens differ, and whose kept rows are the same, agree after.

    The last frame is dropped: no kept row has seen it.
    """
    model = models("golden")
    first, other = chunk_of(model), chunk_of(model, seed=9)
    mixed = ns.Chunk(np.concatenate([first.rows[:60], other.rows[60:]]), first.positions)
    second = make_chunk(model, 2, (3, 4), 20, 5)
    keep = np.tile(np.arange(60), (4, 1))
    logits = []
    for chunk in (first, mixed):
        with open_context(model) as (context, kvc):
            start(context, kvc, chunk)
            assert kvc.commit(keep, chunk.positions[0][:60]) == ns.OK, kvc.reason
            decode(context, second)
            logits.append(ask(context, 30))
    assert np.array_equal(logits[0], logits[1])


# --- commit: re-rotation -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_re_rotated_keys_equal_keys_decoded_at_the_new_positions(models: Any, kind: str) -> None:
    """Alone in its context a chunk sees only relative positions, so all layers move alike."""
    model = models(kind)
    n_axes = model.n_pos_per_embd
    masks = [1, 7] if n_axes == 4 else [1]
    for mask in masks:
        shifts = [-6, 11, 40, -1][: model.n_layer]
        chunk = make_chunk(model, 6, (3, 4), 8, 0)
        with open_context(model) as (context, kvc):
            assert kvc.begin(len(chunk)) == ns.OK
            decode(context, chunk)
            keep = np.tile(np.arange(len(chunk)), (model.n_layer, 1))
            delta = np.broadcast_to(np.array(shifts)[:, None], keep.shape)
            status = kvc.commit(keep, chunk.positions[0], delta=delta, mask=mask)
            assert status == ns.OK, kvc.reason
            moved = read_state(context)
        for layer, shift in enumerate(shifts):
            positions = chunk.positions.copy()
            for axis in range(min(n_axes, 3)):
                positions[axis] += shift * (mask >> axis & 1)
            with open_context(model) as (context, _):
                decode(context, ns.Chunk(chunk.rows, positions))
                there = read_state(context)
            for got, expected in ((moved.k, there.k), (moved.v, there.v)):
                np.testing.assert_allclose(
                    as_floats(got[layer], "f32"),
                    as_floats(expected[layer], "f32"),
                    rtol=0,
                    atol=ns.near(2e-4, DEVICE_MOVED),
                )


@pytest.mark.parametrize("run", ["as it is", "scheduled"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kept_token_moves_by_its_own_change(models: Any, kind: str, run: str) -> None:
    """Layer 0's keys depend on embedding and position alone, so any positions can be decoded."""
    model = models(kind)
    chunk = make_chunk(model, 6, (3, 4), 30, 0)
    kept = np.flatnonzero(np.arange(len(chunk)) % 3 != 1)
    new_t = 5 + np.arange(len(kept)) // (2 if model.n_pos_per_embd == 4 else 1)
    with open_context(model) as (context, kvc):
        assert kvc.begin(len(chunk), flags=RUNS[run]) == ns.OK
        decode(context, chunk)
        keep = np.tile(kept, (model.n_layer, 1))
        delta = np.tile(new_t - chunk.positions[0][kept], (model.n_layer, 1))
        assert kvc.commit(keep, new_t, delta=delta) == ns.OK, kvc.reason
        moved = read_state(context)
    positions = chunk.positions[:, kept].copy()
    positions[0] = new_t
    with open_context(model) as (context, _):
        decode(context, ns.Chunk(chunk.rows[kept], positions))
        there = read_state(context)
    assert moved.pos.tolist() == there.pos.tolist() == new_t.tolist()
    got, expected = (as_floats(state.k[0], "f32") for state in (moved, there))
    np.testing.assert_allclose(got, expected, rtol=0, atol=ns.near(1e-4, DEVICE_FORWARD))


@pytest.mark.parametrize(
    ("cache", "bound"), [("f16 flash", 5e-4), ("q8_0 flash", 0.008), ("q4_0 flash", 0.13)]
)
@pytest.mark.parametrize("kind", ["golden", "imrope"])
def test_one_re_rotation_costs_one_rounding(
    models: Any, kind: str, cache: str, bound: float
) -> None:
    """Relative error of keys re-rotated inside a narrow cache, against exactly rotated ones."""
    model = models(kind)
    chunk = make_chunk(model, 6, (3, 4), 8, 0)
    moved_chunk = ns.Chunk(chunk.rows, chunk.positions + np.array([[9], [0], [0], [0]], np.int32))
    keep = np.tile(np.arange(len(chunk)), (model.n_layer, 1))
    with open_context(model, **CACHES[cache]) as (context, kvc):
        assert kvc.begin(len(chunk)) == ns.OK
        decode(context, chunk)
        status = kvc.commit(keep, moved_chunk.positions[0], delta=np.full_like(keep, 9))
        assert status == ns.OK, kvc.reason
        moved = as_floats(read_state(context).k[0], cache)
    with open_context(model) as (context, _):
        decode(context, moved_chunk)
        exact = as_floats(read_state(context).k[0], "f32")
    if cache.startswith("q") and kind == "imrope":
        moved = undo_hadamard(moved)
    error = np.linalg.norm(moved - exact) / np.linalg.norm(exact)
    assert 0 < error < bound


# --- state, fragments, many chunks -------------------------------------------------------------


@pytest.mark.parametrize("cache", CACHES)
def test_a_saved_state_answers_as_the_compressed_cache_did(models: Any, cache: str) -> None:
    model = models("golden")
    chunk = chunk_of(model)
    with open_context(model, **CACHES[cache]) as (context, kvc):
        start(context, kvc, chunk)
        assert kvc.commit(random_keep(4, 72, 20), positions_for(chunk, 20)) == ns.OK
        state, logits = context.sequence_state(), ask(context, 20)
    with open_context(model, **CACHES[cache]) as (context, _):
        context.set_sequence_state(state)
        np.testing.assert_allclose(
            ask(context, 20), logits, rtol=0, atol=ns.near(1e-5, DEVICE_LOGIT)
        )


@pytest.mark.parametrize("cache", ["f32", "q8_0 flash"])
def test_a_chunk_in_scattered_cells_compresses_the_same(models: Any, cache: str) -> None:
    """Another sequence's removed tokens leave holes, which the chunk fills."""
    limit = DEVICE_FORWARD if cache == "f32" else DEVICE_QUANTIZED
    model = models("golden")
    chunk, filler = chunk_of(model), make_chunk(model, 10, (2, 2), 0, 3)
    keep = random_keep(4, len(chunk), 20)
    results = []
    for scattered in (False, True):
        with open_context(model, n_seq_max=2, **CACHES[cache]) as (context, kvc):
            if scattered:
                decode(context, filler, seq=1)
                for t in (1, 2, 5, 7):
                    assert context.remove(t, t + 1, seq=1)
            start(context, kvc, chunk)
            status, scores = kvc.scores(len(chunk))
            assert status == ns.OK, kvc.reason
            cells, _ = kvc.cells()
            assert (np.diff(cells) == 1).all() == (not scattered)
            assert kvc.commit(keep, positions_for(chunk, 20)) == ns.OK, kvc.reason
            state, logits = read_state(context), ask(context, 20)
            results.append((scores, state, logits))
            saved = context.sequence_state()
        with open_context(model, n_seq_max=2, **CACHES[cache]) as (context, _):
            context.set_sequence_state(saved)
            np.testing.assert_allclose(
                ask(context, 20), logits, rtol=0, atol=ns.near(1e-4, DEVICE_LOGIT)
            )
    (plain_scores, plain, plain_logits), (scores, state, logits) = results
    np.testing.assert_allclose(scores, plain_scores, rtol=0, atol=ns.near(1e-5, limit))
    np.testing.assert_allclose(logits, plain_logits, rtol=0, atol=ns.near(1e-4, DEVICE_LOGIT))
    for layer in range(4):
        got, expected = as_floats(state.k[layer], cache), as_floats(plain.k[layer], cache)
        np.testing.assert_allclose(
            got[N_TEXT:], expected[N_TEXT:], rtol=0, atol=ns.near(1e-2, DEVICE_QUANTIZED)
        )


def test_freed_cells_serve_the_next_chunks(models: Any) -> None:
    """Fifteen chunks of 72 through 256 cells: only the kept ones stay."""
    model = models("golden")
    with open_context(model) as (context, kvc):
        context.decode_tokens([1, 2, 3], 0)
        for i in range(15):
            chunk = make_chunk(model, 6, (3, 4), N_TEXT + 6 * i, i)
            assert kvc.begin(len(chunk)) == ns.OK, kvc.reason
            decode(context, chunk)
            status, scores = kvc.scores(len(chunk))
            assert status == ns.OK, kvc.reason
            keep = np.sort(np.argsort(-scores, axis=1)[:, :10], axis=1)
            assert kvc.commit(keep, positions_for(chunk, 10)) == ns.OK, kvc.reason
            assert kvc.query(ns.N_CELLS_USED) == N_TEXT + 10 * (i + 1)
        cells, _ = kvc.cells()
        assert cells.tolist() == list(range(N_TEXT + 150))
        assert np.isfinite(ask(context, 200)).all()


# --- capture and graph reuse -------------------------------------------------------------------


def test_graphs_are_reused_during_a_capture(models: Any) -> None:
    model = models("golden")
    chunk = make_chunk(model, 8, (4, 4), N_TEXT, 0)  # four equal ubatches of 32
    llama = library.load_libraries()
    llama.llama_perf_context.restype = llama.llama_perf_context_data

    def n_reused(context: Context) -> int:
        return int(llama.llama_perf_context(context.handle).n_reused)

    with open_context(model, n_ctx=512) as (context, kvc):
        expected: ns.Array | None = None
        for stride in (0, 1, 0, 1, 3, 0, 1):
            context.clear()
            context.decode_tokens([1, 2, 3], 0)
            if stride:
                assert kvc.begin(len(chunk), stride=stride) == ns.OK, kvc.reason
            before = n_reused(context)
            decode(context, chunk)
            assert n_reused(context) - before >= 2
            logits = context.logits()
            if stride == 0:
                continue
            status, scores = kvc.scores(len(chunk))
            assert status == ns.OK, kvc.reason
            assert np.array_equal(context.logits(), logits)
            if stride == 1:
                expected = scores if expected is None else expected
                np.testing.assert_allclose(scores, expected, rtol=0, atol=ns.SCORE)
            assert kvc.abort() == ns.OK


def test_scores_of_a_cache_in_host_memory_leave_the_next_graph_reusable(models: Any) -> None:
    """Nothing is reserved again: the decode after them goes on as if they had not been asked."""
    model = models("golden")
    llama = library.load_libraries()
    llama.llama_perf_context.restype = llama.llama_perf_context_data
    with open_context(model) as (context, kvc):
        if not is_on_host(context):
            return  # on a device they run on the scheduler, whose graphs are made anew
        assert kvc.begin(40) == ns.OK
        for i in range(20):
            context.decode_tokens([1], i)
        before = llama.llama_perf_context(context.handle).n_reused
        for i in range(20, 30):
            assert kvc.scores(i)[0] == ns.OK, kvc.reason
            assert kvc.values(i, kvc.query(ns.N_EMBD_V))[0] == ns.OK, kvc.reason
            context.decode_tokens([1], i)
        assert llama.llama_perf_context(context.handle).n_reused == before + 10


def is_on_host(context: Context) -> bool:
    """Whether all cells are in this machine's memory."""
    return all(not use.device for use in buffers_of(context) if use.cells)


def test_no_graph_is_reused_across_the_ends_of_a_capture(models: Any) -> None:
    """Three batches of one shape: before, during and after the capture."""
    model, trace = models("golden"), AttentionTrace()
    parts = [make_chunk(model, 2, (4, 4), 2 * i, i) for i in range(3)]
    with open_context(model, cb_eval=trace.callback) as (context, _):
        for part in parts:
            trace.clear()
            decode(context, part)
            if part is parts[1]:
                expected = [
                    ns.expected_scores(trace.q(layer), trace.k(layer), head_scale(model))
                    for layer in range(4)
                ]
        never_captured = context.logits()
    with open_context(model) as (context, kvc):
        decode(context, parts[0])
        assert kvc.begin(32) == ns.OK
        decode(context, parts[1])
        status, scores = kvc.scores(32)
        assert status == ns.OK, kvc.reason
        np.testing.assert_allclose(scores, expected, rtol=0, atol=ns.SCORE)
        assert kvc.abort(remove=True) == ns.OK
        assert kvc.begin(32) == ns.OK
        decode(context, parts[1])
        assert kvc.abort(remove=False) == ns.OK
        assert kvc.free() == ns.OK  # the graph that wrote to these buffers must not run again
        decode(context, parts[2])
        np.testing.assert_allclose(
            context.logits(), never_captured, rtol=0, atol=ns.near(1e-5, DEVICE_LOGIT)
        )


def test_capturing_does_not_change_a_logit(models: Any) -> None:
    model = models("golden")
    chunk = chunk_of(model)
    with open_context(model) as (context, kvc):
        start(context, kvc, chunk)
        captured = context.logits()
    with open_context(model) as (context, _):
        context.decode_tokens([1, 2, 3], 0)
        decode(context, chunk)
        assert np.array_equal(context.logits(), captured)


def test_the_query_buffers_are_returned_on_request(models: Any) -> None:
    model = models("golden")
    with open_context(model) as (context, kvc):
        assert kvc.begin(64, stride=4) == ns.OK
        n_bytes = kvc.query(ns.Q_BYTES)
        assert n_bytes >= 4 * 17 * 4 * 32 * 4  # layers, rows, heads, head size, f32
        assert kvc.free() == ns.STATE
        assert kvc.abort() == ns.OK
        assert kvc.query(ns.Q_BYTES) == n_bytes
        assert kvc.free() == ns.OK
        assert kvc.query(ns.Q_BYTES) == 0
        start(context, kvc, chunk_of(model))
        assert kvc.scores(72)[0] == ns.OK


# --- failures ----------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS is Linux's")
def test_queries_that_find_no_memory_are_refused_and_the_decode_goes_on() -> None:
    """In a process of its own, whose address space is limited: 128 MiB of queries do not fit."""
    code = f"""
import resource, sys
sys.path.insert(0, {str(Path(__file__).parents[1] / "support")!r})
import native_support as ns
from retake_edge.llama.model import Model
n_cells = 1 << 16
with Model(ns.GOLDEN_MODEL, n_gpu_layers=0) as model:
    with ns.open_context(model, n_ctx=n_cells) as (context, kvc):
        context.decode_tokens([1, 2, 3], 0)
        used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), -1))
        print(kvc.begin(n_cells), kvc.reason)
        context.decode_tokens([4], 3)
        print(kvc.begin(8), kvc.query(ns.Q_BYTES) > 0)
"""
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    first, second = done.stdout.splitlines()
    assert first.startswith("-6 ") and "MiB for the queries of 65536 tokens" in first, done.stderr
    assert second == "0 True"


def test_abort_leaves_other_sequences_as_they_were(models: Any) -> None:
    model = models("golden")
    chunk, other = chunk_of(model), make_chunk(model, 4, (3, 4), 0, 7)
    with open_context(model, n_seq_max=2) as (context, kvc):
        decode(context, other, seq=1)
        before = context.sequence_state(1)
        context.decode_tokens([1, 2, 3], 0)
        assert kvc.begin(len(chunk)) == ns.OK
        decode(context, ns.Chunk(chunk.rows[:40], chunk.positions[:, :40]))
        assert kvc.abort(remove=True) == ns.OK
        assert context.sequence_state(1) == before
        assert context.position_max(0) == N_TEXT - 1
        assert kvc.query(ns.N_CELLS_USED) == N_TEXT + len(other)


def test_another_sequences_tokens_are_not_part_of_the_chunk(models: Any) -> None:
    model = models("golden")
    chunk, other = chunk_of(model), make_chunk(model, 4, (3, 4), 0, 7)
    results = []
    for interleaved in (False, True):
        with open_context(model, n_seq_max=2) as (context, kvc):
            context.decode_tokens([1, 2, 3], 0)
            assert kvc.begin(len(chunk)) == ns.OK
            decode(context, ns.Chunk(chunk.rows[:40], chunk.positions[:, :40]))
            if interleaved:
                decode(context, other, seq=1)
            decode(context, ns.Chunk(chunk.rows[40:], chunk.positions[:, 40:]))
            assert kvc.query(ns.N_TOKENS) == len(chunk)
            status, scores = kvc.scores(len(chunk))
            assert status == ns.OK, kvc.reason
            before = context.sequence_state(1)
            assert kvc.commit(random_keep(4, 72, 9), positions_for(chunk, 9)) == ns.OK
            assert context.sequence_state(1) == before
            results.append(scores)
    np.testing.assert_allclose(results[1], results[0], rtol=0, atol=ns.near(1e-5, DEVICE_FORWARD))


def _load_state(context: Context) -> None:
    context.set_sequence_state(context.sequence_state())


INTERRUPTIONS: dict[str, Callable[[Any, Context, Any], Any]] = {
    "clear": lambda llama, context, memory: context.clear(),
    "seq_rm": lambda llama, context, memory: context.remove(2, 4),
    "seq_cp": lambda llama, context, memory: context.copy(0, 1),
    "seq_keep": lambda llama, context, memory: llama.llama_memory_seq_keep(memory, 0),
    "seq_add": lambda llama, context, memory: llama.llama_memory_seq_add(memory, 0, 0, -1, 3),
    "seq_div": lambda llama, context, memory: llama.llama_memory_seq_div(memory, 0, 0, -1, 2),
    "state_read": lambda llama, context, memory: _load_state(context),
}


@pytest.mark.parametrize("what", INTERRUPTIONS)
def test_changing_the_sequence_ends_a_capture(models: Any, what: str) -> None:
    model = models("norm")
    chunk = chunk_of(model)
    llama = library.load_libraries()
    with open_context(model, n_seq_max=2) as (context, kvc):
        start(context, kvc, chunk)
        INTERRUPTIONS[what](llama, context, llama.llama_get_memory(context.handle))
        assert kvc.query(ns.CAPTURE) == ns.BROKEN
        assert kvc.scores(72)[0] == ns.STATE
        assert what in kvc.reason
        keep = random_keep(3, len(chunk), 9)
        assert kvc.commit(keep, positions_for(chunk, 9)) == ns.STATE
        assert kvc.begin(10) == ns.STATE
        n_used = kvc.query(ns.N_CELLS_USED)
        assert kvc.abort(remove=True) == ns.OK
        assert kvc.query(ns.N_CELLS_USED) <= n_used
        if what == "state_read":  # what was loaded is not the chunk
            assert kvc.query(ns.N_CELLS_USED) == n_used
        context.clear()
        start(context, kvc, chunk)
        assert kvc.scores(72)[0] == ns.OK


def test_another_sequences_changes_do_not_end_a_capture(models: Any) -> None:
    model = models("golden")
    chunk = chunk_of(model)
    with open_context(model, n_seq_max=2) as (context, kvc):
        decode(context, make_chunk(model, 4, (3, 4), 0, 7), seq=1)
        start(context, kvc, chunk)
        assert context.remove(-1, -1, seq=1)
        assert kvc.query(ns.CAPTURE) == ns.OPEN
        assert kvc.scores(72)[0] == ns.OK


def test_an_aborted_invalid_capture_spares_later_tokens_in_its_cells(models: Any) -> None:
    model = models("golden")
    chunk = chunk_of(model)
    with open_context(model) as (context, kvc):
        start(context, kvc, chunk)
        assert context.remove(N_TEXT, -1)
        decode(context, chunk)  # the same cells and positions again, no longer captured
        assert kvc.abort(remove=True) == ns.OK
        assert kvc.query(ns.N_CELLS_USED) == N_TEXT + len(chunk)


def test_a_full_cache_leaves_the_capture_usable(models: Any) -> None:
    model = models("golden")
    chunk = chunk_of(model)
    with open_context(model, n_ctx=256, n_batch=256) as (context, kvc):
        context.decode_tokens([1, 2, 3], 0)
        assert kvc.begin(256) == ns.OK
        decode(context, chunk)
        with pytest.raises(MemoryBudgetError):
            decode(context, make_chunk(model, 16, (3, 4), 20, 1))
        assert kvc.query(ns.N_TOKENS) == len(chunk)
        status, _ = kvc.scores(len(chunk))
        assert status == ns.OK, kvc.reason
        assert kvc.commit(random_keep(4, 72, 9), positions_for(chunk, 9)) == ns.OK
        decode(context, make_chunk(model, 16, (3, 4), 20, 1))


def test_a_failed_decode_ends_the_capture(models: Any) -> None:
    """The second ubatch is stopped by llama.cpp's abort callback."""
    model = models("golden on the CPU")
    chunk = chunk_of(model)
    llama = library.load_libraries()
    calls = {"left": 10**9}

    def stop(_data: object) -> bool:
        calls["left"] -= 1
        return calls["left"] < 0

    callback = llama.ggml_abort_callback(stop)
    with open_context(model) as (context, kvc):
        context.decode_tokens([1, 2, 3], 0)
        llama.llama_set_abort_callback(context.handle, callback, None)
        assert kvc.begin(len(chunk)) == ns.OK
        decode(context, ns.Chunk(chunk.rows[:32], chunk.positions[:, :32]))
        calls["left"] = 1
        with pytest.raises(NativeError):
            decode(context, ns.Chunk(chunk.rows[32:], chunk.positions[:, 32:]))
        llama.llama_set_abort_callback(context.handle, llama.ggml_abort_callback(), None)
        assert kvc.scores(32)[0] == ns.STATE
        assert kvc.abort(remove=True) == ns.OK
        assert context.position_max(0) == N_TEXT - 1
        start_again(context, kvc, chunk)


@pytest.mark.parametrize("run", ["as it is", "scheduled"])
def test_a_graph_stopped_half_way_is_reported_and_loses_at_most_the_chunk(
    models: Any, run: str
) -> None:
    model = models("golden on the CPU")
    chunk, other = chunk_of(model), make_chunk(model, 4, (3, 4), 0, 7)
    llama = library.load_libraries()
    stop = llama.ggml_abort_callback(lambda _data: True)
    go_on = llama.ggml_abort_callback()
    with open_context(model, n_seq_max=2) as (context, kvc):
        decode(context, other, seq=1)
        before = context.sequence_state(1)
        start(context, kvc, chunk, flags=ns.CAPTURE_Q | RUNS[run])
        llama.llama_set_abort_callback(context.handle, stop, None)
        assert kvc.scores(len(chunk))[0] == ns.COMPUTE
        llama.llama_set_abort_callback(context.handle, go_on, None)
        assert kvc.scores(len(chunk))[0] == ns.OK, kvc.reason
        llama.llama_set_abort_callback(context.handle, stop, None)
        keep = random_keep(4, len(chunk), 20)
        assert kvc.commit(keep, positions_for(chunk, 20)) == ns.CHUNK_LOST
        assert "72 tokens" in kvc.reason
        llama.llama_set_abort_callback(context.handle, go_on, None)
        assert kvc.query(ns.CAPTURE) == ns.IDLE
        assert kvc.query(ns.N_CELLS_USED) == N_TEXT + len(other)
        assert context.sequence_state(1) == before
        start_again(context, kvc, chunk)


def start_again(context: Context, kvc: Kvc, chunk: ns.Chunk) -> None:
    assert kvc.begin(len(chunk)) == ns.OK, kvc.reason
    decode(context, chunk)
    status, _ = kvc.scores(len(chunk))
    assert status == ns.OK, kvc.reason


def test_more_tokens_than_announced_end_the_capture_not_the_decode(models: Any) -> None:
    model = models("golden")
    chunk = chunk_of(model)
    with open_context(model) as (context, kvc):
        context.decode_tokens([1, 2, 3], 0)
        assert kvc.begin(50) == ns.OK
        decode(context, chunk)
        assert kvc.scores(50)[0] == ns.STATE
        assert "n_max = 50" in kvc.reason


def test_nan_features_are_reported_and_leave_no_trace_after_abort(models: Any) -> None:
    model = models("golden")
    chunk = chunk_of(model)
    broken = ns.Chunk(chunk.rows.copy(), chunk.positions)
    broken.rows[30] = np.nan
    for flash in ("off", "on"):
        with open_context(model, flash_attention=flash) as (context, kvc):
            start(context, kvc, broken)
            status, _ = kvc.scores(len(chunk))
            assert status == ns.NOT_FINITE
            assert "layer 0" in kvc.reason
            assert kvc.abort(remove=True) == ns.OK
            assert np.isfinite(ask(context, 20)).all()


def test_a_nan_that_a_commit_drops_leaves_no_trace(models: Any) -> None:
    """The broken feature is in the last ubatch: the rows of the first two are sound."""
    model = models("golden")
    chunk = chunk_of(model)
    chunk.rows[70] = np.nan
    for flash in ("off", "on"):
        with open_context(model, flash_attention=flash) as (context, kvc):
            start(context, kvc, chunk, flags=0)
            keep = np.tile(np.arange(60), (4, 1))
            assert kvc.commit(keep, chunk.positions[0][:60]) == ns.OK, kvc.reason
            assert np.isfinite(ask(context, 20)).all()


def test_cells_of_two_sequences_are_refused(models: Any) -> None:
    model = models("golden")
    llama = library.load_libraries()
    with open_context(model, n_seq_max=2) as (context, kvc):
        assert kvc.begin(8) == ns.OK
        n = 4
        batch = llama.llama_batch_init(n, 0, 2)
        batch.n_tokens = n
        for i in range(n):
            batch.token[i], batch.pos[i], batch.logits[i] = i + 1, i, 0
            batch.n_seq_id[i] = 2
            batch.seq_id[i][0], batch.seq_id[i][1] = 0, 1
        assert llama.llama_decode(context.handle, batch) == 0
        llama.llama_batch_free(batch)
        assert kvc.query(ns.N_TOKENS) == n
        keep = random_keep(4, n, 2)
        assert kvc.commit(keep, np.arange(2)) == ns.SHARED
        assert kvc.query(ns.N_CELLS_USED) == n


def test_unsuitable_models_are_refused_with_the_reason(models: Any) -> None:
    kinds = {"sliding": "sliding-window", "alibi": "ALiBi", "indexed": "index beside"}
    for kind, word in kinds.items():
        with open_context(models(kind), flash_attention="off") as (_, kvc):
            assert kvc.supported() == ns.UNSUPPORTED
            assert word in kvc.reason
            assert kvc.begin(8) == ns.UNSUPPORTED
            assert kvc.query(ns.N_LAYER) == ns.UNSUPPORTED


def test_attention_with_a_bias_has_no_scores_in_any_capture(models: Any) -> None:
    with open_context(models("biased"), n_seq_max=1) as (context, kvc):
        encode(context, [1, 2, 3])
        for _ in range(3):  # the later captures reuse the graph that was refused first
            assert kvc.begin(8) == ns.OK, kvc.reason
            context.decode_tokens([4, 5, 6, 7], 0)
            assert kvc.scores(4)[0] == ns.UNSUPPORTED
            assert "bias" in kvc.reason
            assert kvc.values(4, kvc.query(ns.N_EMBD_V))[0] == ns.OK, kvc.reason
            assert kvc.abort() == ns.OK
        assert kvc.begin(8, flags=0) == ns.OK
        context.decode_tokens([4, 5, 6, 7], 0)
        assert kvc.scores(4)[0] == ns.STATE, "the reason of earlier captures is gone"
        assert "CAPTURE_Q" in kvc.reason


def encode(context: Context, tokens: list[int]) -> None:
    """Run the encoder of a model that has one."""
    llama = library.load_libraries()
    array = (llama.llama_token * len(tokens))(*tokens)
    assert llama.llama_encode(context.handle, llama.llama_batch_get_one(array, len(tokens))) == 0


def test_calls_out_of_order_are_refused(models: Any) -> None:
    model = models("golden")
    with open_context(model) as (context, kvc):
        assert kvc.supported() == ns.OK
        assert kvc.reason == ""
        assert kvc.scores(1)[0] == ns.STATE
        assert kvc.commit(np.zeros((4, 1)), np.zeros(1)) == ns.STATE
        assert kvc.abort() == ns.OK
        assert kvc.begin(8) == ns.OK
        assert kvc.begin(8) == ns.STATE
        assert kvc.scores(1)[0] == ns.STATE  # nothing decoded yet
        assert kvc.abort() == ns.OK
        start(context, kvc, make_chunk(model, 1, (2, 2), N_TEXT, 0), flags=0)
        assert kvc.scores(4)[0] == ns.STATE
        assert "CAPTURE_Q" in kvc.reason


@pytest.mark.parametrize(
    ("n_max", "options"),
    [
        (0, {}),
        (-1, {}),
        (257, {}),
        (8, {"seq": -1}),
        (8, {"seq": 1}),
        (8, {"stride": 0}),
        (8, {"flags": 64}),
    ],
)
def test_begin_refuses_bad_arguments(models: Any, n_max: int, options: dict[str, int]) -> None:
    with open_context(models("golden")) as (_, kvc):
        assert kvc.begin(n_max, **options) == ns.INVALID
        assert kvc.reason
        assert kvc.query(ns.CAPTURE) == ns.IDLE


def test_scores_values_and_attention_refuse_ranges_outside_the_chunk(models: Any) -> None:
    model = models("golden")
    chunk = chunk_of(model)
    big = 2**31 - 1
    with open_context(model) as (context, kvc):
        start(context, kvc, chunk, stride=10)
        for q, k0, n in [
            ((0, 72), 0, 0), ((0, 72), 1, 72), ((0, 72), -1, 3), ((0, 0), 0, 72),
            ((1, 72), 0, 72), ((-1, 5), 0, 72), ((1, big), 0, 72), ((big, 1), 0, 72),
            ((0, 72), big, 1),
            ((1, 5), 0, 72),  # no query was kept there
        ]:  # fmt: skip
            assert kvc.scores(n, q=q, k0=k0)[0] == ns.INVALID, (q, k0, n)
            assert kvc.reason
        assert kvc.scores(72, flags=2)[0] == ns.INVALID
        assert kvc.attention((0, 72), 0, 76)[0] == ns.INVALID
        assert kvc.attention((0, 72), -1, 3)[0] == ns.INVALID
        assert kvc.values(72, 63)[0] == ns.INVALID
        assert kvc.values(73, 64)[0] == ns.INVALID
        assert kvc.values(72, 0, np.zeros((1, 64), np.float32))[0] == ns.INVALID
        assert kvc.query(99) == ns.INVALID
        assert kvc.scores(72)[0] == ns.OK, kvc.reason


def test_commit_refuses_bad_arguments_and_changes_nothing(models: Any) -> None:
    model = models("golden")
    chunk = chunk_of(model)
    with open_context(model) as (context, kvc):
        start(context, kvc, chunk)
        before = context.sequence_state()
        keep, pos = random_keep(4, 72, 9), positions_for(chunk, 9)
        outside, twice, falling, negative = keep.copy(), keep.copy(), pos.copy(), pos.copy()
        outside[3, 8] = 72
        twice[2, 1] = twice[2, 0]
        falling[0] = falling[8] + 1
        negative[0] = -1
        zero = np.zeros_like(keep)
        refused: list[tuple[Any, Any, dict[str, Any]]] = [
            (outside, pos, {}),
            (twice, pos, {}),
            (keep[:, ::-1], pos, {}),
            (keep - 100, pos, {}),
            (keep, falling, {}),
            (keep, negative, {}),
            (None, pos, {"n_keep": 9}),
            (keep, None, {}),
            (keep, pos, {"n_keep": 0}),
            (keep, pos, {"n_keep": -5}),
            (keep, pos, {"delta": zero, "mask": 0}),
            (keep, pos, {"delta": zero, "mask": 16}),
            (keep, pos, {"delta": zero, "n_keep": 73}),
        ]
        for bad_keep, bad_pos, options in refused:
            assert kvc.commit(bad_keep, bad_pos, **options) == ns.INVALID, options
            assert kvc.reason
            assert context.sequence_state() == before
        assert kvc.commit(keep, pos) == ns.OK, kvc.reason


def test_null_pointers_are_refused(models: Any) -> None:
    with open_context(models("golden")) as (context, kvc):
        lib = library.load_libraries()._lib
        null = ctypes.c_void_p(None)
        assert lib.retake_kvc_begin(null, 0, 8, 0, 1, 1) == ns.INVALID
        assert lib.retake_kvc_supported(null) == ns.INVALID
        start(context, kvc, make_chunk(models("golden"), 1, (2, 2), N_TEXT, 0))
        handle = ctypes.c_void_p(context.handle)
        edge = (ctypes.c_int32 * 2)(0, 4)
        assert lib.retake_kvc_scores(handle, null, 1, edge, 0, 4, 0) == ns.INVALID
        out = (ctypes.c_float * 64)()
        assert lib.retake_kvc_scores(handle, out, 1, null, 0, 4, 0) == ns.INVALID
        assert lib.retake_kvc_attention(handle, null, 0, 4, 0, 4) == ns.INVALID
        assert lib.retake_kvc_values(handle, null, null, 64, 0, 4) == ns.INVALID


# --- the patch beside the cache ----------------------------------------------------------------


def test_qwen2vl_models_use_their_own_norm_epsilon(models: Any, tmp_path: Path) -> None:
    key, value = b"layer_norm_rms_epsilon", struct.Struct("<If")
    data = bytearray(ns.GOLDEN_MODEL.read_bytes())
    at = data.index(key) + len(key)
    kind, epsilon = value.unpack_from(data, at)
    assert epsilon == pytest.approx(1e-6)
    value.pack_into(data, at, kind, 0.1)
    (tmp_path / "other.gguf").write_bytes(data)
    logits = []
    with Model(tmp_path / "other.gguf") as other:
        for model in (models("golden"), other):
            with open_context(model) as (context, _):
                logits.append(ask(context, 0))
    assert np.abs(logits[0] - logits[1]).max() > 1e-3
