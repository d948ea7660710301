"""retake-kvc.h on a hybrid model (Qwen3.5): attention layers compressed, recurrent ones streaming.

A state is compressed as it is and cannot go back, so what a chunk's removal cannot undo must be
put back from a copy.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import native_support as ns
import numpy as np
import pytest
from kvc_support import CACHES, N_TEXT, chunk_of, positions_for, random_keep, start
from native_support import AttentionTrace, decode, make_chunk, open_context, read_state
from random_models import HEAD_DIM, write_model

from retake_edge.golden.limits import DEVICE_LOGIT
from retake_edge.llama.context import Context
from retake_edge.llama.model import Model

ATTENTION_LAYERS = (1, 3)
AFTER = N_TEXT + 6  # the position after a chunk of six frames


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    path: Path = tmp_path_factory.mktemp("hybrid") / "hybrid.gguf"
    with Model(write_model(path, "hybrid", n_layer=4)) as loaded:
        yield loaded


def question(context: Context, position: int) -> ns.Floats:
    """Logits after four tokens, which are taken back."""
    states = context.save_states()
    context.decode_tokens([5, 6, 7, 8], position)
    logits = context.logits()
    context.rewind(position, states)
    return np.asarray(logits)


def test_only_layers_with_attention_are_counted(model: Model) -> None:
    assert model.has_states
    with open_context(model) as (_, kvc):
        assert kvc.supported() == ns.OK, kvc.reason
        assert kvc.query(ns.N_LAYER) == len(ATTENTION_LAYERS)


def test_scores_equal_a_float64_softmax_of_the_same_q_and_k(model: Model) -> None:
    trace, chunk = AttentionTrace(), chunk_of(model)
    with open_context(model, cb_eval=trace.callback) as (context, kvc):
        context.decode_tokens([1, 2, 3], 0)
        trace.clear()
        assert kvc.begin(len(chunk)) == ns.OK, kvc.reason
        decode(context, chunk)
        status, scores = kvc.scores(len(chunk))
    assert status == ns.OK, kvc.reason
    scale = 1 / math.sqrt(HEAD_DIM)
    expected = [ns.expected_scores(trace.q(il), trace.k(il), scale) for il in ATTENTION_LAYERS]
    np.testing.assert_allclose(scores, expected, rtol=0, atol=ns.SCORE)
    assert np.ptp(expected, axis=1).min() > 0.1, "the model's attention is too flat to test with"


@pytest.mark.parametrize("cache", CACHES)
def test_commit_keeps_each_layers_own_rows_and_the_states(model: Model, cache: str) -> None:
    chunk = chunk_of(model)
    with open_context(model, **CACHES[cache]) as (context, kvc):
        start(context, kvc, chunk)
        before, states = read_state(context), context.save_states()
        keep = random_keep(kvc.query(ns.N_LAYER), len(chunk), 20)
        assert kvc.commit(keep, positions_for(chunk, 20)) == ns.OK, kvc.reason
        after = read_state(context)
        assert kvc.query(ns.N_CELLS_USED) == N_TEXT + 20
        assert context.save_states() == states
    assert after.pos.tolist() == [0, 1, 2, *positions_for(chunk, 20)]
    for layer, kept in enumerate(keep):
        rows = [*range(N_TEXT), *(N_TEXT + kept)]
        assert np.array_equal(after.k[layer], before.k[layer][rows])
        assert np.array_equal(after.v[layer], before.v[layer][rows])


@pytest.mark.parametrize("cache", CACHES)
def test_keeping_everything_changes_no_logit(model: Model, cache: str) -> None:
    chunk, logits = chunk_of(model), []
    for capture in (False, True):
        with open_context(model, **CACHES[cache]) as (context, kvc):
            if capture:
                start(context, kvc, chunk)
                keep = np.tile(np.arange(len(chunk)), (kvc.query(ns.N_LAYER), 1))
                assert kvc.commit(keep, chunk.positions[0]) == ns.OK, kvc.reason
            else:
                context.decode_tokens([1, 2, 3], 0)
                decode(context, chunk)
            logits.append(question(context, AFTER))
    assert np.array_equal(logits[0], logits[1])


@pytest.mark.parametrize("cache", ["f32", "q8_0 flash"])
def test_a_uniform_keep_equals_removing_the_same_cells(model: Model, cache: str) -> None:
    """The states have seen all six frames in both contexts; frames 1 and 4 lose their cells."""
    chunk = chunk_of(model)
    frame = np.arange(len(chunk)) // 12
    kept = np.flatnonzero((frame != 1) & (frame != 4))
    second = make_chunk(model, 2, (3, 4), AFTER, 5)
    with open_context(model, **CACHES[cache]) as (context, kvc):
        start(context, kvc, chunk)
        keep = np.tile(kept, (kvc.query(ns.N_LAYER), 1))
        assert kvc.commit(keep, chunk.positions[0][kept]) == ns.OK, kvc.reason
        decode(context, second)
        compressed = question(context, AFTER + 2)
    with open_context(model, **CACHES[cache]) as (context, _):
        context.decode_tokens([1, 2, 3], 0)
        decode(context, chunk)
        for gone in (1, 4):
            t = int(chunk.positions[0][frame == gone][0])
            assert context.remove(t, t + 1)
        decode(context, second)
        removed = question(context, AFTER + 2)
    tolerance = 1e-4 if cache == "f32" else 3e-2
    np.testing.assert_allclose(compressed, removed, rtol=0, atol=ns.near(tolerance, DEVICE_LOGIT))


def test_the_states_position_moves_with_re_forged_cells(model: Model) -> None:
    chunk = chunk_of(model)
    moved = N_TEXT + (chunk.positions[0] - N_TEXT) // 3
    with open_context(model) as (context, kvc):
        start(context, kvc, chunk)
        kept = np.arange(0, len(chunk), 3)
        kept[-1] = len(chunk) - 1
        keep = np.tile(kept, (kvc.query(ns.N_LAYER), 1))
        delta = np.tile((moved - chunk.positions[0])[kept], (len(keep), 1))
        assert kvc.commit(keep, moved[kept], delta=delta) == ns.OK, kvc.reason
        assert context.position_max() == moved.max() == N_TEXT + 1
        first = question(context, N_TEXT + 2)  # fails where a state stands above it
        assert context.position_max() == N_TEXT + 1
        assert np.array_equal(question(context, N_TEXT + 2), first)


def test_an_aborted_chunk_leaves_no_trace_once_the_states_are_put_back(model: Model) -> None:
    with open_context(model) as (context, kvc):
        context.decode_tokens([1, 2, 3], 0)
        states, expected = context.save_states(), question(context, N_TEXT)
        assert kvc.begin(72) == ns.OK, kvc.reason
        decode(context, chunk_of(model))
        assert kvc.abort() == ns.OK
        assert kvc.query(ns.N_CELLS_USED) == N_TEXT
        context.load_states(states)
        assert np.array_equal(question(context, N_TEXT), expected)


@pytest.mark.parametrize("cache", ["f32", "q8_0 flash"])
def test_saved_cells_and_states_answer_as_the_compressed_cache_did(
    model: Model, cache: str
) -> None:
    chunk = chunk_of(model)
    options = {**CACHES[cache], "n_seq_max": 2}
    with open_context(model, **options) as (context, kvc):
        start(context, kvc, chunk)
        keep = random_keep(kvc.query(ns.N_LAYER), len(chunk), 20)
        assert kvc.commit(keep, positions_for(chunk, 20)) == ns.OK
        middle = N_TEXT + 3
        parts = [context.save_cells(0, middle), context.save_cells(middle)]
        states, expected = context.save_states(), question(context, AFTER)
    with open_context(model, **options) as (context, _):
        for part in parts:
            context.load_cells(part)
        context.load_states(states)
        np.testing.assert_allclose(
            question(context, AFTER), expected, rtol=0, atol=ns.near(1e-5, DEVICE_LOGIT)
        )


def test_a_question_leaves_cells_and_states_as_they_were(model: Model) -> None:
    with open_context(model) as (context, _):
        context.decode_tokens([1, 2, 3], 0)
        decode(context, chunk_of(model))
        before = context.sequence_state()
        first = question(context, AFTER)
        assert context.sequence_state() == before
        assert np.array_equal(question(context, AFTER), first)


def test_states_cannot_go_back_by_themselves(model: Model) -> None:
    with open_context(model) as (context, _):
        context.decode_tokens([1, 2, 3], 0)
        assert not context.remove(1)
