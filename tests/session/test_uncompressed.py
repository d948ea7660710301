"""Models whose cache cannot be compressed, as real (tiny, random) GGUF pairs: run whole, in budget.

Oracles: llama.cpp's own multimodal helper, decoding the same frames between the same texts; a
plain loop over all frames for the choice of frames.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from session_support import VIDEO, command, opened, question_logits, run, settings
from toy_pairs import KINDS, write_pair

from retake_edge.bench.replay import kept_frames
from retake_edge.bench.variants import VARIANTS
from retake_edge.config import CompressionConfig, GenerationConfig, RetakeConfig
from retake_edge.engine.chunks import ChunkBuilder, frame_blocks
from retake_edge.engine.engine import Engine, ImageRule
from retake_edge.engine.prefill import prefill
from retake_edge.errors import MemoryBudgetError
from retake_edge.llama.capture import why_not_compressible
from retake_edge.llama.context import Context
from retake_edge.llama.model import Floats, Model
from retake_edge.models.families import manifest_of
from retake_edge.models.manifest import ModelFiles
from retake_edge.plan.choose import choose_frames, frames_that_fit, in_whole_video
from retake_edge.plan.frames import VideoShape
from retake_edge.vision.encoder import VisionEncoder, VisionFeatures

WHOLE = {
    "sliding": "sliding-window",
    "shared": "sliding-window",
    "latent": "latent attention",
}
QUESTION = "What is it?"


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toys")
    for kind in KINDS:
        write_pair(folder, kind)
    return folder


def arguments(files: ModelFiles, *more: str) -> list[str]:
    pair = ["-m", str(files.model), "-mm", str(files.mmproj)]
    shared = ["--long-side", "112", "--fps", "4", "-n", "6", "-t", "1"]
    return ["ask", str(VIDEO), QUESTION, *pair, *shared, *more]


# --- through the command line -----------------------------------------------------------------


@pytest.mark.process
@pytest.mark.parametrize("kind", WHOLE)
def test_a_cache_that_cannot_be_compressed_gets_the_frames_that_fit(
    pairs: Path, kind: str, tmp_path: Path
) -> None:
    """Also: its session is saved, and answers the same."""
    call = arguments(write_pair(pairs, kind), "--kv-budget", "100", "--cache-dir", str(tmp_path))
    code, out, err = run(*call, "--json")
    assert code == 0, err
    first = json.loads(out)
    video = first["video"]
    assert video["reduced_by"] == "frames" and WHOLE[kind] in video["not_compressible"]
    assert video["n_grid_frames"] == 12 > video["n_frames_kept"] > 0
    per_frame = video["n_cells_kept"] / video["n_frames_kept"]
    assert video["n_cells_kept"] <= 100 < video["n_cells_kept"] + per_frame
    code, out, err = run("-v", *call)
    assert code == 0, err
    assert out.strip() == first["text"]
    told = f"12 frames, {video['n_frames_kept']} of them used whole"
    assert told in err and WHOLE[kind] in err


@pytest.mark.process
def test_a_context_size_chooses_the_frames_too(pairs: Path) -> None:
    call = arguments(write_pair(pairs, "latent"), "-c", "640", "--no-cache", "--json")
    code, out, err = run(*call)
    assert code == 0, err
    video = json.loads(out)["video"]
    assert 0 < video["n_frames_kept"] < video["n_grid_frames"]
    assert video["n_ctx"] == 640


@pytest.mark.process
@pytest.mark.parametrize("kind", ["hybrid", "convolution"])
def test_a_hybrid_model_is_compressed(pairs: Path, kind: str) -> None:
    call = arguments(write_pair(pairs, kind), "--keep-ratio", "0.25", "--no-cache", "--json")
    code, out, err = run(*call, "--prefill-chunk-frames", "4")
    assert code == 0, err
    video = json.loads(out)["video"]
    assert video["reduced_by"] == "cells" and video["not_compressible"] == ""
    assert video["n_cells_kept"] < video["n_cells_before"]


@pytest.mark.parametrize("positions", ["keep", "reforge"])
def test_an_interrupted_run_of_a_hybrid_model_goes_on_with_the_same_result(
    pairs: Path, tmp_path: Path, positions: str
) -> None:
    files, config = write_pair(pairs, "hybrid"), settings(fps=4.0, positions=positions)

    def stop(stage: str, *_: int) -> None:
        if stage.startswith("prefill"):
            raise KeyboardInterrupt

    with opened(tmp_path / "whole", config, model=files) as session:
        expected = question_logits(session)
    for _ in range(2):  # after the first chunk, and after one more
        with pytest.raises(KeyboardInterrupt):
            opened(tmp_path / "parts", config, model=files, progress=stop)
    decoded: list[int] = []

    def seen(stage: str, done: int, _: int) -> None:
        decoded.extend([done] * (stage == "decode"))

    with opened(tmp_path / "parts", config, model=files, progress=seen) as session:
        assert decoded[0] > 8, "the finished chunks were decoded again"
        assert np.array_equal(question_logits(session), expected)
    with opened(tmp_path / "parts", config, model=files) as session:
        assert session.saved.is_reused
        assert np.array_equal(question_logits(session), expected)


@pytest.mark.process
def test_a_hybrid_model_can_use_whole_frames_and_chat(pairs: Path) -> None:
    files = write_pair(pairs, "hybrid")
    call = arguments(files, "--policy", "frames", "--kv-budget", "100", "--no-cache")
    with command("chat", *call[1:2], *call[3:], stdin=-1) as process:
        out, err = process.communicate("What?\nWhen?\n/reset\nWhat?\n", timeout=300)
    assert process.returncode == 0, err
    answers = [line for line in out.splitlines() if line.strip()]
    assert answers[0] == answers[-1], "a reset conversation starts from the same state"


@pytest.mark.process
def test_a_budget_below_one_frame_is_refused_in_one_sentence(pairs: Path) -> None:
    call = arguments(write_pair(pairs, "sliding"), "--kv-budget", "5", "--no-cache")
    code, _, err = run(*call)
    assert code == 5
    assert "Not one frame fits" in err and "Traceback" not in err


# --- against llama.cpp's own helper -----------------------------------------------------------


@pytest.mark.parametrize("kind", [*WHOLE, "convolution"])
def test_frames_are_decoded_as_llama_cpps_helper_decodes_them(pairs: Path, kind: str) -> None:
    """The same marks around each image, the same scale of text, the same sight within an image."""
    files = write_pair(pairs, kind)
    manifest = manifest_of(files)
    frames = np.random.default_rng(0).integers(0, 255, (3, 112, 112, 3), np.uint8)
    with Model(files.model) as model, VisionEncoder(model, files.mmproj, n_threads=1) as encoder:
        assert encoder.non_causal == (kind in ("sliding", "shared"))
        features = encoder.encode(frames, np.arange(3.0))
        before, after = manifest.prompt.before, manifest.prompt.question(QUESTION)
        with small_context(model) as context:
            engine = engine_of(context, encoder)
            engine.prefill_text(before)
            builder = ChunkBuilder(model, manifest.positions, engine.next_position)
            blocks = frame_blocks(iter([features]), 2, per_patch=True, n_embd=model.n_embd)
            assert len(list(prefill(engine, builder, blocks, 1.0))) == 2
            engine.prefill_text(after)
            ours, n_cells = context.logits(), engine.n_cells
        with small_context(model) as context:
            last_mark = manifest.positions.after_frame
            text = before + encoder._marker.decode() * 3 + after.removeprefix(last_mark)
            n_positions = evaluate(encoder, context, text, frames)
            theirs = context.logits()
    assert n_cells == n_positions
    # other batches, so other sums; a mark, scale or mask that differs moves logits by 0.1 or more
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-3)


def small_context(model: Model) -> Context:
    return Context(model, n_ctx=512, type_k="f32", type_v="f32", flash_attention="off", n_threads=1)


def engine_of(context: Context, encoder: VisionEncoder) -> Engine:
    settings = RetakeConfig(
        compression=CompressionConfig(policy="none"), generation=GenerationConfig(max_tokens=6)
    )
    one_by_one = encoder.non_causal or context.model.scales_tokens
    return Engine(
        context,
        settings,
        n_text_reserve=100,
        images=ImageRule(one_by_one, non_causal=encoder.non_causal),
    )


def evaluate(encoder: VisionEncoder, context: Context, text: str, frames: np.ndarray) -> int:
    """Tokenize and decode text with images by mtmd alone; return the positions used."""
    mtmd = encoder._mtmd
    given = mtmd.mtmd_input_text()
    given.text, given.add_special, given.parse_special = text.encode(), True, True
    given.text_len = len(given.text)
    bitmaps = [
        mtmd.mtmd_bitmap_init(112, 112, frame.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8)))
        for frame in frames
    ]
    chunks = mtmd.mtmd_input_chunks_init()
    array = (ctypes.c_void_p * len(bitmaps))(*bitmaps)
    status = mtmd.mtmd_tokenize(encoder._handle, chunks, ctypes.byref(given), array, len(bitmaps))
    assert status == 0
    n_past = ctypes.c_int32(0)
    status = mtmd.mtmd_helper_eval_chunks(
        encoder._handle, context.handle, chunks, 0, 0, 512, True, ctypes.byref(n_past)
    )
    assert status == 0
    mtmd.mtmd_input_chunks_free(chunks)
    for bitmap in bitmaps:
        mtmd.mtmd_bitmap_free(bitmap)
    return n_past.value


@pytest.mark.parametrize("kind", KINDS)
def test_a_question_leaves_the_sequence_as_it_was(pairs: Path, kind: str) -> None:
    """Longer than the sliding window: nothing that a later question needs may be overwritten."""
    files = write_pair(pairs, kind)
    with Model(files.model) as model, small_context(model) as context:
        engine = Engine(context, RetakeConfig(), n_text_reserve=450)
        engine.prefill_text("The video. " * 8)
        expected = next_logits(engine)
        list(engine.generate("Tell me about it. " * 8))
        assert np.array_equal(next_logits(engine), expected)


def next_logits(engine: Engine) -> Floats:
    mark = engine.mark()
    engine.context.decode_tokens(engine.model.tokenize("When?"), engine.next_position)
    logits = engine.context.logits()
    engine.rewind(mark)
    return logits


def test_the_library_says_why_a_cache_is_left_whole(pairs: Path) -> None:
    for kind, reason in {**WHOLE, "hybrid": "", "convolution": ""}.items():
        with Model(write_pair(pairs, kind).model) as model:
            assert reason in why_not_compressible(model)
            assert bool(why_not_compressible(model)) == bool(reason)


def test_a_failed_chunk_of_a_hybrid_model_leaves_no_trace(pairs: Path) -> None:
    files = write_pair(pairs, "hybrid")
    rule = manifest_of(files).positions
    with (
        Model(files.model) as model,
        Context(model, n_ctx=256, n_ubatch=32, n_batch=64, n_threads=1) as context,
    ):
        engine = Engine(context, RetakeConfig(), n_text_reserve=100)
        engine.prefill_text("A video.")
        expected = next_logits(engine)
        builder = ChunkBuilder(model, rule, engine.next_position)
        rows = np.random.default_rng(0).standard_normal((70, 4, 64)).astype(np.float32)
        seconds = np.arange(70.0)
        features = VisionFeatures(rows, seconds, seconds, 2, 2)
        block = next(frame_blocks(iter([features]), 70, per_patch=True, n_embd=64))
        chunk = builder.build(block, engine.next_position)
        with pytest.raises(MemoryBudgetError):
            engine.prefill_chunk(chunk, 1.0)  # more tokens than cells
        assert np.array_equal(next_logits(engine), expected)


# --- which frames -----------------------------------------------------------------------------


def video_of(scenes: list[int], seed: int = 0) -> VisionFeatures:
    """Frames of 9 tokens that look like their scene, with a little noise."""
    rng = np.random.default_rng(seed)
    looks = rng.standard_normal((max(scenes) + 1, 9, 8)) * 3
    rows = looks[scenes] + rng.standard_normal((len(scenes), 9, 8)) * 0.05
    seconds = np.arange(len(scenes), dtype=np.float64)
    return VisionFeatures(rows.astype(np.float32), seconds, seconds, 3, 3)


def parts(video: VisionFeatures, n: int = 7) -> Iterator[VisionFeatures]:
    return (video[i : i + n] for i in range(0, len(video.times_s), n))


def test_every_scene_is_seen_however_short_it_is() -> None:
    scenes = [0] * 40 + [1] + [0] * 30 + [2] * 2 + [0] * 50 + [3] + [1] * 20
    chosen = choose_frames(parts(video_of(scenes)), len(scenes), 12, 8)
    assert len(chosen.index) == 12 and (np.diff(chosen.index) > 0).all()
    assert set(np.array(scenes)[chosen.index]) == {0, 1, 2, 3}
    assert chosen.pivot_share.shape == (len(scenes),)


def test_a_still_video_is_seen_from_beginning_to_end() -> None:
    still = video_of([0] * 120)
    still.embeddings[:] = still.embeddings[0]
    index = choose_frames(parts(still), 120, 12, 8).index
    assert index[0] < 20 and index[-1] > 100
    assert np.diff(index).max() < 40


def test_the_choice_does_not_depend_on_how_frames_arrive() -> None:
    video = video_of([0, 0, 1, 2, 1, 1, 3, 0, 0, 0, 2, 2, 4, 4] * 3)
    whole = choose_frames([video], 42, 9, 8)
    for n in (1, 5, 41):
        assert choose_frames(parts(video, n), 42, 9, 8).index.tolist() == whole.index.tolist()
    assert np.array_equal(whole.features.embeddings, video.embeddings[whole.index])
    assert np.array_equal(whole.features.times_s, video.times_s[whole.index])


def test_the_benchmark_chooses_frames_as_the_tool_does() -> None:
    video = video_of([0, 0, 1, 2, 1, 1, 3, 0, 0, 0] * 4)
    measured = kept_frames(video, VARIANTS["frames"], 0.25, 0, 8)
    assert measured.tolist() == choose_frames([video], 40, 10, 8).index.tolist()


def test_fewer_frames_than_planned_are_all_used_if_they_fit() -> None:
    video = video_of([0, 1, 2, 0, 1])
    assert choose_frames(parts(video), 100, 8, 8).index.tolist() == [0, 1, 2, 3, 4]
    assert len(choose_frames(parts(video), 5, 1, 8).index) == 1


def test_broken_features_do_not_stop_the_choice() -> None:
    video = video_of([0, 1] * 10)
    video.embeddings[7] = np.nan
    assert len(choose_frames(parts(video), 20, 4, 8).index) == 4


def test_cells_of_chosen_frames_are_told_of_the_whole_video() -> None:
    cells = np.array([[-1, 0, 0, -2, 1]], np.int32)
    assert in_whole_video(cells, np.array([3, 9], np.int32)).tolist() == [[-4, 3, 3, -10, 9]]


SHAPE = VideoShape(
    n_steps=100,
    vision_per_step=16,
    text_per_step=4,
    n_before=10,
    n_text_reserve=90,
    steps_per_chunk=8,
)


@pytest.mark.parametrize(
    ("limits", "n"),
    [
        ({}, 100),
        ({"kv_budget": 199}, 9),
        ({"keep_ratio": 0.25}, 25),
        ({"n_ctx": 300}, 10),
        ({"n_ctx_train": 500}, 20),
        ({"n_ctx": 300, "kv_budget": 60}, 3),
    ],
)
def test_as_many_frames_are_used_as_every_limit_allows(limits: dict[str, Any], n: int) -> None:
    limits = dict(limits)
    sizes = limits.pop("n_ctx", None), limits.pop("n_ctx_train", None)
    assert frames_that_fit(SHAPE, CompressionConfig(**limits), *sizes) == n
