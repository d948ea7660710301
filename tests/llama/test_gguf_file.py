"""GGUF headers are read as gguf's own reader reads them, only faster, and damage is told."""

import struct

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter, dequantize, quants
from session_support import MODEL

from retake_edge.errors import ModelError
from retake_edge.llama.gguf import read_gguf

MATRIX = np.random.default_rng(0).standard_normal((6, 64), dtype=np.float32)


@pytest.fixture
def written(tmp_path):
    """A file with every type of value, and a matrix of several types."""
    writer = GGUFWriter(tmp_path / "all.gguf", "toy")
    for name in ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"):
        getattr(writer, f"add_{name}")(f"toy.{name}", 7)
    writer.add_float32("toy.float32", 0.5)
    writer.add_float64("toy.float64", 0.1)
    writer.add_bool("toy.yes", True)
    writer.add_string("toy.text", "Grüße")
    writer.add_array("toy.numbers", [1, 2, 3])
    writer.add_array("toy.flags", [True, False])
    writer.add_array("toy.words", ["a", "", "ü"])
    writer.add_tensor("plain", MATRIX)
    writer.add_tensor("half", MATRIX.astype(np.float16))
    packed = quants.quantize(MATRIX, GGMLQuantizationType.Q8_0)
    writer.add_tensor("packed", packed, raw_dtype=GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tmp_path / "all.gguf"


def test_values_and_tensors_are_those_of_ggufs_own_reader(written):
    for path in (written, MODEL.model, MODEL.mmproj):
        file, reader = read_gguf(path), GGUFReader(path)
        fields = {k: f.contents() for k, f in reader.fields.items() if not k.startswith("GGUF.")}
        assert file.metadata == fields
        assert list(file.tensor_bytes) == [tensor.name for tensor in reader.tensors]
        for tensor in reader.tensors:
            name = tensor.name
            assert file.tensor_bytes[name] == tensor.n_bytes
            assert file.tensor_shapes[name] == tuple(reversed(tensor.shape.tolist()))
            assert file.tensor_offsets[name] == tensor.data_offset
            assert file.tensor_types[name] == tensor.tensor_type


def test_rows_of_a_matrix_are_its_own_whatever_its_type(written):
    file, reader = read_gguf(written), GGUFReader(written)
    for tensor in reader.tensors:
        whole = dequantize(tensor.data, tensor.tensor_type)
        assert np.array_equal(file.rows(tensor.name, [4, 0, 4]), whole[[4, 0, 4]])
    assert np.array_equal(file.rows("plain", [5]), MATRIX[[5]])


def test_a_key_with_a_dot_belongs_to_the_architecture(written):
    file = read_gguf(written)
    assert file.architecture == "toy"
    assert file.get(".int8") == 7 and file.get(".missing", 3) == 3


def test_every_cut_of_the_header_is_told_as_a_damaged_file(written, tmp_path):
    whole = written.read_bytes()
    end = min(read_gguf(written).tensor_offsets.values())
    for n in [0, 3, 8, *range(20, end - 40, 17)]:
        (tmp_path / "cut.gguf").write_bytes(whole[:n])
        with pytest.raises(ModelError, match="is no GGUF file"):
            read_gguf(tmp_path / "cut.gguf")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"PK\x03\x04" + bytes(60), "does not start with GGUF"),
        (b"GGUF" + struct.pack("<IQQ", 9, 0, 0), "format has number 9"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1 << 60), "beyond its end"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"k" + struct.pack("<I", 77), "77"),
        (
            b"GGUF"
            + struct.pack("<IQQQ", 3, 0, 1, 1)
            + b"k"
            + struct.pack("<I", 9)
            + struct.pack("<IQ", 9, 1) * 9,
            "nested too deep",
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path, content, reason):
    path = tmp_path / "wrong.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=reason):
        read_gguf(path)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(ModelError, match="There is no GGUF file"):
        read_gguf(tmp_path / "missing.gguf")
