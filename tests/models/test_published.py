"""The shapes that manifests carry are those of the published models, and can be planned with."""

import json
from dataclasses import replace

import pytest
from session_support import run

from retake_edge.catalog.needs import AN_HOUR
from retake_edge.config import RetakeConfig
from retake_edge.llama.gguf import read_gguf
from retake_edge.models.families import family_of
from retake_edge.models.hollow import hollow_pair
from retake_edge.models.manifest import ModelFiles
from retake_edge.models.published import all_published, published
from retake_edge.models.random_gguf import random_pair
from retake_edge.models.shapes import SHAPES
from retake_edge.plan.cells import text_reserve
from retake_edge.plan.run import RunPlanner

MODELS = all_published()
FAMILIES = {
    "qwen2-vl": "Qwen2-VL",
    "qwen2.5-vl": "Qwen2.5-VL",
    "qwen3-vl": "Qwen3-VL",
    "internvl3": "InternVL",
    "internvl3.5": "InternVL",
    "smolvlm2": "SmolVLM2",
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_manifest_has_the_recorded_shape(name):
    shape = published(name).shape
    same = replace(shape.vision, weights="f16")
    assert replace(shape, vision=same, n_ctx_train=1 << 20) == SHAPES[name]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_the_shape_gives_the_size_of_the_download_and_the_family(model, tmp_path):
    files = hollow_pair(model.shape, model.ref.quant, tmp_path)
    sizes = [path.stat().st_size for path in (files.model, files.mmproj)]
    assert sum(sizes) / 1e9 == pytest.approx(model.n_bytes / 1e9, abs=0.06)
    used = sum(path.stat().st_blocks * 512 for path in (files.model, files.mmproj))
    assert used < 10 << 20, "the holes take no room on the disk"
    family = family_of(read_gguf(files.model), read_gguf(files.mmproj))
    assert family.name == FAMILIES[model.name.rpartition("-")[0]]


def test_ranks_are_an_order():
    assert [model.rank for model in MODELS] == list(range(1, len(MODELS) + 1))


def test_what_is_planned_without_weights_is_what_is_planned_with_them(tmp_path):
    shape = SHAPES["qwen2.5-vl-3b"].cut(2)
    hollow = hollow_pair(shape, "q4_0", tmp_path / "hollow")
    whole = ModelFiles(*random_pair(shape, "q4_0", tmp_path))
    settings, plans = RetakeConfig(), []
    for files in (hollow, whole):
        with RunPlanner(files, text_reserve(settings), {"": 1 << 40}, tried=True) as planner:
            plan = planner.plan(AN_HOUR, settings)
            plans.append((plan.memory, plan.estimate, plan.cells))
    assert plans[0] == plans[1]


@pytest.mark.process
def test_plan_works_without_a_download_however_the_name_is_written():
    code, out, err = run("plan", "-m", "Qwen2.5-VL:3B", "--json")
    assert code == 0, err
    document = json.loads(out)
    assert document["model"] == {"name": "qwen2.5-vl-3b", "is_downloaded": False}
    assert document["frames"]["n"] == 2048
    assert document["memory"][0]["weights"] > 1.5e9 and document["seconds"]["prefill"] > 0


@pytest.mark.process
def test_a_model_of_the_hub_without_a_name_cannot_be_planned_before_it_is_here():
    code, _, err = run("plan", "-m", "some/Model-GGUF")
    assert code == 4 and "retake-edge pull some/Model-GGUF" in err


@pytest.mark.process
def test_plan_without_anything_says_what_to_give():
    code, _, err = run("plan")
    assert code == 2 and "a video file, or -m NAME" in err
