"""The speed benchmark on published shapes with random weights, cut to few layers and made small."""

import json
from dataclasses import replace

import numpy as np
import pytest
from graph_flops import GraphFlops
from session_support import run

from retake_edge.bench.speed import flops
from retake_edge.bench.speed.checks import checks
from retake_edge.bench.speed.compare import SpeedSettings, run_speed
from retake_edge.bench.speed.cuts import extrapolated, parse_cuts, ratios
from retake_edge.bench.speed.models import Cut, speed_models
from retake_edge.bench.speed.report import speed_tables
from retake_edge.config import RuntimeConfig
from retake_edge.errors import ConfigError, MemoryBudgetError
from retake_edge.llama.context import Context
from retake_edge.llama.gguf import read_gguf
from retake_edge.llama.model import Model
from retake_edge.models import shapes
from retake_edge.models.random_gguf import random_pair
from retake_edge.plan.seconds import language_work
from retake_edge.vision.encoder import VisionEncoder

SETTINGS = SpeedSettings(
    n_frames=(32,),
    chunk_frames=8,
    n_decode=2,
    encode_frames=4,
    long_side_px=112,
    runtime=RuntimeConfig(n_threads=1),
)
OURS = f"{SETTINGS.policy} f16"


def small(name, n_layer=2):
    """A published shape with narrow layers and a small vocabulary."""
    shape = shapes.shape_of(name, 2)
    vision = replace(shape.vision, n_embd=160, n_ff=224, n_head=4)
    sections = (4, 6, 6, 0)
    return replace(
        shape,
        n_layer=n_layer,
        n_embd=128,
        n_ff=256,
        n_head=4,
        n_head_kv=2,
        head_dim=32,
        n_vocab=512,
        rope_sections=sections,
        vision=replace(vision, n_embd=128) if vision.kind == "qwen3vl" else vision,
    )


def small_cut(folder, n_layer):
    """A small model of so many layers, ready to be measured."""
    model, mmproj = random_pair(small("qwen2.5-vl-3b", n_layer), "q8_0", folder)
    return Cut(str(model), mmproj, n_layer, 2)


@pytest.mark.parametrize("name", list(shapes.SHAPES))
def test_every_shape_loads_and_sees(name, tmp_path):
    model, mmproj = random_pair(small(name), "q8_0", tmp_path)
    with Model(model) as loaded, VisionEncoder(loaded, mmproj, n_threads=1) as encoder:
        frames = np.random.default_rng(0).integers(0, 255, (2, 128, 128, 3), np.uint8)
        features = encoder.encode(frames, np.array([0.0, 0.5]))
        assert loaded.n_embd == 128
    assert features.embeddings.shape[2] == 128 * (1 + len(small(name).vision.deepstack))
    assert np.isfinite(features.embeddings).all() and features.embeddings.std() > 0


# --- a layer's work ---------------------------------------------------------------------------

N_TOKENS = 192


def graph_flops(n_layer, folder):
    """What llama.cpp computes when it prefills a batch."""
    model, _ = random_pair(small("qwen2.5-vl-3b", n_layer), "q8_0", folder)
    seen = GraphFlops()
    with (
        Model(model) as loaded,
        Context(loaded, n_ctx=512, cb_eval=seen.callback, n_threads=1) as ctx,
    ):
        seen.by_weight.clear()  # loading warms up
        ctx.decode_tokens([i % 200 for i in range(N_TOKENS)], 0)
    return seen


@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("graphs")
    return {n: graph_flops(n, folder) for n in (1, 2, 4)}


def test_a_layer_by_the_difference_of_two_cuts_computes_what_its_shape_says(graphs):
    shape = small("qwen2.5-vl-3b")
    difference = (graphs[4].of("blk.") - graphs[2].of("blk.")) / 2
    of_token = flops.attention_matrix_flops(shape) + flops.ffn_flops(shape)
    assert difference == N_TOKENS * of_token


def test_the_prefill_of_a_cut_computes_what_is_estimated(graphs):
    for n_layer in (2, 4):
        shape = small("qwen2.5-vl-3b", n_layer)
        matrices = flops.prefill_flops(shape, [(N_TOKENS, 0)])
        matrices -= n_layer * flops.attention_flops(shape, N_TOKENS, 0)
        output_row = flops.ffn_flops(shape)
        assert graphs[n_layer].of("blk.") == matrices + output_row


def test_a_plan_counts_the_operations_that_the_graph_has(graphs, tmp_path):
    for n_layer in (2, 4):
        shape = small("qwen2.5-vl-3b", n_layer)
        n_dense, _, _ = language_work(read_gguf(random_pair(shape, "q8_0", tmp_path)[0]))
        output_row = flops.ffn_flops(shape)
        assert 2 * n_dense * N_TOKENS + output_row == graphs[n_layer].of("blk.")


def test_the_last_layers_feed_forward_network_is_computed_for_one_row(graphs):
    whole = flops.ffn_flops(small("qwen2.5-vl-3b"))
    for n_layer, seen in graphs.items():
        rows = [seen.of(f"blk.{i}.ffn") / whole for i in range(n_layer)]
        assert rows == [N_TOKENS] * (n_layer - 1) + [1]


def test_attention_is_estimated_within_a_factor_of_what_the_graph_holds(graphs):
    """Within 3: the graph's operation has a mask, and its cells come in blocks of 256."""
    estimated = flops.attention_flops(small("qwen2.5-vl-3b"), N_TOKENS, 0)
    of_layer = (graphs[4].by_weight["attention"] - graphs[2].by_weight["attention"]) / 2
    assert 1 <= of_layer / estimated <= 3


def test_what_a_layer_costs_more_than_the_feed_forward_network_is_little():
    """A published layer: what a cut of one layer would leave out."""
    shape = shapes.SHAPES["qwen2.5-vl-3b"]
    whole = flops.ffn_flops(shape) + flops.attention_matrix_flops(shape)
    assert flops.ffn_flops(shape) / whole == pytest.approx(0.88, abs=0.005)


# --- two cuts ---------------------------------------------------------------------------------


@pytest.mark.process
@pytest.mark.parametrize("text", ["1", "1,4", "0,2"])
def test_a_cut_whose_last_layer_is_its_only_one_is_refused(text, tmp_path):
    shape = ("--shape", "qwen2.5-vl-3b", "--cache-dir", str(tmp_path))
    code, out, err = run("bench", "speed", *shape, "--layers", text)
    assert (code, out) == (2, "") and err.count("\n") == 1
    assert "feed-forward network for output rows only" in err and not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["4", "2,2", "2,4,8", "two,four", ""])
def test_anything_but_two_cuts_is_refused(text):
    with pytest.raises(ConfigError, match=r"--layers is"):
        parse_cuts(text)


def test_a_model_of_one_layer_is_refused_and_layers_need_a_shape(tmp_path):
    model, mmproj = random_pair(small("qwen2.5-vl-3b", 1), "q8_0", tmp_path)
    with pytest.raises(ConfigError, match=r"1-layers-q8_0\.gguf has 1"):
        speed_models(str(model), mmproj, None, None, "q8_0", None)
    with pytest.raises(ConfigError, match="--shape"):
        speed_models("tiny", None, None, "2,4", "q8_0", None)
    with pytest.raises(ConfigError, match="has 36 layers"):
        speed_models("tiny", None, "qwen2.5-vl-3b", "2,37", "q8_0", tmp_path)


def test_tower_and_vocabulary_are_cut_in_the_share_of_the_layers():
    for name, whole in shapes.SHAPES.items():
        for n in (2, 4, whole.n_layer // 2):
            cut, share = shapes.shape_of(name, n), n / whole.n_layer
            assert abs(cut.vision.n_layer - share * whole.vision.n_layer) <= 0.5
            assert abs(cut.n_vocab - share * whole.n_vocab) < 1


def costs(n_layer, per_layer, fixed):
    """Figures of a run in which everything takes `fixed`, and `per_layer` a layer."""
    n = fixed + n_layer * per_layer
    seconds = dict.fromkeys(("prefill", "score", "select", "compact", "video in all"), n)
    names = ("first_token_s", "token_s", "kv_bytes", "kv_allocated_bytes", "peak_memory_bytes")
    figures = {"seconds": seconds, "chunk_s": [n, 2 * n], "device_memory_bytes": 0, "n_cells": 7}
    return figures | dict.fromkeys(names, n)


def test_two_cuts_give_a_layers_cost_the_rest_and_the_whole():
    found = extrapolated((2, costs(2, 3.0, -1.0)), (4, costs(4, 3.0, -1.0)), 36)
    assert found["layer"]["seconds"]["prefill"] == 3.0
    assert found["fixed"]["seconds"]["prefill"] == -1.0
    assert found["whole"] == costs(36, 3.0, -1.0)
    assert found["whole"]["n_cells"] == 7


def test_a_cost_below_zero_gives_no_ratio():
    full, noise = costs(4, 1.0, 0.0), costs(4, 1.0, -9.0)
    assert ratios(full, noise)["prefill time"] is None
    assert ratios(noise, full)["prefill time"] is None
    assert ratios(full, full)["prefill time"] == 1


def test_seconds_that_are_not_what_the_operations_say_fail_the_check():
    shape = shapes.SHAPES["qwen2.5-vl-3b"]
    document = {"model": {"shape": shape.name}, "cuts": [{"layers": 2}, {"layers": 4}]}

    def run_of(n_layer, chunks, factor=1.0):
        seconds = factor * flops.prefill_flops(shape.cut(n_layer), chunks) / 1e12
        tokens, cells = (list(part) for part in zip(*chunks, strict=True))
        return {"seconds": {"prefill": seconds}, "chunk_tokens": tokens, "chunk_cells": cells}

    def length_of(chunks, factor=1.0):
        few, many = run_of(2, chunks, factor), run_of(4, chunks)
        a_layer = (many["seconds"]["prefill"] - few["seconds"]["prefill"]) / 2
        layer = {"full f16": {"seconds": {"prefill": a_layer}}}
        runs = [{"full f16": few}, {"full f16": many}]
        return {"n_frames": len(chunks), "runs": runs, "layer": layer, "whole": layer}

    chunks = [(4096, 4096 * i) for i in range(8)]
    right = document | {"lengths": [length_of(chunks[:4]), length_of(chunks)]}
    assert [check.seconds / check.flops for check in checks(right)] == pytest.approx([1] * 3)
    assert all(check.holds for check in checks(right))
    wrong = document | {"lengths": [length_of(chunks[:4], 0.5), length_of(chunks, 1.3)]}
    assert [check.holds for check in checks(wrong)] == [False, False, False]


# --- runs -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shape")
    cuts = [small_cut(folder, n) for n in (2, 4)]
    saved = []
    results = run_speed(
        cuts, 36, SETTINGS, save=lambda results: saved.append(json.loads(json.dumps(results)))
    )
    return cuts, results, saved


def of(results):
    """The runs of the larger cut."""
    return results["lengths"][0]["runs"][1]


def test_compressed_caches_hold_their_share_of_the_cells(results):
    full, ours = of(results[1])["full f16"], of(results[1])[OURS]
    assert full["n_tokens"] == ours["n_tokens"] == 16 * 16
    n_text = full["n_cells"] - full["n_tokens"]
    assert ours["n_cells"] == 16 * 16 // 4 + n_text
    assert full["chunk_tokens"] == ours["chunk_tokens"] == [64] * 4
    assert full["chunk_cells"] == [n_text + 64 * i for i in range(4)]
    assert ours["chunk_cells"] == [n_text + 16 * i for i in range(4)]


def test_q8_0_cells_take_about_half_the_bytes_of_f16(results):
    f16, q8_0 = (of(results[1])[f"{SETTINGS.policy} {kind}"] for kind in ("f16", "q8_0"))
    assert q8_0["kv_bytes"] / f16["kv_bytes"] == pytest.approx(34 / 64, abs=0.01)


def test_bytes_of_the_whole_model_are_those_of_all_its_layers(results):
    (length,) = results[1]["lengths"]
    few, whole = length["runs"][0]["full f16"], length["whole"]["full f16"]
    assert whole["kv_bytes"] == pytest.approx(few["kv_bytes"] * 36 / 2)
    assert whole["n_cells"] == few["n_cells"]


def test_what_is_extrapolated_is_called_so(results):
    document = {
        "model": {"name": "toy", "layers": 36, "vision_layers": 32},
        "settings": {"kv_types": ["f16", "q8_0"], "policy": SETTINGS.policy},
        **json.loads(json.dumps(results[1])),
    }
    tables = speed_tables(document)
    assert "| 32 frames, 256 tokens; measured | full f16 |" in tables
    assert "| 32 frames, 256 tokens; 36 layers, extrapolated | full f16 |" in tables
    assert "tower and vocabulary cut in the same share (2 and 2 of the tower's 32" in tables
    assert "| ratio: kv bytes | 1 |" in tables and "| device memory | 0.0 MiB |" in tables


def test_every_run_is_saved_and_only_what_is_missing_is_run_again(results, monkeypatch):
    cuts, whole, saved = results
    assert len(saved) == 8 and saved[-1] == json.loads(json.dumps(whole))
    assert "whole" not in saved[6]["lengths"][0] and "whole" in saved[7]["lengths"][0]
    calls = []

    def child(task):
        calls.append(task)
        return of(whole)[OURS]

    monkeypatch.setattr("retake_edge.bench.speed.compare._child", child)
    earlier = run_speed(cuts, 36, SETTINGS, earlier=saved[5], minutes=0)
    assert len(calls) == 1 and "whole" not in earlier["lengths"][0], "one run, and no more in time"
    assert run_speed(cuts, 36, SETTINGS, earlier=earlier)["lengths"][0]["ratios"]
    assert [task.model for task in calls] == [cut.model for cut in cuts]


def test_the_fastest_of_repeats_counts(results, monkeypatch):
    cuts, whole, _ = results
    spent = iter([3.0, 1.0, 2.0])

    def child(task):
        figures = of(whole)[OURS]
        return figures | {"seconds": figures["seconds"] | {"video in all": next(spent)}}

    monkeypatch.setattr("retake_edge.bench.speed.compare._child", child)
    one = replace(SETTINGS, repeats=3, with_full=False, kv_types=("f16",))
    (length,) = run_speed(cuts[:1], 2, one)["lengths"]
    assert length["whole"][OURS]["seconds"]["video in all"] == 1.0 and "ratios" not in length


@pytest.mark.process
def test_runs_of_other_settings_are_not_continued(tmp_path):
    path = tmp_path / "run.json"
    command = ["bench", "speed", "--frames", "4", "-n", "1", "-t", "1", "--long-side", "112"]
    command += ["--out", str(path), "--cache-types", "f16", "--no-full", "--minutes", "0"]
    code, _, err = run(*command)
    assert code == 0, err
    first = json.loads(path.read_text())
    assert first["model"]["name"] == "tiny" and len(first["lengths"][0]["whole"]) == 1
    code, _, err = run(*command, "--continue")
    assert code == 0 and json.loads(path.read_text())["lengths"] == first["lengths"], err
    code, _, err = run(*command, "--continue", "--keep-ratio", "0.5")
    assert code == 2 and "other settings" in err
    code, _, err = run("bench", "speed", "--continue")
    assert code == 2 and "--out" in err


def test_cells_and_memory_do_not_grow_with_the_video_once_the_budget_is_reached(tmp_path):
    budget = replace(
        SETTINGS, n_frames=(128, 1024), kv_budget=256, with_full=False, kv_types=("f16",)
    )
    found = run_speed([small_cut(tmp_path, 2)], 2, budget)
    short, long = (length["runs"][0][OURS] for length in found["lengths"])
    assert long["n_tokens"] == 8 * short["n_tokens"] and long["n_ctx"] == short["n_ctx"]
    assert long["n_cells"] <= short["n_cells"]
    assert long["peak_memory_bytes"] - short["peak_memory_bytes"] < 4 << 20


def test_an_error_of_a_measuring_process_arrives_as_what_it_was(tmp_path):
    too_small = replace(SETTINGS, runtime=RuntimeConfig(n_ctx=64))
    with pytest.raises(MemoryBudgetError, match="-c gives 64"):
        run_speed([small_cut(tmp_path, 2)], 2, too_small)


def test_an_unknown_shape_or_quantization_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="'gpt-9'"):
        shapes.shape_of("gpt-9", None)
    with pytest.raises(ConfigError, match="'q1_0'"):
        random_pair(small("qwen2.5-vl-3b"), "q1_0", tmp_path)
