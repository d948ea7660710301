"""Attention scores whose queries vote in windows, on a real (random) Qwen2-VL."""

from pathlib import Path

import numpy as np
import pytest

from retake_edge.engine.positions import frame_steps, mrope_span
from retake_edge.llama.capture import Capture
from retake_edge.llama.context import Context
from retake_edge.llama.model import Model

MODEL = Path(__file__).parents[1] / "golden" / "tiny-f32.gguf"
N_STEPS, ROWS, COLS = 8, 2, 3
N = N_STEPS * ROWS * COLS


@pytest.fixture(scope="module", params=[1, 5])
def capture(request):
    """A captured chunk of random tokens, every one or every fifth query kept."""
    rows = np.random.default_rng(0).standard_normal((N, 128)).astype(np.float32)
    ids = mrope_span(frame_steps(N_STEPS), ROWS, COLS, 0).ids
    with (
        Model(MODEL) as model,
        Context(model, n_ctx=256, type_k="f32", type_v="f32") as context,
        Capture(context, n_max=N, q_stride=request.param) as captured,
    ):
        context.decode_embeddings(rows, ids)
        yield captured


def test_one_window_is_the_sum_over_all_queries(capture):
    assert np.array_equal(capture.scores(n_windows=1), capture.scores())
    assert np.allclose(capture.scores().sum(axis=1), N, rtol=1e-4)


@pytest.mark.parametrize("n_windows", [2, 3, 8])
def test_a_windows_vote_is_at_most_the_sum_and_at_least_its_mean_share(capture, n_windows):
    whole, best = capture.scores(), capture.scores(n_windows=n_windows)
    assert (best <= whole * 1.35).all()  # a stride's remainder weighs its window a little more
    assert (best >= whole / n_windows * 0.65).all()
    assert (best < whole).mean() > 0.9


def test_more_windows_than_queries_are_one_a_query(capture):
    n_queries = -(-N // capture._q_stride)
    assert np.array_equal(capture.scores(n_windows=1000), capture.scores(n_windows=n_queries))


@pytest.mark.parametrize("width", [None, 8])
def test_scores_and_values_together_are_those_that_come_apart(capture, width):
    rng = np.random.default_rng(1)
    projection = width and rng.standard_normal((width, capture.n_embd_v)).astype(np.float32)
    scores, values = capture.scores_and_values(projection, unrotate=True, n_windows=3)
    assert np.array_equal(scores, capture.scores(unrotate=True, n_windows=3))
    assert np.array_equal(values, capture.values(projection))
