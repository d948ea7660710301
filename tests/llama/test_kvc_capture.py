"""retake-kvc.h, called as it is: a capture changes no logit, and graphs are reused around it."""

from __future__ import annotations

from typing import Any

import native_support as ns
import numpy as np
from kvc_support import N_TEXT, chunk_of, head_scale, start
from native_support import AttentionTrace, decode, make_chunk, open_context

from retake_edge.golden.limits import DEVICE_LOGIT
from retake_edge.llama import library
from retake_edge.llama.buffers import buffers_of
from retake_edge.llama.context import Context


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
