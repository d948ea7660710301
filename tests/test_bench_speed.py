"""The speed benchmark on a published shape with random weights, cut to one layer and made small."""

import json
from dataclasses import replace

import numpy as np
import pytest

from retake_edge.bench import shapes
from retake_edge.bench.random_gguf import random_pair
from retake_edge.bench.speed import SpeedSettings, ratios, run_speed
from retake_edge.bench.tables import speed_table
from retake_edge.config import RuntimeConfig
from retake_edge.errors import ConfigError, MemoryBudgetError
from retake_edge.llama import Model
from retake_edge.vision import VisionEncoder

SETTINGS = SpeedSettings(
    n_frames=32, chunk_frames=8, n_decode=2, encode_frames=4, runtime=RuntimeConfig(n_threads=1)
)


def small(name):
    """A published shape with narrow layers and a small vocabulary."""
    shape = shapes.shape_of(name, 2)
    vision = replace(shape.vision, n_embd=160, n_ff=224, n_head=4)
    sections = (4, 6, 6, 0)
    return replace(
        shape,
        n_embd=128,
        n_ff=256,
        n_head=4,
        n_head_kv=2,
        head_dim=32,
        n_vocab=512,
        rope_sections=sections,
        vision=replace(vision, n_embd=128) if vision.kind == "qwen3vl" else vision,
    )


@pytest.mark.parametrize("name", list(shapes.SHAPES))
def test_every_shape_loads_and_sees(name, tmp_path):
    model, mmproj = random_pair(small(name), "q8_0", tmp_path)
    with Model(model) as llm, VisionEncoder(llm, mmproj, n_threads=1) as encoder:
        frames = np.random.default_rng(0).integers(0, 255, (2, 128, 128, 3), np.uint8)
        features = encoder.encode(frames, np.array([0.0, 0.5]))
        assert llm.n_embd == 128
    assert features.embeddings.shape[2] == 128 * (1 + len(small(name).vision.deepstack))
    assert np.isfinite(features.embeddings).all() and features.embeddings.std() > 0


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shape")
    model, mmproj = random_pair(small("qwen2.5-vl-3b"), "q8_0", folder)
    return run_speed(str(model), mmproj, replace(SETTINGS, long_side_px=112))


def test_compressed_caches_hold_their_share_of_the_cells(figures):
    full, ours = figures["runs"]["full f16"], figures["runs"][f"{SETTINGS.policy} f16"]
    assert full["n_tokens"] == ours["n_tokens"] == 16 * 16
    n_text = full["n_cells"] - full["n_tokens"]
    assert ours["n_cells"] == 16 * 16 // 4 + n_text
    assert len(full["chunk_s"]) == 4


def test_q8_0_cells_take_about_half_the_bytes_of_f16(figures):
    f16, q8_0 = (figures["runs"][f"{SETTINGS.policy} {kind}"] for kind in ("f16", "q8_0"))
    assert q8_0["kv_bytes"] / f16["kv_bytes"] == pytest.approx(34 / 64, abs=0.01)


def test_the_table_shows_every_run_and_ratio(figures):
    table = speed_table(json.loads(json.dumps(figures)))
    assert "| full f16 |" in table and "| ratio: kv bytes | 1 |" in table
    on_gpu = figures["runs"]["full f16"]["device_memory_bytes"] / 2**20
    assert f"| device memory | {on_gpu:.1f} MiB |" in table


def test_ratios_are_ours_against_the_full_cache(figures):
    full = figures["runs"]["full f16"]
    slower = full | {"decode_tokens_per_s": full["decode_tokens_per_s"] / 2}
    assert ratios(full, slower)["decode speed"] == 0.5
    assert ratios(full, full)["video time"] == 1


def test_cells_and_memory_do_not_grow_with_the_video_once_the_budget_is_reached(tmp_path):
    model, mmproj = random_pair(small("qwen2.5-vl-3b"), "q8_0", tmp_path)
    budget = replace(SETTINGS, long_side_px=112, kv_budget=256, with_full=False, kv_types=("f16",))
    short, long = (
        run_speed(str(model), mmproj, replace(budget, n_frames=n))["runs"][f"{budget.policy} f16"]
        for n in (128, 1024)
    )
    assert long["n_tokens"] == 8 * short["n_tokens"] and long["n_ctx"] == short["n_ctx"]
    assert long["n_cells"] <= short["n_cells"]
    assert long["peak_memory_bytes"] - short["peak_memory_bytes"] < 4 << 20


def test_an_error_of_a_measuring_process_arrives_as_what_it_was(tmp_path):
    model, mmproj = random_pair(small("qwen2.5-vl-3b"), "q8_0", tmp_path)
    too_small = replace(SETTINGS, runtime=RuntimeConfig(n_ctx=64), long_side_px=112)
    with pytest.raises(MemoryBudgetError, match="-c gives 64"):
        run_speed(str(model), mmproj, too_small)


def test_an_unknown_shape_or_quantization_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="'gpt-9'"):
        shapes.shape_of("gpt-9", None)
    with pytest.raises(ConfigError, match="'q1_0'"):
        random_pair(small("qwen2.5-vl-3b"), "q1_0", tmp_path)
