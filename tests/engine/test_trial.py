"""A damaged model file ends in a sentence and exit code 4, and never takes the program down."""

import random

import pytest
from session_support import MODEL, VIDEO, run

from retake_edge.engine import trial
from retake_edge.errors import ModelError
from retake_edge.llama.gguf import read_gguf
from retake_edge.models.manifest import ModelFiles, load_manifest

TINY = load_manifest("tiny")


def changed(path, folder, seed):
    """A copy with a few other bytes in the header: its start, its end, and anywhere in it."""
    rng, data = random.Random(seed), bytearray(path.read_bytes())
    end = min(read_gguf(path).tensor_offsets.values())
    for _ in range(rng.randint(1, 8)):
        start, stop = rng.choice([(0, end), (0, min(end, 2000)), (max(0, end - 6000), end)])
        data[rng.randrange(start, stop)] = rng.choice([0, 1, 127, 128, 255, rng.randrange(256)])
    copy = folder / f"{seed}-{path.name}"
    copy.write_bytes(data)
    return copy


@pytest.mark.process
@pytest.mark.parametrize("role", ["model", "mmproj"])
@pytest.mark.parametrize("seed", range(5))
def test_a_damaged_header_is_no_crash(tmp_path, role, seed):
    pair = {"model": TINY.model, "mmproj": TINY.mmproj}
    pair[role] = changed(pair[role], tmp_path, seed)
    options = ["-m", str(pair["model"]), "-mm", str(pair["mmproj"]), "--max-frames", "2"]
    code, _, err = run("ask", str(VIDEO), "What?", *options, "-n", "2", "--no-cache")
    assert code in (0, 4), err
    assert code == 0 or (err.startswith("error: ") and len(err.strip().splitlines()) == 1)


def test_a_header_that_fails_only_while_decoding_is_no_crash(tmp_path):
    key, data = b"rope.dimension_sections", bytearray(TINY.model.read_bytes())
    first = data.index(key) + len(key) + 4 + 4 + 8  # after its type, its items' type, their number
    data[first : first + 4] = (100).to_bytes(4, "little")
    damaged = tmp_path / "rope.gguf"
    damaged.write_bytes(data)
    with pytest.raises(ModelError, match="damaged"):
        trial.check_loadable(ModelFiles(damaged, TINY.mmproj), None)


def test_what_ends_the_trial_is_told_in_a_sentence(monkeypatch):
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(ModelError, match="damaged, or they do not belong together"):
        trial._try(MODEL)


def test_a_pair_is_tried_once(monkeypatch, tmp_path):
    tried = []
    monkeypatch.setattr(trial, "_try", tried.append)
    monkeypatch.setattr(trial, "_tried", set())
    trial.check_loadable(MODEL, tmp_path)
    trial.check_loadable(MODEL, tmp_path)
    monkeypatch.setattr(trial, "_tried", set())  # as another process would find it
    trial.check_loadable(MODEL, tmp_path)
    assert tried == [MODEL]
    trial.check_loadable(ModelFiles(MODEL.model, TINY.mmproj), tmp_path)
    assert len(tried) == 2, "another projector is another pair"


def test_files_that_a_manifest_vouches_for_are_not_tried(monkeypatch):
    monkeypatch.setattr(trial, "_try", lambda _: pytest.fail("it was tried"))
    trial.check_loadable(TINY, None)
