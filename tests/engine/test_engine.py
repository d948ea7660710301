"""The engine on a real (random) Qwen2-VL: chunks, compression and questions on one cache."""

from pathlib import Path

import numpy as np
import pytest
from native_support import read_state

from retake_edge.compress.policies import POLICIES
from retake_edge.config import WHOLE_POLICIES, CompressionConfig, GenerationConfig, RetakeConfig
from retake_edge.engine.chunks import ChunkBuilder, frame_blocks
from retake_edge.engine.engine import Engine
from retake_edge.errors import MemoryBudgetError
from retake_edge.llama.capture import cells_used
from retake_edge.llama.context import Context
from retake_edge.llama.model import Model
from retake_edge.models.manifest import PositionRule
from retake_edge.vision.encoder import VisionFeatures

MODEL = Path(__file__).parents[1] / "golden" / "tiny-f32.gguf"
ROWS, COLS, N_STEPS, STEPS_PER_CHUNK = 2, 3, 11, 4
BEFORE = "<|im_start|>user\n<|vision_start|>"
QUESTION = "<|vision_end|>What?<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture(scope="module")
def model():
    with Model(MODEL) as loaded:
        yield loaded


def video_features(model, seed=0):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((N_STEPS, ROWS * COLS, model.n_embd_inp)).astype(np.float32)
    seconds = np.arange(N_STEPS, dtype=np.float64)
    return VisionFeatures(rows, seconds, seconds + 0.25, ROWS, COLS)


def prefilled(
    model, rule="mrope", keep_ratio=1.0, steps=STEPS_PER_CHUNK, flash="on", **compression
):
    settings = RetakeConfig(
        compression=CompressionConfig(**compression), generation=GenerationConfig(max_tokens=6)
    )
    context = Context(model, n_ctx=512, type_k="f32", type_v="f32", flash_attention=flash)
    engine = Engine(context, settings, n_text_reserve=200)
    engine.prefill_text(BEFORE)
    builder = ChunkBuilder(model, PositionRule(rule), engine.next_position)
    features = video_features(model)
    blocks = frame_blocks(iter([features[:5], features[5:]]), steps, per_patch=True, n_embd=128)
    reforges = settings.compression.positions == "reforge"
    results = [
        engine.prefill_chunk(
            builder.build(
                block, engine.next_position, time_start=engine.next_time if reforges else None
            ),
            keep_ratio,
        )
        for block in blocks
    ]
    return engine, context, results


def question_logits(engine, context):
    context.decode_tokens(engine.model.tokenize(QUESTION), engine.next_position)
    logits = context.logits()
    context.remove(engine.next_position)
    return logits


@pytest.mark.parametrize("rule", ["mrope", "mrope-time"])
def test_chunked_prefill_that_keeps_all_equals_one_forward(model, rule):
    # Flash attention on the CPU computes in f16, with an error of its own per chunk.
    whole, whole_context, _ = prefilled(model, rule, steps=N_STEPS, flash="off", policy="none")
    parts, parts_context, results = prefilled(model, rule, keep_ratio=1.0, flash="off")
    assert [len(r.pivot_share) for r in results] == [4, 4, 3]
    assert whole.next_position == parts.next_position
    difference = np.abs(
        question_logits(whole, whole_context) - question_logits(parts, parts_context)
    )
    assert difference.max() < 1e-4, f"max {difference.max()}, mean {difference.mean()}"
    whole_context.close()
    parts_context.close()


@pytest.mark.parametrize("policy", sorted(set(POLICIES) - set(WHOLE_POLICIES)))
@pytest.mark.parametrize("positions", ["keep", "reforge"])
def test_every_policy_leaves_just_the_cells_it_should(model, policy, positions):
    engine, context, results = prefilled(model, keep_ratio=0.25, policy=policy, positions=positions)
    n_text = len(model.tokenize(BEFORE))
    assert [r.n_kept for r in results] == [6, 6, 4]
    assert [r.n_cells for r in results] == [24, 24, 18]
    assert cells_used(context) == n_text + 16
    assert np.isfinite(question_logits(engine, context)).all()
    context.close()


def test_compression_changes_what_the_model_sees(model):
    full, full_context, _ = prefilled(model, policy="none")
    small, small_context, _ = prefilled(model, keep_ratio=0.25, policy="pivotkv")
    gap = np.abs(question_logits(full, full_context) - question_logits(small, small_context))
    assert gap.max() > 0.1
    full_context.close()
    small_context.close()


@pytest.mark.parametrize("positions", ["keep", "reforge"])
def test_kept_cells_weigh_what_they_stand_for_and_only_with_spread(model, positions):
    for policy in ("spread", "coverage", "pivotkv"):
        _engine, context, results = prefilled(
            model, keep_ratio=0.4, policy=policy, positions=positions
        )
        weights = np.exp(read_state(context).bias)
        first = len(weights) - sum(r.cell_frames.shape[1] for r in results)
        seen = np.concatenate([r.cell_frames[0] >= 0 for r in results])
        assert (weights[:first] == 1).all() and (weights[first:][~seen] == 1).all()
        # Few tokens a chunk: no cell reaches the limit, so together they weigh all of them.
        expected = ROWS * COLS * N_STEPS if policy == "spread" else seen.sum()
        assert weights[first:][seen].sum() == pytest.approx(expected, rel=1e-4)
        context.close()


def test_reforged_positions_take_less_room(model):
    kept, kept_context, _ = prefilled(model, keep_ratio=0.25, policy="random")
    moved, moved_context, _ = prefilled(
        model, keep_ratio=0.25, policy="random", positions="reforge"
    )
    base = len(model.tokenize(BEFORE))
    assert kept.next_time == base + N_STEPS
    assert base < moved.next_time < base + N_STEPS
    assert moved_context.position_max() == moved.next_time - 1
    kept_context.close()
    moved_context.close()


def test_an_answer_does_not_depend_on_the_questions_before_it(model):
    engine, context, _ = prefilled(model, keep_ratio=0.5, policy="pivotkv")
    before = cells_used(context)
    first = list(engine.generate(QUESTION))
    others = list(engine.generate("<|vision_end|>Who was it?<|im_end|>\n<|im_start|>assistant\n"))
    assert list(engine.generate(QUESTION)) == first
    assert others != first
    assert cells_used(context) == before
    context.close()


def test_an_answer_that_is_not_read_to_its_end_leaves_no_cells(model):
    engine, context, _ = prefilled(model, keep_ratio=0.5, policy="random")
    before = cells_used(context)
    stream = engine.generate(QUESTION)
    next(stream)
    assert cells_used(context) > before
    stream.close()
    assert cells_used(context) == before
    context.close()


def test_a_question_beyond_the_reserve_is_refused_with_the_numbers(model):
    engine, context, _ = prefilled(model, policy="none")
    with pytest.raises(MemoryBudgetError, match="200 tokens"):
        list(engine.generate("why " * 300))
    context.close()


def test_random_choices_follow_the_seed(model):
    logits = {}
    for run, seed in (("a", 1), ("b", 1), ("c", 2)):
        engine, context, _ = prefilled(model, keep_ratio=0.25, policy="random", seed=seed)
        logits[run] = question_logits(engine, context)
        context.close()
    assert np.array_equal(logits["a"], logits["b"])
    assert not np.array_equal(logits["a"], logits["c"])
