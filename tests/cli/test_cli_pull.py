"""`pull`, -hf and `models` as they are run: real processes, real sockets, a real model."""

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from fake_hub import Fault, Repo, sha256
from gguf import GGUFReader, GGUFWriter
from hub_support import LARGE_BYTES, MMPROJ, MODEL, REPO, cache, content, hub

from retake_edge.cli import main
from retake_edge.models.manifest import models_dir

__all__ = ["cache", "hub"]  # fixtures

TINY = models_dir() / "tiny"
VIDEO = TINY / "demo.mp4"
TINY_REPO = "test/tiny-GGUF"
EXIT_MODEL, EXIT_USAGE, EXIT_INTERRUPTED = 4, 2, 130


def process(*arguments, **options):
    """Run the command line in a process of its own."""
    command = [sys.executable, "-m", "retake_edge", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **options)


@pytest.fixture
def retake(capsys, monkeypatch):
    """Run the command line in this process, which spares its start."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["retake-edge", *map(str, arguments)])
        capsys.readouterr()
        try:
            main()
        except SystemExit as end:
            told = capsys.readouterr()
            return subprocess.CompletedProcess(arguments, int(end.code or 0), told.out, told.err)

    return run


@pytest.fixture
def tiny_hub(hub):
    """A hub that has the bundled model, too."""
    hub.repos[TINY_REPO] = Repo(
        {
            "tiny-Q8_0.gguf": (TINY / "tiny-lm-q8_0.gguf").read_bytes(),
            "mmproj-tiny-F16.gguf": (TINY / "tiny-mmproj-f16.gguf").read_bytes(),
        }
    )
    return hub


@pytest.fixture
def large_hub(hub):
    """The hub's pair with a model of three blocks."""
    hub.repos[REPO].files[MODEL] = content(LARGE_BYTES)
    return hub


def ask(*options, video=VIDEO):
    """The arguments of a question."""
    question = "What number is on the red card?"
    return ["ask", video, question, "--max-frames", 16, "-t", 1, "--json", *options]


@pytest.mark.process
def test_a_question_downloads_its_model_once_and_then_needs_no_hub(tiny_hub):
    first = process(*ask("-hf", f"{TINY_REPO}:Q8_0"))
    assert first.returncode == 0, first.stderr
    document = json.loads(first.stdout)
    files = tiny_hub.repos[TINY_REPO].files
    assert document["model"]["model_sha256"] == sha256(files["tiny-Q8_0.gguf"])
    assert document["model"]["mmproj_sha256"] == sha256(files["mmproj-tiny-F16.gguf"])
    assert len(tiny_hub.served) == 2
    tiny_hub.__exit__()
    second = process(*ask("-hf", TINY_REPO))
    assert second.returncode == 0, second.stderr
    again = json.loads(second.stdout)
    assert again["text"] == document["text"]
    assert again["session"]["is_reused"]


def test_a_video_that_is_not_there_is_told_before_a_model_is_downloaded(tiny_hub, tmp_path, retake):
    run = retake(*ask("-hf", TINY_REPO, video=tmp_path / "none.mp4"))
    assert run.returncode == 3, run.stderr
    assert not tiny_hub.asked


def test_a_projector_of_ones_own_goes_with_a_repository_without_one(tiny_hub, retake):
    del tiny_hub.repos[TINY_REPO].files["mmproj-tiny-F16.gguf"]
    without = retake(*ask("-hf", TINY_REPO))
    assert without.returncode == EXIT_MODEL
    assert "no mmproj*.gguf in test/tiny-GGUF (quants: Q8_0)" in without.stderr
    own = retake(*ask("-hf", TINY_REPO, "--mmproj", TINY / "tiny-mmproj-f16.gguf"))
    assert own.returncode == 0, own.stderr


@pytest.mark.parametrize(
    ("options", "told", "code"),
    [
        (["-hf", "nonsense"], "user/repo:quant", EXIT_USAGE),
        (["-hf", REPO, "-m", "tiny"], "give one of them", EXIT_USAGE),
        (["-hf", REPO, "--offline"], f"retake-edge pull {REPO}", EXIT_MODEL),
        (["-m", "qwen2.5-vl-3b"], "run `retake-edge pull qwen2.5-vl-3b`", EXIT_MODEL),
    ],
)
def test_options_that_name_no_model_at_hand_are_told_without_the_network(
    hub, options, told, code, retake
):
    run = retake(*ask(*options))
    assert run.returncode == code
    assert told in run.stderr
    assert run.stderr.count("\n") == 1
    assert not hub.asked


def test_pull_prints_where_the_files_lie_and_fetches_them_once(hub, cache, retake):
    run = retake("pull", REPO)
    assert run.returncode == 0, run.stderr
    paths = [Path(line) for line in run.stdout.splitlines()]
    assert [path.name for path in paths] == [MODEL, MMPROJ]
    assert all(path.is_relative_to(cache) and path.is_file() for path in paths)
    again = retake("pull", REPO)
    assert (again.returncode, again.stdout) == (0, run.stdout)
    assert "0.0 MB of it downloaded" in again.stderr
    assert len(hub.served) == 2
    assert retake("pull", REPO, "--offline").stdout == run.stdout


def test_the_bundled_model_needs_no_pull(hub, retake):
    run = retake("pull", "tiny")
    assert run.returncode == 0
    assert run.stdout == f"{TINY / 'tiny-lm-q8_0.gguf'}\n{TINY / 'tiny-mmproj-f16.gguf'}\n"
    assert not hub.asked


def test_pull_says_each_failure_in_one_sentence(hub, retake):
    assert retake("pull", "nonsense").returncode == EXIT_USAGE
    for target in ("test/none", f"{REPO}:Q2_K"):
        run = retake("pull", target)
        assert run.returncode == EXIT_MODEL
        assert run.stderr.startswith("error: ")
        assert run.stderr.count("\n") == 1
        assert not run.stdout


@pytest.mark.process
def test_an_interrupted_pull_goes_on_where_it_stopped(large_hub, cache, retake):
    large_hub.faults[MODEL] = [Fault(cut=LARGE_BYTES - 100, hold=threading.Event())]
    command = [sys.executable, "-m", "retake_edge", "pull", REPO]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as pull:
        part = wait_for_part(cache, pull)
        pull.send_signal(signal.SIGINT)
        _, told = pull.communicate(timeout=60)
    assert pull.returncode == EXIT_INTERRUPTED, told
    assert "Traceback" not in told
    n_before = part.stat().st_size
    assert n_before == 20 << 20
    assert not list(cache.rglob("*.gguf"))
    run = retake("pull", REPO)
    assert run.returncode == 0, run.stderr
    assert large_hub.served[-2:] == [(MODEL, f"bytes={n_before}-"), (MMPROJ, None)]
    assert "4.2 MB of it downloaded" in run.stderr
    assert not part.exists()


def wait_for_part(cache, pull):
    """Wait until two blocks of the model are on the disk."""
    for _ in range(3000):
        for part in cache.rglob("*.incomplete"):
            if part.stat().st_size >= 20 << 20:
                return part
        assert pull.poll() is None, pull.stderr.read()
        time.sleep(0.02)
    raise AssertionError("the download does not start")


@pytest.mark.process
def test_a_full_disk_leaves_nothing_that_is_taken_for_whole(large_hub, cache, retake):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (15 << 20, 15 << 20))

    run = process("pull", REPO, preexec_fn=limit)
    assert run.returncode == EXIT_MODEL, run.stderr
    assert "There is no room for the files of test/pair-GGUF" in run.stderr
    told = [line for line in run.stderr.splitlines() if not line.startswith("downloading")]
    assert len(told) == 1
    assert not list(cache.rglob("*.gguf"))
    (part,) = cache.rglob("*.incomplete")
    assert part.stat().st_size == 15 << 20
    again = retake("pull", REPO)
    assert again.returncode == 0, again.stderr
    assert (MODEL, f"bytes={15 << 20}-") in large_hub.served


@pytest.mark.process
def test_two_pulls_at_once_fetch_a_file_once(large_hub, cache):
    gate = threading.Event()
    large_hub.faults[MODEL] = [Fault(hold=gate)]
    command = [sys.executable, "-m", "retake_edge", "pull", REPO]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    while len(large_hub.asked) < 3:  # both have the record, and one asked for the model
        assert all(pull.poll() is None for pull in both)
        time.sleep(0.02)
    gate.set()
    outputs = [pull.communicate(timeout=60)[0] for pull in both]
    assert [pull.returncode for pull in both] == [0, 0]
    assert outputs[0] == outputs[1]
    assert large_hub.n_bytes_of(MODEL) == 1


def test_models_lists_what_is_there_and_what_can_be_had(tiny_hub, retake):
    before = {entry["name"]: entry for entry in json.loads(retake("models", "--json").stdout)}
    assert before["tiny"]["source"] == "bundled"
    assert before["tiny"]["is_downloaded"]
    assert before["tiny"]["n_bytes"] == sum(path.stat().st_size for path in TINY.glob("*.gguf"))
    assert before["tiny"]["memory_bytes"] > before["tiny"]["n_bytes"]
    assert not before["qwen3-vl-4b"]["is_downloaded"]
    assert not tiny_hub.asked
    assert retake("pull", TINY_REPO).returncode == 0
    (found,) = (e for e in json.loads(retake("models", "--json").stdout) if e["source"] == "cache")
    assert found["name"] == f"{TINY_REPO}:Q8_0"
    for key in ("n_bytes", "memory_bytes", "architecture", "compression"):
        assert found[key] == before["tiny"][key]
    head, *lines = retake("models").stdout.splitlines()
    assert head.split() == ["model", "download", "memory", "an", "hour", "of", "video"]
    assert [line.split()[0] for line in lines][:2] == ["qwen3-vl-8b", "qwen3-vl-4b"]
    assert lines[-1].split()[0] == "tiny" and "demo scenes only" in lines[-1]
    assert any(f"{TINY_REPO}:Q8_0" in line for line in lines)
    assert sum("recommended" in line for line in lines) == 1
    assert not any("?" in line for line in lines), "no model is without a size"
    assert TINY_REPO in retake("models", "--details").stdout


def test_a_model_with_a_name_is_pulled_and_asked_by_name(tiny_hub, tmp_path, monkeypatch, retake):
    folder = tmp_path / "manifests"
    folder.mkdir()
    manifest = f'description = "Ours."\n[hub]\nrepo = "{TINY_REPO}"\nquant = "Q8_0"\n'
    (folder / "ours.toml").write_text(manifest)
    monkeypatch.setenv("RETAKE_MODELS_DIR", str(folder))
    missing = retake(*ask("-m", "ours"))
    assert (missing.returncode, tiny_hub.asked) == (EXIT_MODEL, [])
    assert "retake-edge pull ours" in missing.stderr
    assert retake("pull", "ours").returncode == 0
    run = retake(*ask("-m", "ours"))
    assert run.returncode == 0, run.stderr
    index = retake("index", VIDEO, "--max-frames", 16, "-hf", f"{TINY_REPO}:Q8_0")
    assert (index.returncode, "was there already" in index.stderr) == (0, True), index.stderr
    (entry,) = json.loads(retake("models", "--json").stdout)
    assert (entry["name"], entry["is_downloaded"]) == ("ours", True)


def test_a_damaged_file_in_the_cache_does_not_break_the_list(hub, retake):
    assert retake("pull", REPO).returncode == 0  # random bytes, no GGUF
    run = retake("models", "--json")
    assert run.returncode == 0, run.stderr
    (entry,) = (e for e in json.loads(run.stdout) if e["source"] == "cache")
    assert "is no GGUF file" in entry["description"]
    assert os.environ["HF_HUB_CACHE"] in entry["description"]


def split_in_three(source, folder):
    """Write a GGUF as llama.cpp splits it: parts by number, the first one with the metadata."""
    reader = GGUFReader(source)
    parts = -(-len(reader.tensors) // 3)
    writer = GGUFWriter(folder / "tiny-Q8_0.gguf", "qwen2vl", split_max_tensors=parts)
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            kind, item = field.types[0], field.types[-1] if len(field.types) > 1 else None
            writer.add_key_value(name, field.contents(), kind, item)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sorted(folder.glob("tiny-Q8_0-*.gguf"))


def test_a_split_model_answers_as_the_whole_one_and_each_part_counts(tiny_hub, retake, tmp_path):
    parts = split_in_three(TINY / "tiny-lm-q8_0.gguf", tmp_path)
    assert len(parts) == 3
    files = tiny_hub.repos[TINY_REPO].files
    whole = retake(*ask("-hf", TINY_REPO))
    split = {f"Q8_0/{part.name}": part.read_bytes() for part in parts}
    tiny_hub.repos["test/split-GGUF"] = Repo({**files, **split})
    del tiny_hub.repos["test/split-GGUF"].files["tiny-Q8_0.gguf"]
    run = retake(*ask("-hf", "test/split-GGUF"))
    assert run.returncode == 0, run.stderr
    first, second = json.loads(whole.stdout), json.loads(run.stdout)
    assert second["text"] == first["text"]
    assert not second["session"]["is_reused"]
    assert retake("pull", "test/split-GGUF", "--offline").stdout.count(".gguf") == 4
    by_path = ask("-m", parts[0], "--mmproj", TINY / "tiny-mmproj-f16.gguf")
    assert json.loads(retake(*by_path).stdout)["session"]["is_reused"]
    last = bytearray(parts[2].read_bytes())
    last[-1] ^= 1
    parts[2].write_bytes(last)
    assert not json.loads(retake(*by_path).stdout)["session"]["is_reused"]
    found = {entry["name"]: entry for entry in json.loads(retake("models", "--json").stdout)}
    assert found["test/split-GGUF:Q8_0"]["memory_bytes"] == found["tiny"]["memory_bytes"]
