"""LLaVA-OneVision and LLaVA-Video: what their files say, and learned rows from chunk to session."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from session_support import question_logits

from retake_edge.config import CompressionConfig, GenerationConfig, RetakeConfig, RuntimeConfig
from retake_edge.engine.chunks import ChunkBuilder, frame_blocks
from retake_edge.engine.positions import NEWLINE, TEXT, linear_span
from retake_edge.errors import ModelError
from retake_edge.llama.gguf import GgufFile, read_gguf
from retake_edge.llama.model import Model
from retake_edge.models.families import family_of, infer_manifest
from retake_edge.models.families.video_facts import PREFIX, VideoFacts
from retake_edge.models.manifest import ModelFiles, PositionRule
from retake_edge.plan.frames import plan_frames
from retake_edge.session.open import open_video
from retake_edge.video.read import VideoInfo
from retake_edge.vision import reader
from retake_edge.vision.encoder import VisionFeatures, newline_of

FAMILIES = Path(__file__).parents[1] / "golden" / "families"
CLIP = FAMILIES / "clip.mp4"
VIDEO = ModelFiles(*(FAMILIES / "llava-video" / f"{n}.gguf" for n in ("model", "mmproj")))
ONEVISION = ModelFiles(*(FAMILIES / "llava-onevision" / f"{n}.gguf" for n in ("model", "mmproj")))
INFO = VideoInfo(Path("v.mp4"), 1920, 1080, 0, 20.0, 500, "avc1", 25.0, 0.04, 0.0)


def published(**more):
    """Headers of a pair with a tower of the published size."""
    facts = VideoFacts("LLaVA-Video", "bilinear", 2, "row", 64)
    said = {
        "general.architecture": "clip",
        "clip.projector_type": "mlp",
        "clip.vision.image_size": 384,
        "clip.vision.patch_size": 14,
        **replace(facts, **more).metadata(),
    }
    language = GgufFile(Path("model.gguf"), {"general.architecture": "qwen2"}, {}, {})
    return language, GgufFile(Path("mmproj.gguf"), said, {}, {})


def settings(policy="spread", **compression):
    compression = {"keep_ratio": 0.25, "prefill_chunk_frames": 2, **compression}
    return RetakeConfig(
        compression=CompressionConfig(policy=policy, **compression),
        runtime=RuntimeConfig(n_threads=1, n_gpu_layers=0, encode_batch_frames=2),
        generation=GenerationConfig(max_tokens=3),
    )


@pytest.mark.parametrize(
    ("facts", "n_tokens", "n_newlines", "at_end"),
    [
        ({}, 196, 14, False),
        ({"newline": "frame", "pool_mode": "average"}, 169, 1, False),
        ({"newline": "end"}, 196, 0, True),
        ({"newline": "none", "pool_mode": "none"}, 729, 0, False),
    ],
)
def test_a_frame_has_the_tokens_and_rows_that_its_file_says(facts, n_tokens, n_newlines, at_end):
    family = family_of(*published(**facts))
    assert family.frames.frame_size(1920, 1080, 9) == (384, 384)
    assert family.frames.n_vision_tokens(384, 384) == n_tokens
    assert family.positions.newlines_per_step == n_newlines
    assert family.positions.ends_with_newline == at_end


def test_sampling_is_one_frame_a_second_or_all_frames_spread_over_a_short_video():
    one_a_second = infer_manifest(*published())
    assert plan_frames(one_a_second, RetakeConfig(), INFO).n == 20
    assert plan_frames(infer_manifest(*published(max_frames=8)), RetakeConfig(), INFO).n == 8
    spread = plan_frames(infer_manifest(*published(spreads_frames=True)), RetakeConfig(), INFO)
    assert spread.n == 64
    assert spread.times_s[1] == pytest.approx(20 * 63 / 64)


def test_the_video_is_told_of_between_it_and_the_question():
    prompt = infer_manifest(read_gguf(VIDEO.model), read_gguf(VIDEO.mmproj)).prompt
    assert prompt.before.endswith("You are a helpful assistant.<|im_end|>\n<|im_start|>user\n")
    assert prompt.ending([0.0, 1.5], 61.239) == (
        "\nThe video lasts for 61.24 seconds, and 2 frames are uniformly sampled from it. These "
        "frames are located at 0.00s,1.50s.Please answer the following questions related to this "
        "video.\n"
    )
    assert prompt.question("Who?") == "Who?<|im_end|>\n<|im_start|>assistant\n"
    own = infer_manifest(read_gguf(VIDEO.model), read_gguf(VIDEO.mmproj), "Be brief.").prompt
    assert own.before.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user")
    silent = infer_manifest(read_gguf(ONEVISION.model), read_gguf(ONEVISION.mmproj)).prompt
    assert silent.ending([0.0], 9.0) == ""


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({"format": 2}, "in format 2"),
        ({"newline": "column"}, "at 'column'"),
        ({"pool_mode": "median"}, "'median'"),
        ({"colour": "red"}, "convert it again"),
    ],
)
def test_what_a_file_says_and_nobody_knows_is_refused(said, sentence):
    language, mmproj = published()
    mmproj.metadata.update({PREFIX + key: value for key, value in said.items()})
    with pytest.raises(ModelError, match=sentence):
        family_of(language, mmproj)


def test_a_pair_without_what_its_row_needs_is_refused_with_the_command_to_convert():
    language, mmproj = published()
    plain = {key: value for key, value in mmproj.metadata.items() if PREFIX not in key}
    row = {"v.image_newline": (896,)}
    with pytest.raises(ModelError, match=r"python -m retake_edge\.convert CHECKPOINT OUT"):
        family_of(language, replace(mmproj, metadata=plain, tensor_shapes=row))
    of_clip = row | {"v.class_embd": (1024,)}  # LLaVA-1.6
    found = family_of(language, replace(mmproj, metadata=plain, tensor_shapes=of_clip))
    assert found.name == "LLaVA"


def test_learned_rows_stand_after_equal_parts_of_a_frame():
    span = linear_span([1, 0], n_tokens=4, base=3, n_newlines=2)
    assert span.frame.tolist() == [
        *(TEXT, 0, 0, NEWLINE, 0, 0, NEWLINE),
        *(1, 1, NEWLINE, 1, 1, NEWLINE),
    ]
    assert span.ids.tolist() == list(range(3, 16))
    assert span.is_text.sum() == 5 and span.is_newline.sum() == 4


@pytest.mark.parametrize(("n_newlines", "n_text"), [(2, 0), (1, 0), (2, 3)])
def test_a_learned_row_belongs_to_its_frame_and_is_never_evicted(n_newlines, n_text):
    before = "<|im_start|>" * n_text
    rule = PositionRule("linear", before_frame=before, newlines_per_step=n_newlines)
    rng = np.random.default_rng(1)
    times_s = np.arange(3.0)
    with Model(VIDEO.model, n_gpu_layers=0) as model:
        newline = rng.standard_normal(model.n_embd_inp).astype(np.float32)
        rows = rng.standard_normal((3, 6, model.n_embd_inp)).astype(np.float32)
        features = VisionFeatures(rows, times_s, times_s, 2, 3)
        (block,) = frame_blocks(iter([features]), 3, per_patch=True, n_embd=model.n_embd)
        chunk = ChunkBuilder(model, rule, 5, newline=newline).build(block, 5)
    is_newline = (chunk.embeddings == newline).all(axis=1)
    assert is_newline.sum() == 3 * n_newlines
    assert chunk.is_text[is_newline].all()
    assert chunk.is_text.sum() == 3 * (n_newlines + n_text)
    n_step = 6 + n_newlines + n_text
    assert chunk.frame.tolist() == [i for i in range(3) for _ in range(n_step)]
    ends = np.flatnonzero(is_newline) % n_step
    part = 6 // n_newlines + 1
    assert ends.tolist() == [n_text + part * (i + 1) - 1 for i in range(n_newlines)] * 3


@pytest.mark.parametrize("source", [VIDEO, ONEVISION], ids=["video", "onevision"])
@pytest.mark.parametrize("policy", ["spread", "pivotkv", "frames", "none"])
def test_cells_are_evicted_but_for_learned_rows_and_text(source, policy, tmp_path):
    keep = {"keep_ratio": None} if policy == "none" else {}
    with open_video(CLIP, source, settings(policy, **keep), cache_dir=tmp_path) as session:
        n_rows = 4 if source is VIDEO else 0
        n_frames, cells = session.video.n_frames, session.video_map.cell_frames
        assert n_frames == 6
        assert session.video.n_cells_before == 6 * (16 + n_rows)
        kept_frames = 1 if policy == "frames" else 6
        n_vision = {"none": 6 * 16, "frames": 16}.get(policy, 6 * 4)
        assert ((cells < 0).sum(axis=1) == kept_frames * n_rows).all()
        assert ((cells >= 0).sum(axis=1) == n_vision).all()
        told = session.manifest.prompt.ending(
            session.video_map.frame_times_s[:kept_frames].tolist(), session.video.duration_s
        )
        engine = session.engine
        assert engine.n_cells <= session.video.n_ctx
        n_around = engine.n_cells - session.video.n_cells_kept
        opening = session.manifest.prompt.opening(n_frames, session.video.duration_s)
        ends = session.manifest.positions.ends_with_newline
        tokens = engine.model.tokenize(opening, add_special=True) + engine.model.tokenize(told)
        assert n_around == len(tokens) + ends
        logits = question_logits(session)
        assert session.ask("Who?").n_tokens <= 3
    with open_video(CLIP, source, settings(policy, **keep), cache_dir=tmp_path) as again:
        assert np.array_equal(question_logits(again), logits)
        assert again.engine.n_cells == n_around + again.video.n_cells_kept


@pytest.mark.parametrize("source", [VIDEO, ONEVISION], ids=["video", "onevision"])
def test_reading_goes_on_after_a_stop_with_the_same_end(source, tmp_path, monkeypatch):
    with open_video(CLIP, source, settings(), cache_dir=tmp_path / "whole") as session:
        expected = question_logits(session)
    encode, seen = reader.VideoReader._encode, []

    def stopping(self):
        for features in encode(self):
            seen.append(features)
            if len(seen) == 3:
                raise KeyboardInterrupt
            yield features

    with monkeypatch.context() as patch:
        patch.setattr(reader.VideoReader, "_encode", stopping)
        with pytest.raises(KeyboardInterrupt):
            open_video(CLIP, source, settings(), cache_dir=tmp_path / "part")
    assert list((tmp_path / "part").rglob("*.resume")), "no chunk was saved before the stop"
    with open_video(CLIP, source, settings(), cache_dir=tmp_path / "part") as session:
        assert np.array_equal(question_logits(session), expected)


def test_a_projector_without_its_learned_row_is_refused():
    manifest = infer_manifest(read_gguf(VIDEO.model), read_gguf(VIDEO.mmproj))
    with pytest.raises(ModelError, match=r"no tensor v\.image_newline"):
        newline_of(replace(manifest, mmproj=FAMILIES / "internvl3" / "mmproj.gguf"))
    assert newline_of(replace(manifest, positions=PositionRule("linear"))) is None
