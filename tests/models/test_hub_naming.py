"""Which files of a repository make a model: by name, as llama.cpp chooses them."""

from pathlib import Path

import pytest

from retake_edge.errors import ConfigError
from retake_edge.models.hub.naming import (
    HubRef,
    model_parts,
    parse_ref,
    projector_of,
    quants,
    split_files,
)

PATHS = [
    "M-BF16.gguf",
    "M-F16.gguf",
    "M-Q4_K_M.gguf",
    "M-Q8_0.gguf",
    "M-imatrix.gguf",
    "README.md",
    "mmproj-M-F16.gguf",
    "mmproj-M-Q8_0.gguf",
    "mtp-M-Q4_K_M.gguf",
]


def test_a_repository_is_written_with_or_without_a_quant():
    assert parse_ref("user/My.Model-7B_GGUF") == HubRef("user/My.Model-7B_GGUF")
    assert parse_ref("user/m:UD-Q4_K_XL") == HubRef("user/m", "UD-Q4_K_XL")
    assert str(HubRef("user/m", "Q8_0")) == "user/m:Q8_0"


@pytest.mark.parametrize(
    "text", ["", "user", "user/", "/m", "a/b/c", "../m", "user/..", "user/m:", "user/m:a/b", "u/m "]
)
def test_what_is_no_repository_is_refused(text):
    with pytest.raises(ConfigError, match="user/repo:quant"):
        parse_ref(text)


def test_without_a_quant_the_usual_ones_come_first():
    assert model_parts(PATHS) == ["M-Q4_K_M.gguf"]
    assert model_parts([p for p in PATHS if "Q4" not in p]) == ["M-Q8_0.gguf"]
    assert model_parts(["M-Q3_K.gguf", "M-Q5_K.gguf"]) == ["M-Q3_K.gguf"]
    assert model_parts(["mmproj-M-Q8_0.gguf", "README.md"]) == []


def test_a_quant_is_found_in_any_case_and_never_as_a_part_of_another():
    assert model_parts(PATHS, "f16") == ["M-F16.gguf"]
    assert model_parts(PATHS, "bf16") == ["M-BF16.gguf"]
    assert model_parts(["m.IQ4_K_M.gguf"], "Q4_K_M") == []
    assert model_parts(PATHS, "Q5_K_M") == []
    assert model_parts(PATHS, "q.*") == []


def test_all_parts_of_a_split_model_are_named_even_if_one_is_not_there():
    there = ["Q8_0/M-Q8_0-00001-of-00003.gguf", "Q8_0/M-Q8_0-00002-of-00003.gguf"]
    parts = [f"Q8_0/M-Q8_0-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    assert model_parts(there, "Q8_0") == parts
    assert split_files(Path("d", "M-Q8_0-00001-of-00002.gguf")) == [
        Path("d", "M-Q8_0-00001-of-00002.gguf"),
        Path("d", "M-Q8_0-00002-of-00002.gguf"),
    ]
    assert split_files(Path("d", "M.gguf")) == [Path("d", "M.gguf")]


def test_the_projector_is_the_one_nearest_in_bits_and_in_folders():
    assert projector_of(PATHS, "M-Q4_K_M.gguf") == "mmproj-M-Q8_0.gguf"
    assert projector_of(PATHS, "M-BF16.gguf") == "mmproj-M-F16.gguf"
    nested = ["a/M-Q4_0.gguf", "a/mmproj-F32.gguf", "b/mmproj-Q4_0.gguf", "mmproj-Q4_0.gguf"]
    assert projector_of(nested, "a/M-Q4_0.gguf") == "a/mmproj-F32.gguf"
    assert projector_of(nested, "c/M-Q4_0.gguf") == "mmproj-Q4_0.gguf"
    assert projector_of(["b/mmproj-Q4_0.gguf"], "a/M-Q4_0.gguf") is None
    assert projector_of(["M.BF16-mmproj.gguf"], "M-Q4_0.gguf") == "M.BF16-mmproj.gguf"


def test_quants_are_those_of_models_alone():
    assert quants(PATHS) == ["BF16", "F16", "Q4_K_M", "Q8_0"]
    assert quants(["m.q4_k-00001-of-00002.gguf", "m.q4_k-00002-of-00002.gguf"]) == ["Q4_K"]
