"""retake-kvc.h, called as it is: a commit turns kept keys to their new positions.

Oracle: contexts that were decoded at those positions.
"""

from __future__ import annotations

from typing import Any

import native_support as ns
import numpy as np
import pytest
from kvc_support import CACHES, KINDS, RUNS, as_floats, undo_hadamard
from native_support import decode, make_chunk, open_context, read_state

from retake_edge.golden.limits import DEVICE_FORWARD, DEVICE_MOVED


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
