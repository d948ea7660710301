"""retake-kvc.h, called as it is: the scores of a chunk, and attention over compressed cells.

Oracle: a float64 softmax over the q and k that llama.cpp's own cb_eval shows.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import native_support as ns
import numpy as np
import pytest
from kvc_support import (
    CACHES,
    KINDS,
    N_TEXT,
    RUNS,
    as_floats,
    chunk_of,
    head_scale,
    positions_for,
    random_keep,
    start,
    undo_hadamard,
)
from native_support import AttentionTrace, decode, make_chunk, open_context, read_state

from retake_edge.golden.limits import DEVICE_FORWARD


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
        for first, end in pairwise(edges):
            kept = q[:, [i for i in range(first, end) if i % stride == 0]]
            share = (end - first) / kept.shape[1]
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
