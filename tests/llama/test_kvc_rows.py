"""retake-kvc.h, called as it is: a commit keeps each layer's own rows, and only those.

Oracles: the rows in llama.cpp's own state blob; contexts that had cells removed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import native_support as ns
import numpy as np
import pytest
from kvc_support import CACHES, N_TEXT, RUNS, chunk_of, positions_for, random_keep, start
from native_support import ask, decode, make_chunk, open_context, read_state
from random_models import write_model

from retake_edge.golden.limits import DEVICE_FORWARD, DEVICE_LOGIT, DEVICE_QUANTIZED
from retake_edge.llama.model import Model


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
