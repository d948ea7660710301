"""A video that stands still: what is read of it, what its cells weigh, and how it goes on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from session_support import QUESTION, opened, question_logits, settings

from retake_edge.bench.scenes.render import write_video
from retake_edge.bench.scenes.scene import Card, Scene, Segment
from retake_edge.compress.policies import MOST_TOKENS
from retake_edge.engine.engine import Engine
from retake_edge.llama.capture import Capture

SECONDS, FPS = 16.0, 4.0  # 64 frames, 32 grid frames
N_CHUNKS = 4
N_TOKENS = 16


@pytest.fixture(scope="module")
def still_video(tmp_path_factory):
    """Three pictures: 6 s, 5 s with a card from second 8 to 10, and 5 s."""
    bounds = [0.0, 6.0, 11.0, SECONDS]
    segments = tuple(
        Segment(start, end, shape, colour, "still", "plain", tint=(40 + 30 * i, 80, 60))
        for i, (start, end, shape, colour) in enumerate(
            zip(
                bounds,
                bounds[1:],
                ("circle", "star", "ring"),
                ("red", "blue", "white"),
                strict=False,
            )
        )
    )
    scene = Scene(1, SECONDS, segments, (Card(8.0, 10.0, "green", 42),))
    path = tmp_path_factory.mktemp("still") / "still.mp4"
    return write_video(scene, path, fps=8, size_px=112)


def config(*, still=12.0, **options):
    plain = settings(fps=FPS, **{"prefill_chunk_frames": 16, **options})
    return replace(plain, sampling=replace(plain.sampling, still=still))


def shown(session):
    """How many vision cells each grid frame has."""
    frames = session.video_map.cell_frames[0]
    return np.bincount(frames[frames >= 0], minlength=32).tolist()


def test_a_picture_is_encoded_once_and_shown_again_by_few_tokens(tmp_path, still_video):
    with opened(tmp_path, config(keep_ratio=1.0), still_video) as session:
        video, seen = session.video, shown(session)
        assert (video.n_frames, video.n_grid_frames) == (64, 32)
        assert 32 - video.n_still in (5, 6, 7)  # five pictures; a change may fall into a pair
        assert len(session.video_map.frame_times_s) == 32
        assert seen.count(N_TOKENS) == 32 - video.n_still
        assert seen.count(N_TOKENS // 8) == video.n_still
        assert {0, 12, 16, 20, 22} <= {i for i, n in enumerate(seen) if n == N_TOKENS}
        assert video.n_cells_kept == sum(seen) == video.n_cells_before - video.n_left_out
        answer = session.ask(QUESTION)
    assert answer.to_dict()["video"]["n_still"] == video.n_still
    assert "stood still" in answer.summary()
    assert "still" in answer.seconds


def test_off_reads_everything_and_is_another_session(tmp_path, still_video):
    keys = []
    for still in (12.0, 0.0, 20.0):
        with opened(tmp_path, config(still=still), still_video) as session:
            keys.append(session.saved.key)
            if not still:
                assert session.video.n_still == 0
                assert session.video.n_left_out == 0
    assert len(set(keys)) == 3


@pytest.mark.parametrize("keep_ratio", [0.25, 0.5, 1.0])
def test_as_many_cells_are_kept_as_of_a_reading_of_everything_at_most(
    tmp_path, still_video, keep_ratio
):
    kept = []
    for still in (0.0, 12.0):
        asked = config(still=still, keep_ratio=keep_ratio)
        with opened(tmp_path, asked, still_video) as session:
            kept.append(session.video.n_cells_kept)
            assert session.video.n_cells_kept == session.video_map.cell_frames.shape[1]
            shown = session.video.n_cells_before - session.video.n_left_out
    assert kept[1] <= kept[0]
    assert kept[1] == shown or keep_ratio < 1


def test_cells_weigh_what_they_stand_for(tmp_path, still_video, monkeypatch):
    biases, commit = [], Capture.commit

    def committed(self, keep, positions, deltas=None, bias=None):
        biases.append(bias)
        return commit(self, keep, positions, deltas, bias)

    monkeypatch.setattr(Capture, "commit", committed)
    opened(tmp_path, config(keep_ratio=1.0), still_video).close()
    weights = np.exp(np.concatenate([bias for bias in biases if bias is not None]))
    assert set(weights.round(3)) <= set(range(1, MOST_TOKENS + 1))
    assert weights.max() > 4
    assert weights.sum() <= 32 * N_TOKENS


@pytest.mark.parametrize("keep_ratio", [0.25, 1.0])
def test_a_reading_stopped_in_a_still_stretch_goes_on_with_the_same_bits(
    tmp_path, still_video, monkeypatch, keep_ratio
):
    asked = config(keep_ratio=keep_ratio, batch=4)
    with opened(tmp_path / "whole", asked, still_video) as session:
        whole, seen = question_logits(session), shown(session)
        n_still, key = session.video.n_still, session.saved.key
        pictures = [time_s for time_s, _ in session.thumbnails]
    prefill = Engine.prefill_chunk
    for stop in range(1, N_CHUNKS):
        n_left = [stop]

        def stopping(self, *arguments, left=n_left):
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            return prefill(self, *arguments)

        monkeypatch.setattr(Engine, "prefill_chunk", stopping)
        folder = tmp_path / str(stop)
        with pytest.raises(KeyboardInterrupt):
            opened(folder, asked, still_video)
        monkeypatch.setattr(Engine, "prefill_chunk", prefill)
        with opened(folder, asked, still_video) as session:
            assert session.saved.key == key
            assert np.array_equal(question_logits(session), whole)
            assert shown(session) == seen
            assert session.video.n_still == n_still
            assert [time_s for time_s, _ in session.thumbnails] == pictures
        with opened(folder, asked, still_video) as session:
            assert session.saved.is_reused
            assert shown(session) == seen
            assert np.array_equal(question_logits(session), whole)


@pytest.mark.parametrize("policy", ["pivotkv", "coverage", "uniform", "none", "frames"])
def test_every_policy_reads_a_still_video(tmp_path, still_video, policy):
    keep_ratio = 1.0 if policy == "none" else 0.25
    with opened(tmp_path, config(policy=policy, keep_ratio=keep_ratio), still_video) as session:
        assert session.video.n_still > 20
        assert session.video_map.cell_frames.max() < len(session.video_map.frame_times_s)
        assert len(session.video_map.pivot_share) == len(session.video_map.frame_times_s)
        session.ask(QUESTION)


def test_reforged_positions_stay_inside_the_plan(tmp_path, still_video):
    n_positions = []
    for still in (0.0, 12.0):
        asked = config(still=still, positions="reforge")
        with opened(tmp_path, asked, still_video) as session:
            n_positions.append(session.video.n_positions)
    assert n_positions[1] <= n_positions[0]
