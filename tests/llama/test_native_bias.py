"""The bias of a kept cell: it weighs like so many cells, and the bias goes where the cell goes."""

from __future__ import annotations

import ctypes
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import native_support as ns
import numpy as np
import pytest
from native_support import AttentionTrace, Kvc, ask, decode, make_chunk, open_context, read_state
from random_models import write_model

from retake_edge.golden.limits import DEVICE_FORWARD
from retake_edge.llama import library
from retake_edge.llama.context import Context
from retake_edge.llama.model import Model

CACHES = {
    "f32": {"type_k": "f32", "type_v": "f32", "flash_attention": "off"},
    "f16 flash": {"type_k": "f16", "type_v": "f16", "flash_attention": "on"},
    "q8_0 flash": {"type_k": "q8_0", "type_v": "q8_0", "flash_attention": "on"},
}
N_TEXT, COPIES = 3, 5


@pytest.fixture(scope="module", params=["golden", "norm"])
def model(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    """Four positions a token, and one."""
    path = ns.GOLDEN_MODEL
    if request.param != "golden":
        path = write_model(tmp_path_factory.mktemp("bias") / "norm.gguf", request.param)
    with Model(path) as model:
        yield model


@pytest.fixture(scope="module")
def golden() -> Iterator[Model]:
    with Model(ns.GOLDEN_MODEL) as model:
        yield model


def chunk_with_copies(model: Model) -> ns.Chunk:
    """Twelve tokens, then the last one of them again, at the same place, up to COPIES in all."""
    chunk = make_chunk(model, 1, (3, 4), N_TEXT, 0)
    index = [*range(12), *[11] * (COPIES - 1)]
    return ns.Chunk(chunk.rows[index], chunk.positions[:, index])


def committed(
    context: Context, kvc: Kvc, chunk: ns.Chunk, n_keep: int, bias: ns.Array | None = None
) -> None:
    """Text, then the first tokens of a chunk."""
    context.decode_tokens([1, 2, 3], 0)
    assert kvc.begin(len(chunk)) == ns.OK, kvc.reason
    decode(context, chunk)
    keep = np.tile(np.arange(n_keep), (kvc.query(ns.N_LAYER), 1))
    assert kvc.commit(keep, chunk.positions[0][:n_keep], bias=bias) == ns.OK, kvc.reason


def a_bias(n: int, seed: int = 0) -> ns.Floats:
    return np.random.default_rng(seed).uniform(0, 3, n).astype(np.float32)


@pytest.mark.parametrize("cache", CACHES)
def test_a_cell_that_weighs_n_equals_n_cells_alike(golden: Model, cache: str) -> None:
    chunk = chunk_with_copies(golden)
    weighing = np.zeros(12, np.float32)
    weighing[11] = math.log(COPIES)
    logits = []
    for n_keep, bias in ((len(chunk), None), (12, weighing), (12, None)):
        with open_context(golden, **CACHES[cache]) as (context, kvc):
            committed(context, kvc, chunk, n_keep, bias)
            logits.append(ask(context, N_TEXT + 10))
    every, weighed, alone = logits
    matters = np.abs(alone - every).max()
    assert matters > 0.1, "copies must matter, or nothing is tested"
    # Narrow values are summed in f16 by the CPU's flash attention, five of them or one.
    limit = ns.near(2e-5, DEVICE_FORWARD) if cache == "f32" else 0.05 * matters
    assert np.abs(weighed - every).max() < limit


def test_the_answers_attention_counts_the_bias(golden: Model) -> None:
    chunk, trace, bias = chunk_with_copies(golden), AttentionTrace(), a_bias(12)
    with open_context(golden, cb_eval=trace.callback) as (context, kvc):
        context.decode_tokens([1, 2, 3], 0)
        trace.clear()
        assert kvc.begin(len(chunk)) == ns.OK, kvc.reason
        decode(context, chunk)
        n_layer = kvc.query(ns.N_LAYER)
        keys = [trace.k(layer)[:, :12] for layer in range(n_layer)]
        keep = np.tile(np.arange(12), (n_layer, 1))
        assert kvc.commit(keep, chunk.positions[0][:12], bias=bias) == ns.OK, kvc.reason
        trace.clear()
        assert kvc.begin(5) == ns.OK
        context.decode_tokens([9, 8, 7, 6, 5], 20)
        status, seen = kvc.attention((0, 5), N_TEXT, 12)
        assert status == ns.OK, kvc.reason
    for layer, got in enumerate(seen):
        q, k = trace.q(layer), np.repeat(keys[layer], len(trace.q(layer)) // len(keys[layer]), 0)
        weights = np.exp(np.einsum("hqd,hkd->hqk", q, k) / math.sqrt(32) + bias)
        weights /= weights.sum(-1, keepdims=True)
        np.testing.assert_allclose(got, weights.sum(1).mean(0), rtol=0, atol=ns.SCORE)


def test_a_saved_sequence_keeps_its_biases(model: Model) -> None:
    chunk, bias = make_chunk(model, 1, (3, 4), N_TEXT, 0), a_bias(8)
    with open_context(model) as (context, kvc):
        committed(context, kvc, chunk, 8, bias)
        following = int(chunk.positions[0][7]) + 1
        expected, blob = ask(context, following), context.sequence_state()
        np.testing.assert_array_equal(read_state(context).bias, [0, 0, 0, *bias])
    with open_context(model) as (context, _):
        context.set_sequence_state(blob)
        np.testing.assert_array_equal(ask(context, following), expected)


def test_a_freed_cell_leaves_no_bias_behind(model: Model) -> None:
    chunk = make_chunk(model, 1, (3, 4), N_TEXT, 0)
    logits = []
    for bias in (a_bias(8), None):
        with open_context(model) as (context, kvc):
            committed(context, kvc, chunk, 8, bias)
            assert context.remove(N_TEXT, -1)
            decode(context, chunk)
            logits.append(ask(context, int(chunk.positions[0].max()) + 1))
            assert not read_state(context).bias.any()
    np.testing.assert_array_equal(logits[0], logits[1])


def test_a_bias_that_is_not_finite_is_refused(model: Model) -> None:
    chunk = make_chunk(model, 1, (3, 4), N_TEXT, 0)
    with open_context(model) as (context, kvc):
        context.decode_tokens([1, 2, 3], 0)
        assert kvc.begin(len(chunk)) == ns.OK, kvc.reason
        decode(context, chunk)
        before = context.sequence_state()
        keep = np.tile(np.arange(4), (kvc.query(ns.N_LAYER), 1))
        for bad in (np.nan, np.inf, -np.inf):
            bias = np.array([0, bad, 0, 0], np.float32)
            assert kvc.commit(keep, chunk.positions[0][:4], bias=bias) == ns.INVALID
            assert "bias[1]" in kvc.reason
        assert context.sequence_state() == before


def test_a_state_file_of_cells_without_bias_is_refused_by_its_version(
    golden: Model, tmp_path: Path
) -> None:
    path = tmp_path / "state"
    with open_context(golden) as (context, _):
        context.decode_tokens([1, 2, 3], 0)
        lib, handle = library.load_libraries(), context.handle
        assert lib.llama_state_seq_save_file(handle, bytes(path), 0, None, 0)
        out, n_out = (lib.llama_token * 1)(), ctypes.c_size_t()
        load = (handle, bytes(path), 0, out, 0, ctypes.byref(n_out))
        assert lib.llama_state_seq_load_file(*load)
        content = path.read_bytes()
        path.write_bytes(content[:4] + struct.pack("<I", 3) + content[8:])
        assert not lib.llama_state_seq_load_file(*load)
