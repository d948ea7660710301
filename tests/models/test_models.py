"""Models by name and by path: found, verified, and refused with a next step."""

import shutil
from pathlib import Path

import pytest

from retake_edge.errors import ConfigError, ModelError
from retake_edge.llama.model import Model
from retake_edge.models import manifest as models
from retake_edge.models import resolve
from retake_edge.models.names import fold, known_name, nearest

GOLDEN = Path(__file__).parents[1] / "golden"


def test_the_bundled_model_is_what_its_manifest_says():
    manifest = resolve.resolve_model("tiny")
    assert isinstance(manifest, models.ModelManifest)
    assert manifest.name == "tiny"
    assert manifest.positions.kind == "mrope-clock"
    assert "{question}" in manifest.prompt.after


def test_a_changed_model_file_is_refused(tmp_path, monkeypatch):
    shutil.copytree(models.models_dir(), tmp_path / "models")
    monkeypatch.setenv(models.MODELS_DIR_VARIABLE, str(tmp_path / "models"))
    manifest = models.load_manifest("tiny")
    manifest.verify()
    with manifest.mmproj.open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([last[0] ^ 1]))
    with pytest.raises(ModelError, match="SHA-256"):
        resolve.resolve_model("tiny")


def test_a_manifest_of_the_version_before_is_read(tmp_path, monkeypatch):
    shutil.copytree(models.models_dir(), tmp_path / "models")
    new = models.load_manifest("tiny")
    monkeypatch.setenv(models.MODELS_DIR_VARIABLE, str(tmp_path / "models"))
    file = tmp_path / "models" / "tiny.toml"
    text = file.read_text(encoding="utf-8")
    assert "[positions]" in text
    file.write_text(text.replace("[positions]", "[layout]"), encoding="utf-8")
    assert models.load_manifest("tiny").positions == new.positions


def test_a_damaged_manifest_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv(models.MODELS_DIR_VARIABLE, str(tmp_path))
    (tmp_path / "odd.toml").write_text("fps = ")
    with pytest.raises(ModelError, match="damaged"):
        models.load_manifest("odd")


@pytest.mark.parametrize("name", ["huge", "..", "x/y/z", "tiny.toml", ""])
def test_an_unknown_name_is_refused_with_what_to_do(name):
    with pytest.raises(ModelError, match=r"retake-edge models|did you mean|is a folder"):
        resolve.resolve_model(name)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Qwen2.5-VL-3B", "qwen2.5-vl-3b"),
        ("qwen2.5vl:3b", "qwen2.5-vl-3b"),
        ("QWEN3_VL_8B_Instruct", "qwen3-vl-8b"),
        ("InternVL3_5-4B", "internvl3.5-4b"),
        ("SmolVLM2 2.2B", "smolvlm2-2.2b"),
        ("smolvlm2:500m-video-instruct", "smolvlm2-500m"),
        ("Tiny", "tiny"),
        ("qwen2.5-vl", None),
        ("", None),
    ],
)
def test_a_name_is_known_in_any_case_and_punctuation(text, name):
    assert known_name(text) == name


def test_no_two_names_are_written_alike():
    assert len({fold(name) for name in models.model_names()}) == len(models.model_names())


def test_the_nearest_names_are_suggested():
    assert nearest("qwen2.5-vl")[:2] == ["qwen2.5-vl-3b", "qwen2.5-vl-7b"]
    assert nearest("smolvlm2-2b")[0] == "smolvlm2-2.2b"
    assert nearest("Qwen/Qwen3-VL-4B-Instrukt")[0] == "qwen3-vl-4b"
    assert nearest("llava") == []


@pytest.mark.parametrize("text", ["qwen2.5-VL:3b", "ggml-org/Qwen2.5-VL-3B-Instruct-GGUF:Q4_K_M"])
def test_a_model_that_is_not_here_says_how_to_get_it(text):
    with pytest.raises(resolve.NotDownloadedError, match="retake-edge pull") as raised:
        resolve.resolve_model(text)
    assert str(raised.value.ref) == "ggml-org/Qwen2.5-VL-3B-Instruct-GGUF:Q4_K_M"


def test_a_path_needs_a_projector(tmp_path):
    lonely = tmp_path / "model.gguf"
    shutil.copy(GOLDEN / "tiny-f32.gguf", lonely)
    with pytest.raises(ModelError, match="no projector"):
        resolve.resolve_model(str(lonely))
    shutil.copy(GOLDEN / "mmproj-tiny-f32.gguf", tmp_path / "mmproj-a.gguf")
    assert resolve.resolve_model(str(lonely)) == models.ModelFiles(
        lonely, tmp_path / "mmproj-a.gguf"
    )
    with pytest.raises(ModelError, match="no model file"):
        resolve.resolve_model(str(tmp_path / "none.gguf"))


def test_a_projector_does_not_go_with_a_name(tmp_path):
    with pytest.raises(ConfigError, match="--mmproj"):
        resolve.resolve_model("tiny", tmp_path / "mmproj.gguf")


@pytest.mark.parametrize("content", [b"", b"GGUF", b"GGUF" + bytes(200), b"no model at all"])
def test_a_damaged_model_file_is_refused(tmp_path, content):
    path = tmp_path / "broken.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="cannot load"):
        Model(path)
