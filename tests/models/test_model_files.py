"""Of the files beside a GGUF, those are found that belong to it, or what is wrong is said."""

import os
import shutil
import subprocess
import sys

import pytest
from gguf import GGUFWriter
from session_support import MODEL, VIDEO, run

from retake_edge.errors import ModelError
from retake_edge.models.families import manifest_of
from retake_edge.models.files import check_parts, projector_beside
from retake_edge.models.manifest import ModelFiles, load_manifest
from retake_edge.models.resolve import resolve_model

TINY = load_manifest("tiny")


def gguf(path, architecture, **values):
    """A header without tensors."""
    writer = GGUFWriter(path, architecture)
    for key, value in values.items():
        add = writer.add_uint32 if isinstance(value, int) else writer.add_string
        add(key.replace("__", "."), value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


def model(path, width=64, **values):
    return gguf(path, "qwen2vl", **{"qwen2vl__embedding_length": width, **values})


def projector(path, width=64):
    return gguf(path, "clip", clip__vision__projection_dim=width)


def found(path):
    return projector_beside(path, check_parts(path)).name


@pytest.mark.parametrize(
    "name",
    [
        "mmproj-X-VL-3B-f16.gguf",
        "X-VL-3B.mmproj-f16.gguf",
        "X-VL-3B-mmproj.gguf",
        "X-VL-3B.mmproj.gguf",
        "mmproj-f16.gguf",
        "mmproj.gguf",
        "mmproj-model-f16.gguf",
        "X-VL-3B-MMPROJ-Q8_0.GGUF",
        "x-vl-3b.mm-proj.f32.gguf",
    ],
)
def test_a_projector_is_found_by_every_customary_name(tmp_path, name):
    projector(tmp_path / name)
    assert found(model(tmp_path / "X-VL-3B-Q4_K_M.gguf")) == name


def test_of_several_the_one_named_after_the_model_is_taken(tmp_path):
    for name in ("mmproj-A-2B-f16.gguf", "mmproj-A-7B-f16.gguf", "mmproj-f16.gguf"):
        projector(tmp_path / name)
    assert found(model(tmp_path / "A-7B-Q4_K_M.gguf")) == "mmproj-A-7B-f16.gguf"
    assert found(model(tmp_path / "A-2B.IQ3_XXS.gguf")) == "mmproj-A-2B-f16.gguf"
    assert found(model(tmp_path / "B-Q8_0.gguf")) == "mmproj-f16.gguf"


def test_the_width_of_the_embeddings_counts_before_the_name(tmp_path):
    projector(tmp_path / "mmproj-A-f16.gguf", width=32)
    projector(tmp_path / "mmproj-renamed-f16.gguf", width=64)
    assert found(model(tmp_path / "A-Q4_0.gguf", width=64)) == "mmproj-renamed-f16.gguf"


def test_of_equals_the_nearest_in_bits_is_taken(tmp_path):
    for quant in ("f32", "f16", "Q8_0"):
        projector(tmp_path / f"mmproj-A-{quant}.gguf")
    assert found(model(tmp_path / "A-Q4_K_M.gguf")) == "mmproj-A-Q8_0.gguf"
    assert found(model(tmp_path / "A-BF16.gguf")) == "mmproj-A-f16.gguf"


def test_several_that_fit_equally_well_are_listed(tmp_path):
    for name in ("mmproj-A-f16.gguf", "mmproj-B-f16.gguf"):
        projector(tmp_path / name)
    with pytest.raises(ModelError, match=r"mmproj-A-f16\.gguf, mmproj-B-f16\.gguf.*--mmproj"):
        found(model(tmp_path / "C-Q4_0.gguf"))


def test_a_model_alone_is_told_what_it_lacks(tmp_path):
    model(tmp_path / "other.gguf")
    with pytest.raises(ModelError, match="no projector"):
        found(model(tmp_path / "A-Q4_0.gguf"))


def parts(folder, count=3, name="A-Q4_0"):
    return [
        model(folder / f"{name}-{i + 1:05d}-of-{count:05d}.gguf", split__no=i, split__count=count)
        for i in range(count)
    ]


@pytest.mark.parametrize("given", [None, "other"])
def test_a_projector_in_place_of_the_model_is_called_one(tmp_path, given):
    path = projector(tmp_path / "mmproj-A-f16.gguf")
    other = projector(tmp_path / "mmproj-B-f16.gguf") if given else None
    with pytest.raises(ModelError, match=r"A-f16\.gguf is a projector, not a"):
        resolve_model(str(path), other)


def test_a_split_model_is_given_by_its_first_part(tmp_path):
    first, second, _ = parts(tmp_path)
    assert check_parts(first).path == first
    projector(tmp_path / "mmproj-A-f16.gguf")
    assert found(first) == "mmproj-A-f16.gguf"
    with pytest.raises(ModelError, match=f"part 2 of 3; give the first part, .*{first.name}"):
        check_parts(second)


def test_a_missing_part_is_named(tmp_path):
    first, _, third = parts(tmp_path)
    third.unlink()
    with pytest.raises(ModelError, match=f"Part 3 of 3 .* missing.*{third.name}"):
        check_parts(first)


def test_a_renamed_part_is_named(tmp_path):
    first, second, third = parts(tmp_path)
    shutil.copy(third, second)
    with pytest.raises(ModelError, match=r"00002-of-00003.gguf is part 3 .* its name says 2"):
        check_parts(first)
    alone = first.rename(tmp_path / "model.gguf")
    with pytest.raises(ModelError, match=r"part 1 of 3 of a split model.*NAME-00001-of-00003"):
        check_parts(alone)


def test_a_wrong_count_in_the_name_is_named(tmp_path):
    first = parts(tmp_path, count=2)[0]
    wrong = first.rename(tmp_path / "A-00001-of-00003.gguf")
    with pytest.raises(ModelError, match="has 2 parts, and in its name 3"):
        check_parts(wrong)


def test_the_bundled_pair_is_known_by_any_path(tmp_path):
    lm, mmproj = tmp_path / "renamed.gguf", tmp_path / "renamed.mmproj.gguf"
    os.link(TINY.model, lm)
    os.link(TINY.mmproj, mmproj)
    source = resolve_model(str(lm))
    assert source == ModelFiles(lm, mmproj)
    known = manifest_of(source)
    assert (known.frames, known.positions, known.prompt, known.fps) == (
        (TINY.frames, TINY.positions, TINY.prompt, TINY.fps)
    )
    assert known.model == lm and known.mmproj == mmproj


def test_one_file_of_the_bundled_pair_does_not_make_it():
    other = manifest_of(ModelFiles(MODEL.model, TINY.mmproj))
    assert other.gguf_name == ""


@pytest.mark.process
def test_a_model_without_parts_is_refused_by_the_command_line(tmp_path):
    first = parts(tmp_path)[0]
    first.with_name(first.name.replace("00001", "00002")).unlink()
    code, _, err = run("ask", str(VIDEO), "What?", "-m", str(first))
    assert code == 4 and "Part 2 of 3" in err and len(err.splitlines()) == 1


@pytest.mark.process
def test_gguf_scripts_copies_of_the_bundled_model_are_known(tmp_path):
    copy = tmp_path / "t.gguf"
    call = ["-m", "gguf.scripts.gguf_new_metadata", "--force", "--general-description", "x"]

    subprocess.run([sys.executable, *call, str(TINY.model), str(copy)], check=True)
    assert manifest_of(ModelFiles(copy, TINY.mmproj)).frames == TINY.frames
