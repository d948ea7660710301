"""What families say of frames, text and sampling, from the metadata of a GGUF pair alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from retake_edge.config import (
    CompressionConfig,
    GenerationConfig,
    RetakeConfig,
    RuntimeConfig,
    SamplingConfig,
)
from retake_edge.errors import ModelError
from retake_edge.llama.gguf import GgufFile
from retake_edge.models.families import family_of, infer_manifest
from retake_edge.models.manifest import ModelFiles
from retake_edge.plan.frames import plan_frames
from retake_edge.session.open import open_video
from retake_edge.video.read import VideoInfo

FAMILIES = Path(__file__).parents[1] / "golden" / "families"
VIDEO = VideoInfo(Path("v.mp4"), 1920, 1080, 0, 600.0, 15_000, "avc1", 25.0, 0.04, 0.0)


def pair(architecture: str = "llama", **vision: Any) -> tuple[GgufFile, GgufFile]:
    """Headers of a language model and a projector; `name` is both files' name."""
    name = vision.pop("name", "toy")
    kind = vision.pop("projector")
    language = {"general.architecture": architecture, "general.name": name}
    projector = {"general.architecture": "clip", "clip.projector_type": kind}
    projector |= {f"clip.vision.{key}": value for key, value in vision.items()}
    projector |= {"general.name": name}
    return (
        GgufFile(Path("model.gguf"), language, {}, {}),
        GgufFile(Path("mmproj.gguf"), projector, {}, {}),
    )


def internvl3() -> tuple[GgufFile, GgufFile]:
    scale = {"projector.scale_factor": 2}
    return pair("qwen2", projector="internvl", image_size=448, patch_size=14, **scale)


def smolvlm2_500m(**more: Any) -> tuple[GgufFile, GgufFile]:
    scale: dict[str, Any] = {"projector.scale_factor": 4}
    return pair(projector="idefics3", image_size=512, patch_size=16, **scale, **more)


def llava(architecture: str = "llama", **more: Any) -> tuple[GgufFile, GgufFile]:
    return pair(architecture, projector="mlp", image_size=336, patch_size=14, **more)


def test_an_internvl_frame_is_one_tile_of_256_tokens_whatever_its_shape():
    rule = family_of(*internvl3()).frames
    assert rule.frame_size(1920, 1080, 9) == rule.frame_size(90, 160, 9) == (448, 448)
    assert rule.n_vision_tokens(448, 448) == 256
    assert rule.resample == "bicubic"
    assert not rule.overview


def test_internvl_numbers_its_frames_and_has_no_system_message():
    prompt = infer_manifest(*internvl3()).prompt
    rule = family_of(*internvl3()).positions
    assert prompt.before == "<|im_start|>user\n"
    assert rule.frame_text(0, 0.0, 0.0) == "Frame1: <img>"
    assert rule.frame_text(9, 9.0, 9.0) == "</img>\nFrame10: <img>"
    assert prompt.question("Who?") == "</img>\nWho?<|im_end|>\n<|im_start|>assistant\n"
    assert prompt.next_question("Why?").startswith("<|im_end|>\n<|im_start|>user\nWhy?")


def test_a_smolvlm2_frame_is_enlarged_to_four_tiles_a_side_and_becomes_one_tile_of_64_tokens():
    rule = family_of(*smolvlm2_500m()).frames
    assert rule.frame_size(1920, 1080, 9) == (512, 512)
    assert rule.via_px == 2048
    assert rule.n_vision_tokens(512, 512) == 64
    assert rule.overview
    assert family_of(*smolvlm2_500m(preproc_image_size=1024)).frames.via_px == 1024


def test_smolvlm2_is_told_the_number_of_frames_in_words_the_duration_and_each_time():
    manifest = infer_manifest(*smolvlm2_500m())
    opening = manifest.prompt.opening(21, 3725.9)
    assert opening == (
        "<|im_start|>User: You are provided the following series of twenty-one frames from a "
        "1:02:05 [H:MM:SS] video.\n"
    )
    assert manifest.positions.frame_text(0, 0.0, 0.0).startswith("\nFrame from 00:00:<fake_token")
    assert "\nFrame from 75:09:" in manifest.positions.frame_text(3, 75 * 60 + 9.9, 0.0)
    assert manifest.prompt.question("Who?").endswith("\n\nWho?<end_of_utterance>\nAssistant:")


def test_without_options_sampling_follows_the_family():
    smolvlm2, internvl = infer_manifest(*smolvlm2_500m()), infer_manifest(*internvl3())
    assert plan_frames(smolvlm2, RetakeConfig(), VIDEO).n == 64
    assert plan_frames(internvl, RetakeConfig(), VIDEO).n == 600
    asked = RetakeConfig(sampling=SamplingConfig(fps=2.0, max_frames=100))
    assert plan_frames(smolvlm2, asked, VIDEO).n == 100


def test_a_video_squeezed_into_squares_is_answered_about_and_shown_in_its_own_shape():
    toy = FAMILIES / "smolvlm2"
    settings = RetakeConfig(
        compression=CompressionConfig(keep_ratio=0.25, prefill_chunk_frames=4),
        runtime=RuntimeConfig(n_threads=1, n_gpu_layers=0),
        generation=GenerationConfig(max_tokens=2),
    )
    files = ModelFiles(toy / "model.gguf", toy / "mmproj.gguf")
    with open_video(FAMILIES / "clip.mp4", files, settings, use_cache=False) as session:
        assert session.ask("What happens?").n_tokens == 2
        assert session.video.n_frames == 6
        n_text = session.video.n_cells_before - 6 * 16
        assert session.video.n_cells_kept == n_text + 6 * 16 // 4
        picture = cv2.imdecode(np.frombuffer(session.thumbnails[0][1], np.uint8), 1)
    assert picture.shape == (90, 160, 3)  # of 320 x 180


@pytest.mark.parametrize(
    "pair",
    [
        llava("qwen2", mm_patch_merge_type="spatial_unpad"),
        llava("llama", name="LLaVA-Video 7B"),
        llava("qwen2", name="llava-onevision-qwen2-0.5b-ov"),
    ],
)
def test_models_that_pool_their_frames_are_refused_in_one_sentence(pair):
    with pytest.raises(ModelError, match="does not say how frames are pooled") as refused:
        family_of(*pair)
    assert str(refused.value).count(". ") == 0


@pytest.mark.parametrize(
    "pair", [llava(), llava("qwen2"), llava(mm_patch_merge_type="spatial_unpad")]
)
def test_any_other_llava_projector_is_used_frame_after_frame(pair):
    family = family_of(*pair)
    assert family.positions.kind == "linear"
    assert family.frames.frame_size(1920, 1080, 9) == (336, 189)  # mtmd pads it
    assert family.frames.n_vision_tokens(336, 189) == 576
