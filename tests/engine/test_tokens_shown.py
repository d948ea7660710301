"""What the language model is shown of frames that stand still, and what their cells weigh."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from retake_edge.compress.coverage import nearest_counts, nearest_sums
from retake_edge.engine.chunks import STILL_TOKENS, ChunkBuilder, frame_blocks, tokens_shown
from retake_edge.engine.positions import reforge
from retake_edge.llama.model import Model
from retake_edge.models.manifest import PositionRule
from retake_edge.vision.encoder import VisionFeatures

GOLDEN = Path(__file__).parents[1] / "golden"


def still_frames(n_tokens: int, is_new: list[bool]) -> VisionFeatures:
    """Frames of two kinds of tokens, most of the first kind; a still one repeats the one before."""
    rng = np.random.default_rng(n_tokens)
    rows = np.empty((len(is_new), n_tokens, 8), np.float32)
    for i, new in enumerate(is_new):
        if new:
            rows[i, :, :4], rows[i, :, 4:] = 1, 0
            rows[i, rng.integers(1, n_tokens)] = [0, 0, 0, 0, 1, 1, 1, 1]
            rows[i] += 0.01 * rng.standard_normal((n_tokens, 8))
        else:
            rows[i] = rows[i - 1]
    times_s = np.arange(float(len(is_new)))
    return VisionFeatures(rows, times_s, times_s, 1, n_tokens, 0.5, np.array(is_new))


@pytest.mark.parametrize("n_tokens", [2, 9, 16, 100])
def test_all_of_a_new_frame_is_shown_and_of_a_still_one_what_differs_most(n_tokens: int) -> None:
    is_new = [True, False, False, True, True, False]
    frames = still_frames(n_tokens, is_new)
    stand_for = tokens_shown(frames, 8)
    assert stand_for.sum() == len(is_new) * n_tokens, "each token counts once"
    for i, new in enumerate(is_new):
        n_shown = n_tokens if new else -(-n_tokens // STILL_TOKENS)
        assert (stand_for[i] > 0).sum() == n_shown
        if n_shown > 1:
            odd = int(frames.embeddings[i, :, 4].argmax())
            assert stand_for[i, odd] == 1, "the one token of its kind is shown, for itself alone"
    assert np.array_equal(stand_for[1], stand_for[2])


def test_a_block_that_begins_in_the_midst_of_a_still_stretch_shows_the_same_tokens() -> None:
    frames = still_frames(16, [True, False, False, False])
    assert np.array_equal(tokens_shown(frames[2:], 8), tokens_shown(frames, 8)[2:])


def test_blocks_know_which_of_their_frames_are_new() -> None:
    rng = np.random.default_rng(5)
    rows, times_s = rng.standard_normal((11, 6, 8), dtype=np.float32), np.arange(11.0)
    is_new = rng.random(11) < 0.5
    whole = VisionFeatures(rows, times_s, times_s, 2, 3, 0.5, is_new)
    for cuts in ([0, 11], [0, 1, 5, 11], [0, 4, 8, 11]):
        parts = (whole[a:b] for a, b in itertools.pairwise(cuts))
        blocks = list(frame_blocks(parts, 4, per_patch=True, n_embd=8))
        assert np.array_equal(np.concatenate([b.features.news for b in blocks]), is_new)


def test_dropped_tokens_count_for_the_kept_one_that_is_most_like_them() -> None:
    rng = np.random.default_rng(2)
    vectors = rng.standard_normal((40, 6)).astype(np.float32)
    kept = np.sort(rng.choice(40, 9, replace=False))
    counts = rng.integers(1, 5, 40).astype(np.float32)
    repeated = np.repeat(np.arange(40), counts.astype(int))
    first = np.searchsorted(repeated, kept)
    sums = nearest_sums(vectors, kept, counts)
    assert np.array_equal(sums, nearest_counts(vectors[repeated], first))
    assert sums.sum() == counts.sum()
    ones = np.ones(40, np.float32)
    assert np.array_equal(nearest_sums(vectors, kept, ones), nearest_counts(vectors, kept))


@pytest.mark.parametrize("n_keep", [1, 5, 19])
def test_positions_are_squeezed_by_the_share_of_all_that_the_chunk_stands_for(n_keep: int) -> None:
    times = np.array([10, 10, 30, 50], np.int32)
    moved, following = reforge(times, n_keep, 20)
    assert moved.tolist() == [10, 10, 10 + n_keep, 10 + 2 * n_keep]
    assert following == moved[-1] + 1
    assert reforge(times, 2)[0].tolist() == reforge(times, 2, 4)[0].tolist()


@pytest.fixture(scope="module")
def model():
    with Model(GOLDEN / "tiny-f32.gguf") as loaded:
        yield loaded


@pytest.mark.parametrize("kind", ["mrope", "mrope-time", "timestamps", "linear"])
def test_a_chunk_has_few_tokens_of_still_frames_at_their_own_positions(
    model: Model, kind: str
) -> None:
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((4, 16, model.n_embd_inp)).astype(np.float32)
    rows[1:3] = rows[0]
    times_s = np.arange(4.0)
    is_new = np.array([True, False, False, True])
    features = VisionFeatures(rows, times_s, times_s, 4, 4, 0.5, is_new)
    block = next(frame_blocks(iter([features]), 4, per_patch=True, n_embd=model.n_embd))
    rule = PositionRule(kind)
    chunk = ChunkBuilder(model, rule, 5).build(block, 5)
    whole = ChunkBuilder(model, rule, 5, whole=True).build(block, 5)
    assert whole.counts is None
    assert np.bincount(chunk.frame[~chunk.is_text]).tolist() == [16, 2, 2, 16]
    assert chunk.n_left_out == 28 == len(whole.frame) - len(chunk.frame)
    assert chunk.counts is not None
    assert chunk.counts[~chunk.is_text].sum() == 64
    if kind == "linear":
        assert np.array_equal(chunk.positions, 5 + np.arange(36)), "these positions run on"
    else:
        everything = {tuple(column) for column in whole.positions.T.tolist()}
        assert {tuple(column) for column in chunk.positions.T.tolist()} <= everything
        assert chunk.positions.max() == whole.positions.max()
