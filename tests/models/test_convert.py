"""Checkpoints of LLaVA-OneVision and LLaVA-Video become GGUF pairs that say all of a video."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from checkpoint_support import (
    FAMILIES,
    authors_config,
    authors_tensors,
    save,
    tensors_of,
    transformers_config,
    transformers_tensors,
)

from retake_edge.convert.llava import convert
from retake_edge.errors import ModelError
from retake_edge.llama.gguf import read_gguf
from retake_edge.models.families.video_facts import read_video_facts

EMBEDDINGS = "model.embed_tokens.weight"
LAYER = "model.vision_tower.vision_tower.vision_model.encoder.layers"


@pytest.fixture(scope="module")
def authors(tmp_path_factory):
    return save(tmp_path_factory.mktemp("video") / "toy", authors_config(), authors_tensors())


def facts_of(folder, config, tensors=None):
    made = convert(save(folder / "toy", config, tensors or authors_tensors()), folder, "f32")
    return read_video_facts(read_gguf(made.mmproj))


@pytest.mark.parametrize("family", ["llava-video", "llava-onevision"])
def test_both_layouts_become_the_pair_that_was_held_against_the_model(family, tmp_path):
    if family == "llava-video":
        folder = save(tmp_path / "toy", authors_config(), authors_tensors())
    else:
        folder = save(tmp_path / "toy", transformers_config(), transformers_tensors(), family)
    made = convert(folder, tmp_path / "out", "f32")
    for path, name in ((made.model, "model.gguf"), (made.mmproj, "mmproj.gguf")):
        found, expected = tensors_of(path), tensors_of(FAMILIES / family / name)
        assert found.keys() == expected.keys()
        for tensor, values in expected.items():
            assert np.array_equal(found[tensor], values), tensor
        said, wanted = read_gguf(path).metadata, read_gguf(FAMILIES / family / name).metadata
        unused = {f"tokenizer.ggml.{kind}_token_id" for kind in ("bos", "padding", "unknown")}
        for key in wanted.keys() - {"general.name"} - unused:
            assert said[key] == wanted[key], key
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "mmproj-toy-F32.gguf",
        "toy-F32.gguf",
    ]


@pytest.mark.parametrize(("dtype", "kind"), [("BF16", "bf16"), ("BF16", "f16"), ("F16", "f16")])
def test_weights_of_half_precision_are_read_and_matrices_written_in_it(dtype, kind, tmp_path):
    folder = save(tmp_path / "toy", authors_config(), authors_tensors(), dtype=dtype)
    made = convert(folder, tmp_path, kind)
    file = read_gguf(made.model)
    types = {name: file.tensor_types[name] for name in ("token_embd.weight", "output_norm.weight")}
    assert types == {"token_embd.weight": {"f16": 1, "bf16": 30}[kind], "output_norm.weight": 0}
    expected = authors_tensors()[EMBEDDINGS][5]
    np.testing.assert_allclose(file.rows("token_embd.weight", [5])[0], expected, rtol=2**-7)


@pytest.mark.parametrize(
    ("position", "merge", "newline"),
    [
        ("grid", "spatial_unpad", "row"),
        ("frame", "spatial_unpad", "frame"),
        ("one_token", "spatial_unpad", "end"),
        ("one_token", "spatial", "none"),
        ("no_token", "spatial_unpad", "none"),
        ("grid", "flat", "none"),
    ],
)
def test_the_learned_row_stands_where_the_settings_say(position, merge, newline, tmp_path):
    config = authors_config(mm_newline_position=position, mm_patch_merge_type=merge)
    assert facts_of(tmp_path, config).newline == newline


def test_settings_of_pooling_frames_and_times_are_kept(tmp_path):
    config = authors_config(
        mm_spatial_pool_mode="average", mm_spatial_pool_stride=3, force_sample=True
    )
    facts = facts_of(tmp_path, config)
    assert (facts.pool_mode, facts.pool_stride, facts.spreads_frames) == ("average", 3, True)
    assert facts.max_frames == 64
    assert facts.time_sentence.startswith("The video lasts for {duration_s} seconds, and {n_fra")
    silent = facts_of(tmp_path / "b", authors_config(add_time_instruction=False))
    assert (silent.family, silent.max_frames, silent.time_sentence) == ("LLaVA-OneVision", 32, "")
    unpooled = facts_of(tmp_path / "c", authors_config(mm_spatial_pool_stride=1))
    assert unpooled.pool_mode == "none"


def test_the_tower_ends_at_the_layer_that_the_model_was_trained_with(tmp_path):
    folder = save(
        tmp_path / "toy",
        transformers_config(vision_feature_layer=-2),
        transformers_tensors(),
        "llava-onevision",
    )
    file = read_gguf(convert(folder, tmp_path, "f32").mmproj)
    assert file.get("clip.vision.feature_layer") == [2]
    assert file.get("clip.vision.block_count") == 2
    assert not any(name.startswith("v.blk.2.") for name in file.tensor_shapes)


def test_of_a_whole_siglip_the_authors_leave_out_the_last_layer(tmp_path):
    tensors = authors_tensors()
    for i in range(3, 27):
        for name in [name for name in tensors if name.startswith(f"{LAYER}.0.")]:
            tensors[name.replace(f"{LAYER}.0.", f"{LAYER}.{i}.")] = tensors[name]
    made = convert(save(tmp_path / "toy", authors_config(), tensors), tmp_path, "f16")
    assert read_gguf(made.mmproj).get("clip.vision.feature_layer") == [26]


def test_rows_of_the_embedding_table_without_a_token_are_filled_up(tmp_path):
    tensors = authors_tensors()
    table = tensors[EMBEDDINGS]
    tensors[EMBEDDINGS] = np.concatenate([table, table[:3]])
    made = convert(save(tmp_path / "toy", authors_config(), tensors), tmp_path, "f32")
    tokens = read_gguf(made.model).get("tokenizer.ggml.tokens")
    assert len(tokens) == len(table) + 3
    assert tokens[-1] == f"[PAD{len(table) + 2}]"


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"architectures": ["LlavaLlamaForCausalLM"]}, "holds a LlavaLlamaForCausalLM"),
        ({"mm_projector_type": "linear"}, "mm_projector_type is 'linear'"),
        ({"add_faster_video": True}, "add_faster_video is True"),
        ({"mm_newline_position": "column"}, "mm_newline_position is 'column'"),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, "stretches positions by 'yarn'"),
        ({"mm_spatial_pool_mode": "median"}, "pooling of frames is 'median'"),
    ],
)
def test_what_cannot_be_converted_is_refused_in_a_sentence(changed, sentence, tmp_path):
    folder = save(tmp_path / "toy", authors_config(**changed), authors_tensors())
    with pytest.raises(ModelError, match=sentence):
        convert(folder, tmp_path / "out")
    left = tmp_path / "out"
    assert not left.exists() or not list(left.iterdir())


def test_a_tensor_of_another_model_is_refused_by_name(tmp_path):
    tensors = authors_tensors() | {"model.vision_resampler.query": np.zeros((2, 2), np.float32)}
    with pytest.raises(ModelError, match=r"model\.vision_resampler\.query"):
        convert(save(tmp_path / "toy", authors_config(), tensors), tmp_path)


def test_a_checkpoint_without_its_row_tokenizer_or_all_of_a_file_is_refused(authors, tmp_path):
    tensors = authors_tensors()
    del tensors["model.image_newline"]
    with pytest.raises(ModelError, match="has no image_newline"):
        convert(save(tmp_path / "a", authors_config(), tensors), tmp_path)
    folder = save(tmp_path / "b", authors_config(), authors_tensors())
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="has no tokenizer"):
        convert(folder, tmp_path)
    folder = save(tmp_path / "c", authors_config(), authors_tensors())
    file = folder / "model-1.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ModelError, match="is cut off"):
        convert(folder, tmp_path)
    assert not list(tmp_path.glob(".converting-*"))


@pytest.mark.process
def test_the_command_says_how_to_ask_or_what_is_wrong(authors, tmp_path):
    command = [sys.executable, "-m", "retake_edge.convert"]
    options = [str(authors), str(tmp_path), "--max-frames", "9"]
    done = subprocess.run([*command, *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "mmproj-toy-F16.gguf" in done.stdout
    assert read_video_facts(read_gguf(tmp_path / "mmproj-toy-F16.gguf")).max_frames == 9
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["OtherForCausalLM"]}))
    done = subprocess.run([*command, str(tmp_path), str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 4
    assert "Traceback" not in done.stderr and done.stderr.count("\n") == 1
