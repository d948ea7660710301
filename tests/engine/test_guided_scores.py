"""The scores that a question gives a chunk, against the attention of the same question later."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from retake_edge.compress import policies
from retake_edge.config import CompressionConfig, RetakeConfig
from retake_edge.engine.chunks import ChunkBuilder, frame_blocks
from retake_edge.engine.engine import Engine
from retake_edge.llama.capture import Capture, cells_used
from retake_edge.llama.context import Context
from retake_edge.llama.model import Model
from retake_edge.models.manifest import PositionRule
from retake_edge.vision.encoder import VisionFeatures

MODEL = Path(__file__).parents[1] / "golden" / "tiny-f32.gguf"
QUESTION = "<|vision_end|>What was on the table?<|im_end|>\n<|im_start|>assistant\n"
N_STEPS, ROWS, COLS = 6, 2, 3


@pytest.fixture(scope="module")
def model():
    with Model(MODEL) as loaded:
        yield loaded


def context_of(model):
    return Context(model, n_ctx=256, type_k="f32", type_v="f32", flash_attention="off")


def chunk_of(model, engine):
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((N_STEPS, ROWS * COLS, model.n_embd_inp)).astype(np.float32)
    seconds = np.arange(N_STEPS, dtype=np.float64)
    features = VisionFeatures(rows, seconds, seconds + 0.25, ROWS, COLS)
    block = next(frame_blocks(iter([features]), N_STEPS, per_patch=True, n_embd=128))
    builder = ChunkBuilder(model, PositionRule("mrope"), engine.next_position)
    return builder.build(block, engine.next_position)


@pytest.mark.parametrize("policy", ["pivotkv", "spread", "hybrid"])
def test_a_chunk_is_scored_by_the_question_alone(model, policy, monkeypatch):
    seen = []
    select = policies.select_cells

    def noted(name, signals, *arguments, **more):
        seen.append(signals.scores)
        return select(name, signals, *arguments, **more)

    monkeypatch.setattr(policies, "select_cells", noted)
    config = RetakeConfig(compression=CompressionConfig(policy=policy))
    question, (n_before, n) = model.tokenize(QUESTION), (3, N_STEPS * ROWS * COLS)
    with context_of(model) as context:
        engine = Engine(context, config, n_text_reserve=100, guide=question)
        engine.prefill_text("one two three"[:n_before])
        n_before = engine.n_cells
        chunk = chunk_of(model, engine)
        engine.prefill_chunk(chunk, 0.25)
        assert cells_used(context) == n_before + n // 4 == engine.n_cells
    with context_of(model) as context:
        engine = Engine(context, config, n_text_reserve=100)
        engine.prefill_text("one two three"[:3])
        engine.decode(chunk)
        end = int(chunk.positions.max()) + 1
        with Capture(context, n_max=len(question)) as capture:
            context.decode_tokens(question, end)
            rows = [capture.attention(i, 1, n_before, n) for i in range(len(question))]
    each = np.stack(rows)  # [questions' tokens, layers, cells]
    if policy == "pivotkv":
        expected = each.mean(axis=0) * n
        np.testing.assert_allclose(seen[0].sum(axis=1), n, rtol=1e-4)
    else:
        n_windows = min(policies.QUERY_WINDOWS, len(question))
        edges = np.arange(n_windows + 1) * len(question) // n_windows
        sums = [each[a:b].sum(axis=0) for a, b in pairwise(edges)]
        expected = np.max(sums, axis=0) * n / len(question)
    np.testing.assert_allclose(seen[0], expected, rtol=2e-3, atol=1e-4)
