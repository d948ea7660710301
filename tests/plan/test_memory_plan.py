"""What a run will take is known before it, within a tenth, from headers alone."""

import json
import logging
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from session_support import LONG_VIDEO, MODEL, run, settings

from retake_edge.engine.attention import MOST_QUERIES
from retake_edge.llama.buffers import available_memory_bytes, buffers_of
from retake_edge.llama.context import Context
from retake_edge.llama.gguf import read_gguf
from retake_edge.llama.model import Model
from retake_edge.models.random_gguf import random_pair
from retake_edge.models.shapes import SHAPES
from retake_edge.plan.frames import FramePlan
from retake_edge.plan.memory import DeviceUse, model_buffers, vision_compute_bytes
from retake_edge.plan.scores import TASK_BYTES_MAX, ScoreWork, score_works
from retake_edge.vision.encoder import VisionEncoder

VERY_SMALL: dict[str, Any] = {"n_ctx": 512, "n_batch": 128, "n_ubatch": 64, "n_threads": 1}


def cut_pair(folder, name, n_layer, quantization):
    """A pair of a real shape with few layers, in both towers, and random weights."""
    shape = SHAPES[name].cut(n_layer)
    deepstack = shape.vision.deepstack[: n_layer - 1]  # llama.cpp adds none in the last layer
    vision = replace(shape.vision, n_layer=n_layer, deepstack=deepstack)
    return random_pair(replace(shape, vision=vision), quantization, folder)


@pytest.mark.parametrize("type_kv", ["f16", "q8_0", "q4_0"])
def test_a_model_without_weights_tells_what_the_real_one_takes(type_kv):
    told = []
    for weights in (True, False):
        with (
            Model(MODEL.model, weights=weights) as model,
            Context(model, type_k=type_kv, type_v=type_kv, **VERY_SMALL) as context,
        ):
            told.append(buffers_of(context))
    real, planned = told
    for part in ("cells", "compute"):
        assert sum(getattr(b, part) for b in planned) == sum(getattr(b, part) for b in real) > 0
    assert {b.device for b in planned} == {b.device for b in real} == {""}
    of_tensors = sum(read_gguf(MODEL.model).tensor_bytes.values())
    assert sum(b.weights for b in planned) == pytest.approx(of_tensors, rel=0.01)


def test_what_very_many_cells_take_is_estimated_from_fewer(monkeypatch):
    config = settings()
    with Model(MODEL.model, weights=False) as model:
        simulated = model_buffers(model, config, 8192)
        monkeypatch.setattr("retake_edge.plan.memory._MOST_CELLS", 2048)
        assert model_buffers(model, config, 8192) == simulated


def test_scores_take_more_with_each_thread_up_to_a_limit():
    chunk = ScoreWork(4096, 128, 16, "f16", unrotates=True)
    with Model(MODEL.model, weights=False) as model:
        one, two, many = (chunk.host_bytes(model, n) for n in (1, 2, 1000))
        assert two == 2 * one
        assert one * model.n_layer == many < TASK_BYTES_MAX
        large = ScoreWork(1 << 22, 128, 16, "f16", unrotates=True)
        assert large.host_bytes(model, 1) == large.host_bytes(model, 64) > TASK_BYTES_MAX


def test_evidence_over_cells_that_are_read_in_place_takes_no_copy_of_them():
    with Model(MODEL.model, weights=False) as model:
        f16, q8_0 = (ScoreWork(1 << 16, 64, 1, kind, unrotates=False) for kind in ("f16", "q8_0"))
        copies = 2 * 4 * (1 << 16) * model.n_embd_k
        assert q8_0.host_bytes(model, 1) - f16.host_bytes(model, 1) == copies


def test_a_devices_scores_stay_within_their_blocks():
    with Model(MODEL.model, weights=False) as model:
        sizes = [ScoreWork(2048, n, 16, "f16", unrotates=True) for n in (4096, 8192)]
        small, large = (work.device_bytes(model) for work in sizes)
        assert large - small == 2 * 4 * 4096 * model.n_embd_q  # more queries, the same block


@pytest.mark.parametrize("n_tokens", [16, 4096])
def test_a_long_answers_evidence_is_planned_as_a_short_ones(n_tokens):
    config = settings()
    works = score_works(
        replace(config, generation=replace(config.generation, max_tokens=n_tokens)),
        300,
        5000,
        scores=False,
    )
    assert works == [ScoreWork(5000, MOST_QUERIES, 1, "f16", unrotates=False)]


@pytest.mark.process
@pytest.mark.parametrize(
    ("name", "n_layer", "quantization", "type_kv"),
    [
        ("qwen2.5-vl-3b", 1, "f16", "f16"),
        ("qwen3-vl-4b", 2, "q8_0", "q8_0"),
        ("qwen2.5-vl-7b", 1, "q4_0", "f16"),  # q4_0 is repacked on most processors
    ],
)
def test_memory_is_planned_within_a_tenth(tmp_path, name, n_layer, quantization, type_kv):
    model, mmproj = cut_pair(tmp_path, name, n_layer, quantization)
    options = [
        *("-m", str(model), "-mm", str(mmproj), "-ctk", type_kv, "-ctv", type_kv, "-t", "1"),
        *("--max-frames", "4", "--keep-ratio", "0.5", "--prefill-chunk-frames", "2", "-n", "2"),
        *("--no-cache", "--json"),
    ]
    code, out, err = run("plan", str(LONG_VIDEO), *options)
    assert code == 0, err
    plan = json.loads(out)
    code, out, err = run("ask", str(LONG_VIDEO), "What?", *options)
    assert code == 0, err
    answer = json.loads(out)
    measured, planned = answer["peak_memory_bytes"], plan["memory"][0]["resident"]
    assert planned == pytest.approx(measured, rel=0.1)
    assert plan["cells"]["memory"]["n_ctx"] == answer["video"]["n_ctx"]


@pytest.mark.parametrize("name", ["qwen2.5-vl-3b", "qwen3-vl-4b", "tiny"])
def test_the_towers_buffers_are_planned_within_a_tenth(tmp_path, name, caplog):
    is_tiny = name == "tiny"
    model, mmproj = (MODEL.model, MODEL.mmproj) if is_tiny else cut_pair(tmp_path, name, 2, "q4_0")
    side = 112 if is_tiny else SHAPES[name].vision.patch_px * 8
    caplog.set_level(logging.DEBUG, "retake_edge.llama.model")
    with Model(model, weights=False) as loaded, VisionEncoder(loaded, mmproj, n_threads=1) as tower:
        tower.encode(np.zeros((2, side, side, 3), np.uint8), np.arange(2.0))
    told = [r.message for r in caplog.records if "reserve_compute_meta" in r.message]
    mib = next(float(line.split()[-2]) for line in told if "compute buffer size" in line)
    planned = vision_compute_bytes(read_gguf(mmproj), FramePlan(2, 1, side, side, (0.0, 0.5)))
    assert planned == pytest.approx(mib * 2**20, rel=0.1)


def test_what_is_needed_is_the_sum_and_the_decoder_is_a_process_of_its_own():
    use = DeviceUse("", 1, 2, 4, 8, 16, 32, 64, decoder=128, mapped=256, available=255)
    assert use.needed == 255 and use.resident == 127 + 256 and use.fits
    assert not replace(use, available=254).fits
    assert replace(use, available=None).fits


@pytest.mark.process
def test_peak_memory_is_this_programs_own_and_not_its_parents():
    large = np.ones(400 << 20, np.uint8)  # the parent's, resident while the child is started
    code = "from retake_edge.llama.buffers import peak_memory_bytes as p; print(p())"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert large.all() and int(child.stdout) < 200 << 20


def test_a_containers_limit_counts_and_its_file_pages_can_be_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr("retake_edge.llama.buffers._CGROUP", tmp_path)
    machine = available_memory_bytes()
    assert machine is not None and machine > 3000
    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "memory.current").write_text("4000\n")
    (tmp_path / "memory.stat").write_text("anon 2000\ninactive_file 1500\nactive_file 500\n")
    assert available_memory_bytes() == 3000
    (tmp_path / "memory.max").write_text("max\n")
    assert available_memory_bytes() > 3000
