"""Qwen-VL models: prompts, sizes and times, and toys of them in compressed sessions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from families_support import CLIP, FOLDER, files, settings

from retake_edge.errors import ConfigError, ModelError
from retake_edge.llama.gguf import GgufFile, read_gguf
from retake_edge.llama.model import Model
from retake_edge.models.families import family_of, infer_manifest, manifest_of, projector_type
from retake_edge.models.manifest import FrameRule
from retake_edge.session.open import open_video
from retake_edge.vision.encoder import VisionEncoder

GOLDEN = FOLDER.parent
QWENS = ("qwen2-vl", "qwen2.5-vl", "qwen3-vl")
TEXT_ONLY = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content.strip() }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def pair(kind: str, template: str | None = None) -> tuple[GgufFile, GgufFile]:
    """Headers of a model and its projector."""
    language = {"general.architecture": "qwen3vl" if "3" in kind else "qwen2vl"}
    if template is not None:
        language["tokenizer.chat_template"] = template
    vision = {"general.architecture": "clip", "clip.projector_type": kind}
    return (
        GgufFile(Path("model.gguf"), language, {}, {}),
        GgufFile(Path("mmproj.gguf"), vision, {}, {}),
    )


def frames(kind: str) -> FrameRule:
    return family_of(*pair(kind)).frames


@pytest.mark.parametrize("family", QWENS)
def test_the_prompt_is_that_of_the_files_own_chat_template(family):
    prompt = manifest_of(files(family)).prompt
    user = "<|im_start|>user\n<|vision_start|>"
    system = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    assert prompt.before == (user if family == "qwen3-vl" else system + user)
    end = "<|vision_end|>" * (2 if family == "qwen3-vl" else 1)
    turn = "<|im_end|>\n<|im_start|>assistant\n"
    assert prompt.question("Why?") == f"{end}Why?{turn}"
    assert prompt.next_question("Who?") == f"<|im_end|>\n<|im_start|>user\nWho?{turn}"


def test_a_template_that_takes_text_only_gets_the_video_as_text():
    prompt = infer_manifest(*pair("qwen2vl_merger", TEXT_ONLY)).prompt
    assert prompt.before == "<|im_start|>user\n<|vision_start|>"
    assert prompt.after.startswith("<|vision_end|>{question}<|im_end|>")
    assert infer_manifest(*pair("qwen2vl_merger")).prompt == prompt, "ChatML says the same"


@pytest.mark.parametrize("template", ["{{ nothing.there }}", "{% if %}", "no messages at all"])
def test_a_template_that_loses_the_video_is_refused(template):
    with pytest.raises(ModelError, match="chat template of the model cannot be used"):
        infer_manifest(*pair("qwen2vl_merger", template))


def test_qwen3_tells_the_time_in_the_middle_of_each_pair_of_frames():
    rule = family_of(*pair("qwen3vl_merger")).positions
    assert rule.frame_text(0, 0.0, 0.25) == "<0.2 seconds><|vision_start|>"
    assert rule.frame_text(7, 3.0, 3.26) == "<|vision_end|><3.3 seconds><|vision_start|>"


def test_a_language_model_is_refused_as_projector():
    with pytest.raises(ModelError, match="no projector"):
        projector_type(read_gguf(GOLDEN / "tiny-f32.gguf"))


def test_a_cap_on_the_long_side_comes_before_the_processors_least_size():
    rule = frames("qwen2.5vl_merger")
    assert rule.frame_size(320, 180, 8) == (448, 252), "enlarged to the least size"
    assert rule.frame_size(1920, 1080, 8) == (448, 252), "this program's own cap"
    assert rule.frame_size(2560, 1080, 8) == (448, 196), "wide: the least size would break the cap"
    assert rule.frame_size(1920, 1080, 8, long_side_px=112) == (112, 56)
    assert rule.n_vision_tokens(448, 252) == 16 * 9


def test_many_frames_share_the_pixels_of_a_video():
    rule = frames("qwen3vl_merger")
    few, many = (rule.frame_size(1920, 1080, n, long_side_px=4096) for n in (8, 768))
    assert few == (1152, 640) and many == (224, 128)
    assert 768 * many[0] * many[1] <= 25_165_824


def test_a_picture_of_extreme_shape_is_refused():
    with pytest.raises(ConfigError, match="crop the video"):
        frames("qwen2vl_merger").frame_size(8100, 40, 4)


@pytest.mark.parametrize("family", QWENS)
def test_header_and_library_agree_on_frames_and_width(family):
    source = files(family)
    with Model(source.model) as model, VisionEncoder(model, source.mmproj) as encoder:
        assert encoder.frames_per_step == manifest_of(source).frames.frames_per_step == 2
        features = encoder.encode(np.zeros((3, 56, 84, 3), np.uint8), np.array([0.0, 0.5, 1.0]))
        deepstack = 3 if family == "qwen3-vl" else 1
        assert features.embeddings.shape[0::2] == (2, model.n_embd * deepstack)
        assert model.n_embd_inp == model.n_embd * deepstack


@pytest.mark.parametrize("positions", ["keep", "reforge"])
@pytest.mark.parametrize("family", QWENS)
def test_a_compressed_session_answers_the_same_when_it_is_opened_again(family, positions, tmp_path):
    asked = {"fps": 4.0, "end_s": 5.7, "long_side_px": 224}  # 23 frames: the last pair is not full
    config = settings(
        asked, policy="hybrid", keep_ratio=0.5, positions=positions, prefill_chunk_frames=8
    )
    answers, saved = [], []
    for _ in range(2):
        with open_video(CLIP, files(family), config, cache_dir=tmp_path) as session:
            answers.append(session.ask("What is seen?").text)
            saved.append(session.saved.is_reused)
            assert session.video.n_frames == 23 and session.video.n_grid_frames == 12
            assert session.video.n_cells_kept < 0.75 * session.video.n_cells_before
    assert answers[0] == answers[1] and saved == [False, True]
