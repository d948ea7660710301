"""No token of a run stands where its model was not trained: planned, refused, and watched.

The oracle of every run is what reached llama.cpp: all positions that were decoded.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader
from random_models import write_model
from session_support import MODEL, VIDEO, opened, question_logits, run, settings
from toy_pairs import vision_llava, write_llama, write_pair

from retake_edge.config import RetakeConfig
from retake_edge.engine.positions import linear_span
from retake_edge.engine.trained_context import position_mode, trained_positions
from retake_edge.errors import MemoryBudgetError
from retake_edge.llama.context import Context
from retake_edge.llama.model import Model
from retake_edge.models.manifest import ModelFiles
from retake_edge.plan.cells import text_reserve
from retake_edge.plan.run import RunPlan, RunPlanner
from retake_edge.session.conversation import Conversation
from retake_edge.video.read import probe_video

N_VIDEO = 24 * 16  # tokens that the plain toy makes of the video


def plain(folder: Path, n_ctx: int, scaling: dict[str, Any] | None = None) -> ModelFiles:
    """A LLaVA-like toy that was trained for `n_ctx` positions."""
    files = ModelFiles(folder / f"plain-{n_ctx}.gguf", folder / f"mmproj-plain-{n_ctx}.gguf")
    write_llama(files.model, n_ctx=n_ctx, scaling=scaling)
    vision_llava(files.mmproj, 0)
    return files


def trained_for(files: ModelFiles, folder: Path, n_ctx: int) -> ModelFiles:
    """The same pair, its trained context changed in the file."""
    copy = folder / f"{n_ctx}-{files.model.name}"
    shutil.copy(files.model, copy)
    reader = GGUFReader(copy, "r+")
    field = next(f for name, f in reader.fields.items() if name.endswith(".context_length"))
    field.parts[field.data[0]][0] = n_ctx
    reader.data.flush()
    return ModelFiles(copy, files.mmproj)


def planned(files: ModelFiles, config: RetakeConfig) -> RunPlan:
    with RunPlanner(files, text_reserve(config)) as planner:
        return planner.plan(probe_video(VIDEO), config)


@contextmanager
def watched() -> Iterator[list[int]]:
    """The highest position of every batch that is decoded within."""
    seen: list[int] = []
    rows, tokens = Context.decode_embeddings, Context.decode_tokens

    def watch_rows(self: Context, embeddings: Any, ids: Any, **options: Any) -> None:
        seen.append(int(ids[:3].max() if ids.ndim == 2 else ids.max()))
        rows(self, embeddings, ids, **options)

    def watch_tokens(self: Context, ids: Any, position: int, *rest: Any, **options: Any) -> None:
        seen.append(position + len(ids) - 1)
        tokens(self, ids, position, *rest, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Context, "decode_embeddings", watch_rows)
        patch.setattr(Context, "decode_tokens", watch_tokens)
        yield seen


# --- what a file says -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_ctx", "scaling", "expected"),
    [
        (900, {}, 900),
        (900, {"scaling.type": "linear", "scaling.factor": 2.0}, 1800),
        (900, {"scaling.factor": 2.0}, 1800),  # llama.cpp takes linear then
        (900, {"scale_linear": 4.0}, 3600),
        (900, {"scaling.type": "yarn", "scaling.factor": 4.0}, 3600),
        (
            4096,
            {
                "scaling.type": "yarn",
                "scaling.factor": 4.0,
                "scaling.original_context_length": 1024,
            },
            4096,
        ),
        (
            1024,
            {
                "scaling.type": "yarn",
                "scaling.factor": 4.0,
                "scaling.original_context_length": 1024,
            },
            4096,
        ),
        (900, {"scaling.type": "none", "scaling.factor": 4.0}, 900),
        (900, {"scaling.type": "longrope", "scaling.factor": 4.0}, 900),
        (900, {"scaling.factor": 0.5}, 900),
    ],
)
def test_rope_scaling_of_the_file_counts(tmp_path, n_ctx, scaling, expected):
    write_llama(tmp_path / "m.gguf", n_ctx=n_ctx, scaling=scaling)
    with Model(tmp_path / "m.gguf", weights=False) as model:
        assert trained_positions(model) == expected


def test_only_models_without_a_time_axis_are_reforged_by_themselves(tmp_path):
    for kind, mode in (("norm", "reforge"), ("neox", "reforge"), ("imrope", "keep")):
        with Model(write_model(tmp_path / f"{kind}.gguf", kind), weights=False) as model:
            assert position_mode("auto", model) == mode
            assert position_mode("keep", model) == "keep"
            assert position_mode("reforge", model) == "reforge"


def test_a_linear_layout_counts_every_token_once():
    laid = linear_span([2, 0, 1], 3, 5)
    assert laid.ids.tolist() == list(range(5, 17))
    assert laid.frame.tolist() == [-1, -1, 0, 0, 0, 1, 1, 1, -1, 2, 2, 2]


# --- what a run does --------------------------------------------------------------------------


def one_position_pairs(folder: Path) -> dict[str, ModelFiles]:
    return {"plain": plain(folder, 900), "convolution": write_pair(folder, "convolution")}


@pytest.mark.parametrize("kind", ["plain", "convolution"])
def test_without_a_ratio_the_video_is_reforged_into_what_the_model_was_trained_for(tmp_path, kind):
    files = trained_for(one_position_pairs(tmp_path)[kind], tmp_path, 850)
    config = settings(keep_ratio=None)
    plan = planned(files, config)
    use = plan.cells.positions
    assert use.mode == "reforge" and use.limit == 850 and use.fits
    assert plan.cells.memory.keep_ratio < 1
    with watched() as seen, opened(tmp_path, config, model=files) as session:
        held = session.engine.context.position_max()
        assert held + 1 == session.engine.next_position == session.n_cells, "cells are positions"
        answer = session.ask("What is it?")
        assert max(seen) == answer.positions.highest < 850
    assert answer.positions.mode == "reforge" and answer.positions.limit == 850


@pytest.mark.parametrize("keep_ratio", [0.25, 0.6, 1.0])
@pytest.mark.parametrize("positions", ["keep", "reforge"])
def test_the_plan_ends_at_the_position_where_the_run_ends(tmp_path, positions, keep_ratio):
    """Each mode at its boundary: all of them, and one too few."""
    config = settings(keep_ratio=keep_ratio, positions=positions)
    plan = planned(plain(tmp_path, 4096), config)
    highest = plan.cells.positions.highest
    n_text_reserve = text_reserve(config)
    if positions == "keep":
        assert highest == plan.cells.memory.shape.n_before + N_VIDEO + n_text_reserve - 1
    else:
        assert highest == plan.cells.memory.n_needed - 1
    files = plain(tmp_path, highest + 1)
    with watched() as seen, opened(tmp_path, config, model=files) as session:
        engine = session.engine
        assert max(seen) + 1 == engine.n_positions
        assert engine.next_position + n_text_reserve == highest + 1
        assert engine.context.position_max() == engine.next_position - 1
        assert session.positions().highest == max(seen) <= highest
    with pytest.raises(MemoryBudgetError) as refusal:
        opened(tmp_path, config, model=plain(tmp_path, highest))
    assert f"{highest + 1:,} positions" in str(refusal.value)
    assert f"trained for {highest:,}" in str(refusal.value)
    assert "--max-frames" in str(refusal.value)


@pytest.mark.parametrize("positions", ["keep", "reforge"])
def test_positions_of_every_axis_count_with_mrope(tmp_path, positions):
    config = settings(positions=positions)
    highest = planned(MODEL, config).cells.positions.highest
    files = trained_for(MODEL, tmp_path, highest + 1)
    with watched() as seen, opened(tmp_path, config, model=files) as session:
        assert session.engine.next_position + text_reserve(config) == highest + 1
        assert session.engine.n_positions == max(seen) + 1
        assert planned(files, config).cells.positions.mode == positions
    with pytest.raises(MemoryBudgetError, match=f"trained for {highest:,}"):
        opened(tmp_path, config, model=trained_for(MODEL, tmp_path, highest))


@pytest.mark.parametrize("positions", ["auto", "reforge"])
def test_text_between_frames_counts_with_mrope(tmp_path, positions):
    """Qwen3-VL's rule: rows, columns and text move all axes on."""
    files, config = write_pair(tmp_path, "hybrid"), settings(fps=4.0, positions=positions)
    highest = planned(files, config).cells.positions.highest
    with watched() as seen, opened(tmp_path, config, model=files) as session:
        assert session.engine.n_positions == max(seen) + 1
        assert session.engine.next_position + text_reserve(config) <= highest + 1
    with pytest.raises(MemoryBudgetError, match="another model"):
        opened(tmp_path, config, model=trained_for(files, tmp_path, highest))


def test_a_chunk_too_long_for_the_model_is_taken_in_parts(tmp_path):
    config = settings(keep_ratio=None, prefill_chunk_frames=512, fps=24)
    files = plain(tmp_path, 1000)
    shape = planned(files, config).cells.memory.shape
    assert shape.n_video_cells > 1000 > shape.n_before + shape.steps_per_chunk * 16
    with watched() as seen, opened(tmp_path, config, model=files) as session:
        session.ask("What is it?")
    assert max(seen) < 1000
    whole = planned(plain(tmp_path, 4096), config).cells.memory
    assert whole.keep_ratio == 1.0 and whole.shape.steps_per_chunk == 512, "nothing is in the way"


def test_whole_frames_stay_inside_too(tmp_path):
    config = settings(keep_ratio=None, policy="frames")
    files = plain(tmp_path, 700)
    with watched() as seen, opened(tmp_path, config, model=files) as session:
        session.ask("What is it?")
        assert session.video.reduced_by == "frames"
    assert max(seen) < 700
    with pytest.raises(MemoryBudgetError, match="trained for 700"):
        opened(
            tmp_path,
            replace(config, compression=replace(config.compression, policy="none")),
            model=files,
        )


# --- questions, chats and saved sessions ------------------------------------------------------


def test_a_question_that_would_pass_the_end_is_refused_and_one_that_does_not_is_not(tmp_path):
    config = settings()
    n = planned(plain(tmp_path, 4096), config).cells.positions.highest + 1
    with opened(tmp_path, config, model=plain(tmp_path, n), n_question_reserve=900) as session:
        prompt = session.manifest.prompt
        n_room = n - session.engine.next_position - config.generation.max_tokens
        n_letters = n_room - len(session.engine.model.tokenize(prompt.question("")))
        assert session.ask("a" * n_letters).positions.highest < n
        expected = question_logits(session)
        with pytest.raises(MemoryBudgetError, match=f"trained for {n:,}"):
            session.ask("a" * (n_letters + 1))
        assert np.array_equal(question_logits(session), expected), "the video is as it was"


def test_a_chat_ends_before_the_model_leaves_what_it_knows(tmp_path):
    config = settings()
    n = planned(plain(tmp_path, 4096), config).cells.positions.highest + 1
    files = plain(tmp_path, n)
    with (
        opened(tmp_path, config, model=files, n_question_reserve=4096) as session,
        watched() as seen,
        Conversation(session) as chat,
    ):
        with pytest.raises(MemoryBudgetError, match=f"trained for {n:,}"):
            for _ in range(100):
                chat.ask("And what happens after that?" * 3)
        assert len(chat.turns) > 2
        assert n - 200 < max(seen) < n
        chat.reset()
        chat.ask("What is it?")
    with opened(tmp_path, config, model=files, n_question_reserve=4096) as again, watched() as seen:
        assert again.saved.is_reused
        assert again.positions().highest == session.positions().highest
        with Conversation(again) as chat, pytest.raises(MemoryBudgetError, match="positions"):
            for _ in range(100):
                chat.recall("And what happens after that?" * 3, "Nothing.")
        assert max(seen) < n


def test_a_run_that_goes_on_after_a_stop_tells_the_same_positions(tmp_path):
    files, config = plain(tmp_path, 900), settings(keep_ratio=None)

    def stop(stage: str, *_: int) -> None:
        if stage == "prefill":
            raise KeyboardInterrupt

    with opened(tmp_path / "whole", config, model=files) as session:
        expected = session.positions()
    with pytest.raises(KeyboardInterrupt):
        opened(tmp_path / "parts", config, model=files, progress=stop)
    with opened(tmp_path / "parts", config, model=files) as session:
        assert session.positions() == expected


def test_what_is_kept_does_not_depend_on_the_room_for_a_chat(tmp_path):
    config, files = settings(keep_ratio=None), plain(tmp_path, 900)
    with opened(tmp_path, config, model=files) as session:
        kept, key = session.video.n_cells_kept, session.saved.key
    with opened(tmp_path, config, model=files, n_question_reserve=4096) as session:
        assert (session.video.n_cells_kept, session.saved.key) == (kept, key)
        assert session.saved.is_reused


# --- on the command line ----------------------------------------------------------------------


@pytest.mark.process
def test_plan_and_answer_tell_mode_highest_position_and_limit(tmp_path):
    files = plain(tmp_path, 900)
    pair = ["-m", str(files.model), "-mm", str(files.mmproj), "--fps", "8", "-n", "6", "-t", "1"]
    place = ["--cache-dir", str(tmp_path)]
    code, out, err = run("plan", str(VIDEO), *pair, *place)
    assert code == 0, err
    assert "re-forged, 0 to " in out and "of 900 that the model was trained for" in out
    code, out, err = run("-v", "ask", str(VIDEO), "What is it?", *pair, *place)
    assert code == 0, err
    assert "positions re-forged, 0 to " in err and "of 900 that" in err
    code, out, err = run("ask", str(VIDEO), "What is it?", *pair, *place, "--json")
    use = json.loads(out)["positions"]
    assert use["mode"] == "reforge" and use["limit"] == 900 and 0 < use["highest"] < 900
    code, out, err = run("ask", str(VIDEO), "What?", *pair, *place, "--positions", "keep")
    assert code == 5 and "trained for 900" in err and "--positions reforge" in err
    code, out, err = run("plan", str(VIDEO), *pair, *place, "--positions", "keep")
    assert code == 5
    proposed = [line.split()[:2] for line in err.splitlines() if line.startswith("  --")]
    assert ["--positions", "reforge"] in proposed
    assert any(option == "--max-frames" for option, _ in proposed)
    changes = next(pair for pair in proposed if pair[0] == "--max-frames")
    code, out, err = run("ask", str(VIDEO), "What?", *pair, *place, "--positions", "keep", *changes)
    assert code == 0, err
