"""The plan that is shown is the plan that is carried out, and what does not fit is not begun."""

import json

import pytest
from session_support import ARGUMENTS, MODEL, VIDEO, opened, run, settings

from retake_edge.config import RetakeConfig, RuntimeConfig, SamplingConfig
from retake_edge.errors import MemoryBudgetError, ModelError
from retake_edge.llama.buffers import BufferUse, available_memory_bytes
from retake_edge.models.manifest import ModelFiles
from retake_edge.plan.cells import text_reserve
from retake_edge.plan.fit import fitted, proposals
from retake_edge.plan.run import RunPlanner, require_room
from retake_edge.plan.seconds import Calibration
from retake_edge.session.store.folder import SessionStore
from retake_edge.video.read import probe_video

MIB = 1 << 20
FREE = 64 << 30


@pytest.fixture(scope="module")
def video():
    return probe_video(VIDEO)


def planner_of(config, available=FREE, source=MODEL):
    return RunPlanner(source, text_reserve(config), {"": available})


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"keep_ratio": 1.0},
        {"keep_ratio": 0.01},
        {"keep_ratio": None, "kv_budget": 100},
        {"keep_ratio": None, "n_ctx": 600},
        {"policy": "none"},
        {"policy": "uniform", "prefill_chunk_frames": 6},
        {"policy": "frames", "keep_ratio": 0.5},
        {"fps": 3.0, "type_kv": "q8_0"},
    ],
    ids=str,
)
def test_the_planned_cells_are_the_runs_cells(video, tmp_path, changes):
    config = settings(**changes)
    with planner_of(config) as planner:
        plan = planner.plan(video, config).cells
    with opened(tmp_path, config, use_cache=False) as session:
        assert session.video.n_ctx == plan.memory.n_ctx
        assert session.video.n_cells_before == plan.n_before
        assert session.video.n_cells_kept == plan.memory.n_kept_cells
        assert session.n_cells == plan.memory.shape.n_before + plan.memory.n_kept_cells


def test_start_end_and_frame_size_are_planned_as_they_are_read(video, tmp_path):
    config = RetakeConfig(
        SamplingConfig(fps=4, start_s=0.5, end_s=2.5, long_side_px=84, max_frames=6),
        runtime=RuntimeConfig(n_threads=1),
    )
    with planner_of(config) as planner:
        plan = planner.plan(video, config)
    with opened(tmp_path, config, use_cache=False) as session:
        assert session.video.n_frames == plan.frames.n == 6
        assert session.video.n_grid_frames == plan.frames.n_steps
        assert session.video.n_cells_before == plan.cells.n_before
    assert max(plan.frames.width_px, plan.frames.height_px) == 84


def test_a_run_that_does_not_fit_is_refused_before_anything_is_loaded(video, monkeypatch):
    def never(*_, **__):
        raise AssertionError("the models are not loaded")

    monkeypatch.setattr("retake_edge.plan.memory.available_memory_bytes", lambda: 50 * MIB)
    monkeypatch.setattr("retake_edge.session.ingest.load_model", never)
    with pytest.raises(MemoryBudgetError, match=r"needs .* MiB of memory \(weights .*available"):
        opened(None, use_cache=False)


def test_every_proposal_fits_and_the_next_milder_value_does_not(video):
    config = settings(keep_ratio=1.0, prefill_chunk_frames=32)
    with planner_of(config) as planner:
        needed = planner.plan(video, config).memory[0].needed
    with planner_of(config, needed - 100_000) as planner:
        found = {p.flags.split()[0]: p for p in proposals(planner, video, config)}
        assert all(proposal.plan.fits for proposal in found.values())
        assert {"-ctk", "--long-side", "--max-frames"} <= set(found)
        assert found["-ctk"].flags == "-ctk q8_0 -ctv q8_0"
        n = found["--max-frames"].plan.frames.n
        milder = settings(keep_ratio=1.0, prefill_chunk_frames=32)
        milder = RetakeConfig(
            SamplingConfig(fps=8.0, long_side_px=112, max_frames=n + 1),
            compression=milder.compression,
            runtime=milder.runtime,
            generation=milder.generation,
        )
        assert not planner.plan(video, milder).fits


def test_where_the_cells_do_not_fit_a_keep_ratio_is_proposed_that_does(video):
    config = settings(keep_ratio=1.0, n_ctx=600)
    with planner_of(config) as planner:
        with pytest.raises(MemoryBudgetError, match="-c gives 600"):
            planner.plan(video, config)
        found = [p.flags for p in proposals(planner, video, config)]
        ratio = next(float(f.split()[1]) for f in found if f.startswith("--keep-ratio"))
        assert planner.plan(video, settings(keep_ratio=ratio, n_ctx=600)).fits
        with pytest.raises(MemoryBudgetError):
            planner.plan(video, settings(keep_ratio=ratio + 0.01, n_ctx=600))


def test_fit_changes_nothing_that_need_not_be_changed(video):
    config = settings(keep_ratio=1.0)
    with planner_of(config) as planner:
        plan = planner.plan(video, config)
        assert fitted(planner, video, config).flags == ""
    with planner_of(config, plan.memory[0].needed - 1) as planner:
        assert fitted(planner, video, config).flags == "-ctk q8_0 -ctv q8_0"
    small = settings(keep_ratio=1.0, n_ctx=600)
    with planner_of(small) as planner:
        found = fitted(planner, video, small)
        assert found.plan.fits and found.flags.startswith("--keep-ratio")


def graphics_card(free):
    """llama.cpp's account of a machine with a card that has `free` bytes left."""

    def buffers(_model, settings, _n_ctx):
        n = settings.runtime.n_gpu_layers
        n = 5 if n < 0 else n  # four layers and the output
        host = BufferUse("CPU", "", (5 - n) * 10 * MIB, 0, MIB, 0, 0)
        card = BufferUse("GPU0", "GPU0", n * 10 * MIB, n * MIB, MIB, free, 2 * free)
        return [host, card]

    return buffers


def test_what_a_card_cannot_hold_stays_in_this_machines_memory(video, monkeypatch):
    config = settings()
    monkeypatch.setattr("retake_edge.plan.memory.model_buffers", graphics_card(40 * MIB))
    with RunPlanner(MODEL, text_reserve(config)) as planner:
        host, card = planner.plan(video, config).memory
        assert (host.vision, card.device, card.fits) == (0, "GPU0", False) and card.vision > 0
        assert card.needed == 56 * MIB + card.vision + card.vision_compute + card.work
        with pytest.raises(MemoryBudgetError, match=r"GPU0's memory .* 40.0 MiB are available"):
            require_room(planner.plan(video, config).memory)
        layers = next(p for p in proposals(planner, video, config) if "-ngl" in p.flags)
        assert layers.flags == "-ngl 3" and layers.plan.fits
        assert fitted(planner, video, config).flags == "-ngl 3"


def test_the_tower_alone_leaves_a_card_that_holds_the_rest(video, monkeypatch):
    config = settings()
    monkeypatch.setattr("retake_edge.plan.memory.model_buffers", graphics_card(56 * MIB + MIB // 8))
    with RunPlanner(MODEL, text_reserve(config)) as planner:
        found = fitted(planner, video, config)
        assert found.flags == "--no-mmproj-offload"
        assert found.plan.memory[0].vision > 0 and found.plan.memory[1].vision == 0


def test_what_nothing_makes_fit_is_refused_with_what_was_tried(video):
    config = settings()
    with (
        planner_of(config, 20 * MIB) as planner,
        pytest.raises(MemoryBudgetError, match=r"not even .*--max-frames 1 makes it fit"),
    ):
        fitted(planner, video, config)


def test_kv_bytes_of_each_type_are_those_of_the_caches_rows(video):
    config = settings()
    with planner_of(config) as planner:
        plan = planner.plan(video, config)
        sizes = planner.kv_bytes(plan)
    assert sizes["f16"] == plan.memory[0].cells == plan.cells.memory.kv_bytes
    assert sizes["f32"] == 2 * sizes["f16"]
    assert sizes["q8_0"] * 32 == sizes["f16"] * 17 and sizes["q4_0"] * 32 == sizes["f16"] * 9


def test_a_plan_of_files_that_are_no_pair_is_refused(tmp_path):
    with pytest.raises(ModelError):
        planner_of(settings(), source=ModelFiles(MODEL.model, tmp_path / "missing.gguf"))


def test_seconds_are_learned_from_a_run_and_scale_with_the_work(video, tmp_path):
    config, calibration = settings(max_tokens=6), Calibration(SessionStore(tmp_path).cache_dir)
    with planner_of(config) as planner:
        assert planner.plan(video, config).seconds(calibration) is None
    with opened(tmp_path, config) as session:
        spent = session.index_seconds
        answer = session.ask("What is it?")
    half = RetakeConfig(
        SamplingConfig(fps=4.0, long_side_px=112),
        config.dpselect,
        config.compression,
        config.runtime,
    )
    with planner_of(config) as planner:
        plan = planner.plan(video, config)
        seconds = plan.seconds(calibration)
        assert seconds["encode"] == pytest.approx(spent["encode"])
        assert seconds["decode"] == pytest.approx(spent["decode"])
        assert seconds["prefill"] >= spent["prefill"]
        assert ("answer" in seconds) == (answer.n_tokens > 1)
        fewer = planner.plan(video, half).seconds(calibration)
        assert fewer["encode"] == pytest.approx(spent["encode"] / 2)
        assert fewer["prefill"] < seconds["prefill"]
        narrow = settings(type_kv="q8_0")
        assert planner.plan(video, narrow).seconds(calibration) is None


def test_nothing_is_learned_without_the_cache(video, tmp_path):
    with opened(tmp_path, use_cache=False) as session:
        session.ask("What is it?")
    assert not list(tmp_path.rglob("calibration.json"))


@pytest.mark.process
def test_plan_prints_all_as_one_json_document(tmp_path):
    code, out, _ = run("plan", str(VIDEO), *ARGUMENTS, "--json", "--cache-dir", str(tmp_path))
    document = json.loads(out)
    assert code == 0 and document["fits"] is True
    assert {"decode", "encode", "prefill", "answer"} == set(document["seconds"])
    assert document["model"] == {"name": "tiny-f32", "is_downloaded": True}
    assert document["frames"]["n"] == 24 and document["would_fit"] == []
    memory = document["memory"][0]
    parts = ("weights", "cells", "compute", "vision", "vision_compute", "work", "program")
    assert sum(memory[part] for part in (*parts, "decoder")) == memory["needed"]
    assert set(document["kv_bytes"]) == {"f32", "f16", "q8_0", "q4_0"}


@pytest.mark.process
def test_plan_tells_the_seconds_of_earlier_runs(tmp_path):
    options = [*ARGUMENTS, "--cache-dir", str(tmp_path)]
    code, _, err = run("ask", str(VIDEO), "What?", *options)
    assert code == 0 and len(json.loads((tmp_path / "calibration.json").read_text())) == 1, err
    code, out, err = run("plan", str(VIDEO), *options)
    assert code == 0 and "to read it (video " in out and "language model" in out, err


@pytest.mark.process
def test_cells_for_more_memory_than_there_is_are_refused_with_exit_code_5(tmp_path):
    available = available_memory_bytes()
    assert available is not None
    huge = ["-c", str(available // 200), "--cache-dir", str(tmp_path)]
    code, out, err = run("ask", str(VIDEO), "What?", *ARGUMENTS, *huge)
    assert code == 5 and out == "" and "what is kept" in err and "--fit" in err
    code, out, err = run("plan", str(VIDEO), *ARGUMENTS, *huge)
    assert code == 0 and "fits" in out and "any of these makes it fit" in out and "-c " in out


@pytest.mark.process
def test_fit_says_what_it_changed_and_answers(tmp_path):
    options = [*ARGUMENTS, "--keep-ratio", "1", "-c", "560", "--cache-dir", str(tmp_path)]
    code, _, err = run("ask", str(VIDEO), "What?", *options)
    assert code == 5 and "-c gives 560" in err
    code, out, err = run("ask", str(VIDEO), "What?", *options, "--fit", "--json")
    assert code == 0 and "fit: " in err and "--keep-ratio" in err
    answer = json.loads(out)
    assert answer["video"]["n_ctx"] == 560 and answer["config"]["compression"]["keep_ratio"] < 1
