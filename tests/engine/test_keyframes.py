"""DPSelect as a filter: golden selections from a stream, with the frames' rows and times."""

import errno
import tempfile
from contextlib import nullcontext
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from session_support import opened, question_logits, settings

from retake_edge.config import POLICIES, DPSelectConfig
from retake_edge.engine.keyframes import keyframes, n_keyframes
from retake_edge.errors import ConfigError
from retake_edge.golden.report import GoldenSet
from retake_edge.vision.encoder import VisionFeatures

GOLDEN = Path(__file__).parents[1] / "golden"


def parts_of(rows, *ends):
    """Features in parts that end before the frames named."""
    times_s = np.arange(len(rows), dtype=np.float64) * np.float64(0.5)
    edges = [0, *ends, len(rows)]
    for start, end in pairwise(edges):
        if end > start:
            some = slice(start, end)
            yield VisionFeatures(rows[some], times_s[some], times_s[some] + 0.25, 1, rows.shape[1])


def test_golden_selections_come_from_a_stream():
    data = GoldenSet(GOLDEN, "dpselect")
    n_checked = 0
    for case in data.cases:
        rows = data[f"{case['bank']}/feats"].astype(np.float32)
        is_clear = case["sync"] and case["dtype"] != "bfloat16" and not case.get("fragile")
        if not is_clear or len(rows) < 2:
            continue
        tied = f"{case['id']}/sel_stable"
        expected = data[tied if tied in data else f"{case['id']}/sel"]
        kept = keyframes(parts_of(rows, 1, len(rows) // 2), case["tgt"] / len(rows), rows.shape[2])
        np.testing.assert_array_equal(kept.index, np.ravel(expected), err_msg=case["id"])
        found = list(kept.parts)
        np.testing.assert_array_equal(
            np.concatenate([p.embeddings for p in found]), rows[kept.index]
        )
        times_s = np.concatenate([part.times_s for part in found])
        np.testing.assert_array_equal(times_s, kept.index * 0.5)
        np.testing.assert_array_equal(kept.times_s, times_s)
        n_checked += 1
    assert n_checked > 20


def test_how_a_video_comes_in_parts_changes_nothing():
    rng = np.random.default_rng(3)
    for _ in range(20):
        rows = rng.standard_normal((int(rng.integers(2, 70)), 5, 9)).astype(np.float32)
        ratio = float(rng.uniform(0.05, 1))
        cuts = sorted(rng.integers(1, len(rows) + 1, 3).tolist())
        whole, cut = (keyframes(parts_of(rows, *c), ratio, 8) for c in ((), cuts))
        np.testing.assert_array_equal(whole.index, cut.index)
        np.testing.assert_array_equal(whole.pivot_share, cut.pivot_share)
        assert len(whole.index) == n_keyframes(len(rows), ratio)
        for found in (whole, cut):
            kept = np.concatenate([part.embeddings for part in found.parts])
            np.testing.assert_array_equal(kept, rows[cut.index])


@pytest.mark.parametrize("policy", POLICIES)
def test_a_filter_goes_with_every_policy(tmp_path, policy):
    config = replace(settings(policy=policy), dpselect=DPSelectConfig(ratio=0.5))
    with opened(tmp_path, config) as session:
        first = question_logits(session)
        kept = np.unique(session.video_map.cell_frames[session.video_map.cell_frames >= 0])
        assert 0 < len(kept) <= 6  # of 12 grid frames
        assert session.video.n_grid_frames == len(session.video_map.frame_times_s) == 12
        assert session.ask("What is it?").text is not None
    with opened(tmp_path, config) as session:
        assert session.saved.is_reused
        np.testing.assert_array_equal(question_logits(session), first)


def test_a_filter_is_part_of_what_a_session_is_known_by(tmp_path):
    keys = set()
    for ratio in (1.0, 0.5, 0.25):
        config = replace(settings(), dpselect=DPSelectConfig(ratio=ratio))
        with opened(tmp_path, config) as session:
            keys.add(session.saved.key)
            assert not session.saved.is_reused
    assert len(keys) == 3


@pytest.mark.parametrize("ratio", [0.0, -0.5, 1.5])
def test_a_ratio_out_of_range_is_refused(ratio):
    with pytest.raises(ConfigError, match="--dpselect-ratio"):
        DPSelectConfig(ratio=ratio)


def test_a_full_temporary_folder_is_told_in_a_sentence(monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    unwritable = nullcontext(SimpleNamespace(write=full))
    for made in (full, lambda: unwritable):
        monkeypatch.setattr(tempfile, "TemporaryFile", made)
        with pytest.raises(ConfigError, match=r"--dpselect-ratio .*No space left.*TMPDIR"):
            keyframes(parts_of(np.ones((4, 2, 3), np.float32)), 0.5, 3)
