"""retake-kvc.h, called as it is: compressed cells are saved, scattered, freed and used again."""

from __future__ import annotations

from typing import Any

import native_support as ns
import numpy as np
import pytest
from kvc_support import CACHES, N_TEXT, as_floats, chunk_of, positions_for, random_keep, start
from native_support import ask, decode, make_chunk, open_context, read_state

from retake_edge.golden.limits import DEVICE_FORWARD, DEVICE_LOGIT, DEVICE_QUANTIZED


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
