"""retake-kvc.h, called as it is: every failure and refusal leaves what stood before."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import native_support as ns
import numpy as np
import pytest
from kvc_support import N_TEXT, RUNS, chunk_of, positions_for, random_keep, start
from native_support import Kvc, ask, decode, make_chunk, open_context

from retake_edge.errors import MemoryBudgetError, NativeError
from retake_edge.golden.limits import DEVICE_FORWARD
from retake_edge.llama import library
from retake_edge.llama.context import Context


@pytest.mark.process
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
