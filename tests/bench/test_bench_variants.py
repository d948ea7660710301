"""What the benchmarks run, by name."""

import numpy as np
import pytest

from retake_edge.bench.replay import kept_frames
from retake_edge.bench.variants import VARIANTS, cells, parse_numbers, parse_variants
from retake_edge.config import POLICIES
from retake_edge.errors import ConfigError
from retake_edge.vision.encoder import VisionFeatures


def test_every_policy_of_the_tool_can_be_measured():
    assert set(POLICIES) <= set(VARIANTS)


def test_the_papers_policy_has_three_readings_of_a_pivot():
    names = ("pivotkv", "pivotkv-reference", "pivotkv-nopivot")
    chosen = [VARIANTS[name] for name in names]
    assert {c.policy for c in chosen} == {"pivotkv"}
    assert [c.pivot for c in chosen] == ["protect", "reference", "none"]


def test_the_full_cache_runs_once_and_first():
    runs = cells(parse_variants("random,none,coverage"), [0.25, 1.0, 0.5])
    assert [(c.name, keep_ratio) for c, keep_ratio in runs] == [
        ("none", 1.0),
        ("random", 0.5),
        ("coverage", 0.5),
        ("random", 0.25),
        ("coverage", 0.25),
    ]


def test_an_unknown_policy_is_refused_by_name():
    with pytest.raises(ConfigError, match="'nonesuch'"):
        parse_variants("random,nonesuch")


@pytest.mark.parametrize("text", ["", "a", "0.5,", "0", "-1,2"])
def test_lists_that_are_not_numbers_above_zero_are_refused(text):
    with pytest.raises(ConfigError, match="--keep-ratio"):
        parse_numbers(text, "--keep-ratio", float)


def video(n_frames, changed=()):
    """Features that turn around at each changed frame and stay otherwise."""
    sign = np.ones(n_frames)
    for frame in changed:
        sign[frame:] *= -1
    rows = np.broadcast_to(sign[:, None, None], (n_frames, 16, 8)).astype(np.float32)
    times_s = np.arange(n_frames) * 1.0
    return VisionFeatures(rows, times_s, times_s, 4, 4)


def test_frames_are_dropped_to_the_cells_that_eviction_would_leave():
    frames = kept_frames(video(64), VARIANTS["uniform-frames"], 0.25, 1, 8)
    n_cells_evicted = 64 * 16 // 4 + 64  # clock text is never evicted
    assert abs(len(frames) * 17 - n_cells_evicted) <= 17 / 2


def test_evenly_dropped_frames_reach_over_the_whole_video():
    frames = kept_frames(video(60), VARIANTS["uniform-frames"], 0.1, 0, 8)
    assert frames.tolist() == [5, 15, 25, 35, 45, 55]


def test_keyframe_dropping_keeps_the_frames_that_change():
    frames = kept_frames(video(40, (7, 19, 33)), VARIANTS["dpselect-frames"], 0.1, 0, 8)
    assert {7, 19, 33} < set(frames.tolist())


def test_policies_that_evict_cells_see_all_frames():
    assert len(kept_frames(video(40), VARIANTS["random"], 0.1, 0, 8)) == 40
