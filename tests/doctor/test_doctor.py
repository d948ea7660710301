"""The doctor finds a whole installation fine, and says what is wrong with a broken one."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
from session_support import VIDEO, run

from retake_edge.doctor import diagnose
from retake_edge.doctor.checks import (
    ERROR,
    LOW_DISK_BYTES,
    LOW_MEMORY_BYTES,
    OK,
    WARNING,
    backends_check,
    cache_check,
    cpu_check,
    decoders_check,
    memory_check,
    self_test_check,
)
from retake_edge.doctor.self_test import QUESTIONS, SelfTest, ask_all, run_self_test
from retake_edge.doctor.vulkan_driver import drivers
from retake_edge.errors import NativeError, VideoError
from retake_edge.llama import library as native
from retake_edge.llama.devices import Device, devices, graphics_cards

ROOT = Path(__file__).parents[2]
NUMBER = "What number is on the red card?"
CPU = Device("CPU", "a processor", "cpu", "CPU", 8 << 30, 16 << 30)
CUDA = Device("CUDA0", "a card", "gpu", "CUDA", 8 << 30, 16 << 30)
RIGHT = SelfTest(dict(QUESTIONS), 2.0, "CPU", {"CPU": 5})


# --- the whole command ------------------------------------------------------------------------


@pytest.mark.process
def test_a_whole_installation_is_fine_and_nothing_is_left_behind(tmp_path):
    code, out, err = run("doctor", "--json", "--cache-dir", str(tmp_path / "none" / "yet"))
    document = json.loads(out)
    checks = {check["name"]: check for check in document["checks"]}
    assert (code, err, document["exit_code"]) == (0, "", 0)
    assert [name for name, check in checks.items() if check["status"] == ERROR] == []
    assert checks["library"]["facts"]["abi"] == native.ABI_VERSION
    assert checks["library"]["facts"]["folder"] == str(native.library_dir())
    assert "CPU" in checks["backends"]["facts"]["backends"]
    assert checks["memory"]["facts"]["available_bytes"] > 0
    reasons = checks["decoders"]["facts"]["reasons"]
    assert (reasons["H.264"], set(reasons)) == ("", {"H.264", "HEVC", "VP9", "AV1"})
    assert "tiny" in checks["models"]["facts"]["n_bytes"]
    answered = checks["self-test"]["facts"]
    assert answered["answers"] == QUESTIONS
    found = {device["name"] for device in checks["backends"]["facts"]["devices"]}
    assert {answered["vision_device"], *answered["layer_devices"]} <= found
    assert list(tmp_path.iterdir()) == []


@pytest.mark.process
def test_without_libraries_one_line_says_how_to_build_them_and_the_code_is_theirs(
    tmp_path, monkeypatch
):
    monkeypatch.setenv(native.LIBRARY_DIR_VARIABLE, str(tmp_path))
    code, out, err = run("doctor", "--cache-dir", str(tmp_path))
    lines = [line.split() for line in out.splitlines()]
    assert (code, err) == (NativeError.exit_code, "")
    assert [words[1] for words in lines if words[0] == ERROR] == ["library"]
    assert f"There is no libllama in {tmp_path}; build" in out
    assert "self-test" not in out


def test_a_library_of_an_older_abi_is_an_error_that_says_to_rebuild(monkeypatch, tmp_path):
    found = native.ABI_VERSION
    monkeypatch.setattr(native, "ABI_VERSION", found + 1)
    monkeypatch.setattr(native, "load_libraries", native.load_libraries.__wrapped__)
    checks = {check.name: check for check in diagnose.diagnose(tmp_path)}
    library = checks["library"]
    assert (library.status, library.exit_code) == (ERROR, NativeError.exit_code)
    assert f"version {found}" in library.text and "rebuild" in library.text
    assert diagnose.exit_code(list(checks.values())) == NativeError.exit_code


@pytest.mark.process
def test_libraries_that_crash_when_loaded_are_a_line_and_no_crash(tmp_path, monkeypatch):
    source = tmp_path / "crash.c"
    source.write_text("__attribute__((constructor)) void crash(void) { __builtin_trap(); }\n")
    suffix = "dylib" if sys.platform == "darwin" else "so"
    library = tmp_path / f"libllama.{suffix}"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    monkeypatch.setenv(native.LIBRARY_DIR_VARIABLE, str(tmp_path))
    (check,) = diagnose._tried("library", diagnose._library)
    assert (check.status, check.exit_code) == (ERROR, NativeError.exit_code)
    assert "ends the process with SIG" in check.text and "GGML_NATIVE=OFF" in check.text


def test_a_package_that_cannot_be_imported_is_an_error_and_the_other_checks_go_on(monkeypatch):
    monkeypatch.setitem(sys.modules, "retake_edge.llama.buffers", None)
    (check,) = diagnose._tried("memory", diagnose._memory)
    assert (check.status, check.exit_code) == (ERROR, NativeError.exit_code)
    assert "buffers" in check.text and check.advice


# --- the self-test ----------------------------------------------------------------------------


def test_a_wrong_answer_is_an_error():
    result = ask_all({NUMBER: "71"})
    assert result.answers == {NUMBER: QUESTIONS[NUMBER]}
    check = self_test_check(result, set())
    assert (check.status, check.exit_code) == (ERROR, NativeError.exit_code)
    assert "'70'" in check.text and "'71'" in check.text and check.advice


def test_a_missing_video_is_told_with_the_code_of_its_kind(tmp_path):
    result = ask_all(video=tmp_path / "gone.mp4")
    assert (result.exit_code, result.answers) == (VideoError.exit_code, {})
    assert "gone.mp4" in result.problem


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("kill -SEGV $$", "SIGSEGV"),
        ("echo CUDA error >&2; exit 3", "code 3 (CUDA error)"),
        ("exit 0", "code 0"),
        ("exec cat /dev/zero >/dev/null", "did not end within 0.2 s"),
    ],
)
def test_a_self_test_that_crashes_or_hangs_is_a_line_and_no_crash(
    script, told, tmp_path, monkeypatch
):
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    result = run_self_test(timeout_s=0.2 if "within" in told else 60)
    assert told in result.problem and result.exit_code == NativeError.exit_code


VULKAN = Device("Vulkan0", "llvmpipe", "gpu", "Vulkan", 8 << 30, 16 << 30)


@pytest.mark.parametrize(
    ("driver", "version"),
    [
        ("llvmpipe Mesa 22.3.6 (LLVM 15.0.6)", "Mesa 22.3.6"),
        ("radv Mesa 24.3.4-1", "Mesa 24.3.4"),
        ("radv Mesa 9", "Mesa 9"),
    ],
)
def test_a_mesa_that_frees_memory_twice_is_named(driver, version):
    check = backends_check([CPU, VULKAN], ["Vulkan", "CPU"], {"AMD"}, ["NVIDIA 570.1", driver])
    assert (check.status, "Mesa 25" in check.advice) == (WARNING, True)
    assert f"{version} frees memory twice" in check.text


@pytest.mark.parametrize("driver", ["llvmpipe Mesa 25.0.0", "radv Mesa 25.2.1", "NVIDIA 22.3"])
def test_other_drivers_are_fine(driver):
    check = backends_check([CPU, VULKAN], ["Vulkan", "CPU"], {"AMD"}, [driver])
    assert check.status == OK


def test_an_old_mesa_matters_to_vulkan_alone():
    check = backends_check([CPU, CUDA], ["CUDA", "CPU"], {"NVIDIA"}, ["radv Mesa 22.3.6"])
    assert check.status == OK


def test_vulkans_drivers_are_told_or_there_are_none():
    assert all(isinstance(driver, str) and driver for driver in drivers())


def test_vision_on_the_cpu_beside_a_gpu_is_a_warning():
    on_gpu = dataclasses.replace(RIGHT, vision_device="CUDA0", layer_devices={"CUDA0": 5})
    assert self_test_check(RIGHT, set()).status == OK
    assert self_test_check(on_gpu, {"CUDA0"}).status == OK
    for result in (
        RIGHT,
        dataclasses.replace(on_gpu, vision_device="CPU"),
        dataclasses.replace(on_gpu, vision_device=""),
        dataclasses.replace(on_gpu, layer_devices={"CUDA0": 4, "CPU": 1}),
        dataclasses.replace(on_gpu, has_slow_vision=True),
    ):
        check = self_test_check(result, {"CUDA0"})
        assert check.status == WARNING and check.advice


@pytest.mark.gpu
def test_vision_and_language_model_run_on_the_gpu():
    gpus = {device.name for device in devices() if device.is_gpu}
    assert gpus, "the library finds no GPU"
    result = run_self_test()
    assert result.problem == ""
    assert result.vision_device in gpus
    assert result.layer_devices and set(result.layer_devices) <= gpus
    assert not result.has_slow_vision


# --- what is judged ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("machine", "library", "status", "word"),
    [
        ({"AVX", "AVX2", "FMA"}, {"AVX", "AVX2", "FMA"}, OK, "AVX2"),
        ({"AVX", "AVX2", "FMA"}, {"AVX"}, WARNING, "without AVX2, FMA"),
        ({"AVX", "AVX2", "AVX512"}, {"AVX", "AVX2"}, OK, "AVX2"),
        ({"AVX"}, {"AVX", "AVX2"}, ERROR, "AVX2, which this processor lacks"),
        (None, {"AVX"}, OK, "AVX"),
        (set(), set(), OK, "no special"),
    ],
)
def test_the_library_is_compared_with_the_processor(machine, library, status, word):
    check = cpu_check(machine, library)
    assert (check.status, check.exit_code) == (status, 6 if status == ERROR else 0)
    assert word in check.text and bool(check.advice) == (status != OK)


@pytest.mark.parametrize(
    ("found", "built", "cards", "status", "word"),
    [
        ([CPU], ["CPU"], set(), OK, "no GPU found"),
        ([CPU, CUDA], ["CUDA", "CPU"], {"NVIDIA", "Intel"}, OK, "CUDA0 (a card, 8.0 GiB of"),
        ([CPU], ["CPU"], {"NVIDIA"}, WARNING, "a GPU (NVIDIA), but the library was built without"),
        ([CPU], ["CUDA", "CPU"], {"AMD", "NVIDIA"}, WARNING, "the NVIDIA GPU is not found"),
        ([CPU], ["CUDA", "CPU"], set(), OK, "no GPU found"),
        (
            [dataclasses.replace(CUDA, free_bytes=100 << 20)],
            ["CUDA"],
            {"NVIDIA"},
            WARNING,
            "hardly any memory",
        ),
        ([dataclasses.replace(CUDA, free_bytes=0, total_bytes=0)], ["MTL"], set(), OK, "CUDA0"),
    ],
)
def test_the_backends_are_compared_with_the_graphics_cards(found, built, cards, status, word):
    check = backends_check(found, built, cards)
    assert (check.status, check.exit_code) == (status, 0)
    assert word in check.text and bool(check.advice) == (status != OK)
    assert json.dumps(dict(check.facts))


def test_the_way_to_build_for_a_card_is_named():
    assert "-DGGML_CUDA=on" in backends_check([CPU], ["CPU"], {"NVIDIA"}).advice
    assert "-DGGML_VULKAN=on" in backends_check([CPU], ["CPU"], {"AMD"}).advice


@pytest.mark.skipif(sys.platform == "darwin", reason="there the processor's kind says it")
def test_graphics_cards_are_found_without_a_library_for_them(tmp_path):
    assert graphics_cards(tmp_path) == set()
    for i, vendor in enumerate(("0x8086", "0x1a03")):  # Intel, and a server's own display
        (tmp_path / f"sys/class/drm/card{i}/device").mkdir(parents=True)
        (tmp_path / f"sys/class/drm/card{i}/device/vendor").write_text(f"{vendor}\n")
    assert graphics_cards(tmp_path) == {"Intel"}
    (tmp_path / "proc/driver/nvidia/gpus/0000:01:00.0").mkdir(parents=True)
    assert graphics_cards(tmp_path) == {"Intel", "NVIDIA"}


@pytest.mark.parametrize(
    ("available", "status"),
    [(None, OK), (LOW_MEMORY_BYTES, OK), (LOW_MEMORY_BYTES - 1, WARNING)],
)
def test_little_memory_is_a_warning(available, status):
    check = memory_check(available, 16 << 30)
    assert check.status == status and bool(check.advice) == (status != OK)


def test_a_cache_folder_that_cannot_be_written_is_a_warning(tmp_path):
    (tmp_path / "file").write_text("")
    check = cache_check(tmp_path / "file" / "cache", 0, 0, 0)
    assert check.status == WARNING and "--cache-dir" in check.advice
    assert cache_check(tmp_path / "not" / "yet", 0, 0, 0).status == OK
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_damaged_sessions_and_a_full_disk_are_warnings(tmp_path, monkeypatch):
    damaged = cache_check(tmp_path, 3, 1, 10)
    assert damaged.status == WARNING and "sessions rm" in damaged.advice
    (tmp_path / "sessions").mkdir()
    (tmp_path / "sessions" / "abc.session").write_text("no session")
    assert diagnose._cache(tmp_path).text.endswith("1 are damaged")
    usage = type("Usage", (), {"free": LOW_DISK_BYTES - 1})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    full = cache_check(tmp_path, 0, 0, 0)
    assert full.status == WARNING and "prune" in full.advice


def test_a_clip_counts_as_read_only_with_all_frames_and_the_right_colours(tmp_path):
    assert diagnose.why_unread(VIDEO) == ""
    assert "1 of 30 frames" in diagnose.why_unread(VIDEO.with_name("one_frame.mp4"))
    assert "rotated" in diagnose.why_unread(VIDEO.with_name("rotated_180.mp4"))
    assert "not a video" in diagnose.why_unread(VIDEO.with_name("audio_only.m4a"))


def test_only_h264_is_necessary():
    good = dict.fromkeys(diagnose.CLIPS, "")
    assert decoders_check(good).status == OK
    no_av1 = decoders_check({**good, "AV1": "no decoder"})
    assert (no_av1.status, no_av1.exit_code) == (WARNING, 0)
    assert "not AV1" in no_av1.text and "ffmpeg" in no_av1.advice
    no_h264 = decoders_check({**good, "H.264": "no decoder"})
    assert (no_h264.status, no_h264.exit_code) == (ERROR, VideoError.exit_code)
    assert "no decoder" in no_h264.text and no_h264.advice


def test_the_clips_are_there_and_go_into_the_package():
    build = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    for clip in diagnose.CLIPS.values():
        assert (diagnose._clips_dir() / clip).is_file() and clip in build
