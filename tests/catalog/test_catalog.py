"""What `retake-edge models` says of a model, read off its header and held against the engine."""

import pytest
from random_models import write_model

from retake_edge.catalog.catalog import compression_of
from retake_edge.llama import capture
from retake_edge.llama.gguf import read_gguf
from retake_edge.llama.model import Model
from retake_edge.models.manifest import load_manifest


@pytest.mark.parametrize("kind", ["norm", "neox", "imrope", "hybrid", "sliding"])
def test_the_header_tells_what_the_engine_finds(kind, tmp_path):
    path = write_model(tmp_path / "model.gguf", kind, n_layer=4)
    header = read_gguf(path)
    with Model(path) as model:
        is_refused = bool(capture.why_not_compressible(model))
    assert compression_of(header).startswith("not compressed") == is_refused


def test_a_hybrid_model_is_told_apart(tmp_path):
    told = compression_of(read_gguf(write_model(tmp_path / "model.gguf", "hybrid", n_layer=4)))
    assert "recurrent" in told


def test_the_bundled_model_is_compressed_in_all_layers():
    assert compression_of(read_gguf(load_manifest("tiny").model)) == "all layers compressed"
