"""Blocks of frames and chunks of tokens, whatever the batches the frames came in."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from retake_edge.compress.dpselect import select_keyframes
from retake_edge.engine.chunks import ChunkBuilder, StreamState, frame_blocks
from retake_edge.errors import ModelError
from retake_edge.llama.model import Model
from retake_edge.models.manifest import PositionRule
from retake_edge.vision.encoder import VisionFeatures

MODEL = Path(__file__).parents[1] / "golden" / "tiny-f32.gguf"


@pytest.fixture(scope="module")
def model():
    with Model(MODEL) as loaded:
        yield loaded


def features_of(n_frames, n_embd=128, seed=0):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n_frames, 6, n_embd)).astype(np.float32)
    seconds = np.arange(n_frames, dtype=np.float64)
    return VisionFeatures(rows, seconds, seconds, 2, 3)


@pytest.mark.parametrize("n_frames", [1, 2, 7, 16, 17])
@pytest.mark.parametrize("batch", [1, 3, 16])
@pytest.mark.parametrize("steps", [1, 4, 100])
def test_blocks_hold_every_frame_once_with_the_pivots_of_the_whole(n_frames, batch, steps):
    video = features_of(n_frames)
    parts = (video[i : i + batch] for i in range(0, n_frames, batch))
    blocks = list(frame_blocks(parts, steps, per_patch=True, n_embd=128))
    assert [b.first_frame for b in blocks] == list(range(0, n_frames, steps))
    joined = np.concatenate([b.features.embeddings for b in blocks])
    assert np.array_equal(joined, video.embeddings)
    expected = select_keyframes(video.embeddings, n_frames, True).mask
    assert np.array_equal(np.concatenate([b.pivots for b in blocks]), expected)


def test_each_frame_is_copied_once_into_the_array_of_its_chunk():
    """Peak memory beside the batches: one chunk, however many batches it came in."""
    n_frames, steps, batch = 96, 48, 4
    video = features_of(n_frames, n_embd=2048)
    n_frame_bytes = video.embeddings.nbytes // n_frames
    tracemalloc.start()
    try:
        parts = (video[i : i + batch] for i in range(0, n_frames, batch))
        blocks = frame_blocks(parts, steps, per_patch=True, n_embd=2048)
        n_blocks = 0
        for block in blocks:
            n_blocks += 1
            del block
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert n_blocks == 2
    assert peak < (steps + 4 * batch) * n_frame_bytes


def test_a_chunk_without_text_is_its_blocks_own_memory(model):
    (block,) = frame_blocks(iter([features_of(4)]), 4, per_patch=True, n_embd=128)
    chunk = ChunkBuilder(model, PositionRule("mrope"), base=5).build(block, 5)
    assert np.shares_memory(chunk.embeddings, block.features.embeddings)


def test_a_state_does_not_hold_the_chunk_that_it_stands_after():
    (block,) = frame_blocks(iter([features_of(4)]), 4, per_patch=True, n_embd=128)
    state = StreamState.after(block, 128, None)
    assert not np.shares_memory(state.last_frame, block.features.embeddings)
    assert np.array_equal(state.last_frame, block.features.embeddings[-1])


def test_pivots_ignore_columns_beyond_the_hidden_width():
    video = features_of(9, n_embd=256)
    (block,) = frame_blocks(iter([video]), 100, per_patch=True, n_embd=128)
    assert np.array_equal(block.pivots, select_keyframes(video.embeddings[..., :128], 9, True).mask)


@pytest.mark.parametrize("kind", ["mrope", "mrope-time"])
def test_chunks_of_a_span_have_the_positions_of_the_whole(model, kind):
    video = features_of(10)
    whole = ChunkBuilder(model, PositionRule(kind), base=7)
    (block,) = frame_blocks(iter([video]), 10, per_patch=True, n_embd=128)
    expected = whole.build(block, 7).positions
    builder = ChunkBuilder(model, PositionRule(kind), base=7)
    blocks = frame_blocks(iter([video]), 3, per_patch=True, n_embd=128)
    parts = [builder.build(b, 7).positions for b in blocks]
    assert np.array_equal(np.concatenate(parts, axis=1), expected)
    assert expected[0].max() == 7 + (9 if kind == "mrope" else 18)
    assert expected[1:3].max() == 7 + 2


def test_text_around_frames_is_tokenized_as_the_layout_says(model):
    rule = PositionRule(
        "linear", before_frame="Frame{number} at {minutes:02d}:{seconds:02d}:", after_frame=";"
    )
    (block,) = frame_blocks(iter([features_of(2)]), 2, per_patch=True, n_embd=128)
    chunk = ChunkBuilder(model, rule, base=5).build(block, 5)
    text = model.tokenize("Frame1 at 00:00:"), model.tokenize(";Frame2 at 00:01:")
    np.testing.assert_array_equal(
        chunk.embeddings[chunk.is_text], model.embed_tokens([*text[0], *text[1]])
    )
    n_first = len(text[0])
    assert chunk.is_text[:n_first].all() and not chunk.is_text[n_first : n_first + 6].any()
    assert chunk.frame.tolist() == [0] * (n_first + 6) + [1] * (len(text[1]) + 6)


def test_time_goes_on_where_it_is_told_to(model):
    (block,) = frame_blocks(iter([features_of(4)]), 4, per_patch=True, n_embd=128)
    chunk = ChunkBuilder(model, PositionRule("mrope"), base=5).build(block, 99, time_start=40)
    assert chunk.positions[0].min() == 40 and chunk.positions[0].max() == 43
    assert chunk.positions[1].min() == 5


def test_a_time_without_a_word_is_refused(model):
    (block,) = frame_blocks(iter([features_of(2)]), 2, per_patch=True, n_embd=128)
    builder = ChunkBuilder(model, PositionRule("mrope-clock", 4.0, max_clock_s=10), base=5)
    with pytest.raises(ModelError, match="no word for the time"):
        builder.build(block, 5)


def test_linear_positions_run_on():
    frames = features_of(3)
    (block,) = frame_blocks(iter([frames]), 3, per_patch=True, n_embd=128)
    with Model(MODEL) as model:
        chunk = ChunkBuilder(model, PositionRule("linear"), base=5).build(block, 11)
    assert np.array_equal(chunk.positions, np.arange(11, 29))
    assert not chunk.is_text.any()
