"""Sampling times that follow change: which pictures stand out, and where frames go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retake_edge.video.change import change_strengths, changing_moments, comes_early
from retake_edge.video.packets import PacketLog, Packets
from retake_edge.video.read import VideoInfo, probe_video, sample_frames
from retake_edge.video.sampling import SHARE, SampleTimes, sample_times

DATA = Path(__file__).parents[1] / "data" / "video"
FPS = 10
GOP = 250


def packets_of(n_bytes: np.ndarray, is_key: np.ndarray | None = None, fps: float = FPS) -> Packets:
    """Packets at an even rate; a key frame every GOP pictures where none are named."""
    n = len(n_bytes)
    key = np.arange(n) % GOP == 0 if is_key is None else is_key
    return Packets(np.arange(n) / fps, np.asarray(n_bytes, np.float64), key)


def still(n: int, seed: int = 0) -> np.ndarray:
    """Sizes of a still view with some noise, and of its key frames."""
    sizes = np.random.default_rng(seed).normal(300, 30, n).clip(50)
    sizes[::GOP] = 8000
    return sizes


def info_of(packets: Packets | None, duration_s: float) -> VideoInfo:
    n = round(duration_s * FPS)
    return VideoInfo(
        *(Path("v.mp4"), 64, 64, 0, duration_s, n, "h264", float(FPS), 1 / FPS, 0.0),
        packets=packets,
    )


def times_of(packets: Packets, limit: int, per_step: int = 1, **more: float) -> SampleTimes:
    info = info_of(packets, len(packets.times_s) / FPS)
    settings: dict[str, Any] = {"fps": 2.0, "max_frames": limit, **more}
    return sample_times(info, sampling="change", frames_per_step=per_step, **settings)


def test_what_is_noted_of_packets_comes_back_in_the_order_of_showing() -> None:
    first, second = PacketLog(), PacketLog()
    first.add(0.2, 50, False)
    first.add(0.1, 7000, True)
    second.add(0.3, 2**40, False)
    found = Packets.from_bytes(PacketLog.joined([first, second]).to_bytes())
    assert found.times_s.tolist() == [0.1, 0.2, 0.3]
    assert found.n_bytes.tolist() == [7000, 50, 2**32 - 1]
    assert found.is_key.tolist() == [True, False, False]
    assert len(Packets.from_bytes(b"").times_s) == 0


def test_a_large_picture_between_key_frames_stands_out_and_a_key_frame_in_its_turn_does_not() -> (
    None
):
    sizes = still(6000)
    sizes[3333] = 3000
    strengths = change_strengths(packets_of(sizes))
    assert strengths.argmax() == 3333
    assert strengths[3333] > np.log(4)
    assert np.abs(strengths[::GOP]).max() < 0.1


def test_a_key_frame_before_its_turn_stands_out() -> None:
    sizes = still(6000)
    is_key = np.arange(6000) % GOP == 0
    sizes[3333], is_key[3333] = 8000, True
    strengths = change_strengths(packets_of(sizes, is_key))
    assert strengths.argmax() == 3333
    keys = np.flatnonzero(is_key)
    early = comes_early(keys, np.arange(6000) / FPS)
    # The one after it is early, too: the distance to the key frame before is short.
    assert set(keys[early]) == {3333, 3500}


def test_pictures_that_are_large_by_their_place_in_the_group_do_not_stand_out() -> None:
    """A pyramid gives every 16th picture many times the bytes of the others."""
    sizes = still(6000)
    sizes[8::16] *= 12
    sizes[4::8] *= 3
    sizes[::GOP] = 8000
    sizes[3331] = 20_000
    strengths = change_strengths(packets_of(sizes))
    assert strengths.argmax() == 3331
    others = np.delete(strengths, 3331)
    assert others.max() < np.log(1.5)


def test_noise_is_compared_with_the_noise_around() -> None:
    """An event counts in a quiet part as in a restless one, where all pictures are large."""
    sizes = still(12_000)
    restless = slice(6000, 12_000)
    sizes[restless] *= np.random.default_rng(1).uniform(6, 10, 6000)
    sizes[::GOP] = 8000
    sizes[3001], sizes[9001] = 3000, 12_000
    strengths = change_strengths(packets_of(sizes))
    assert set(np.argsort(strengths)[-2:]) == {3001, 9001}


def test_where_every_picture_is_a_key_frame_a_step_of_the_size_is_a_change() -> None:
    sizes = np.random.default_rng(0).normal(9000, 20, 6000)
    sizes[3000:3010] += 3000
    strengths = change_strengths(packets_of(sizes, np.ones(6000, np.bool_)))
    assert set(np.argsort(strengths)[-2:]) == {3000, 3010}


@pytest.mark.parametrize("n", [0, 1, 2, 3, 40])
def test_few_packets_are_no_error(n: int) -> None:
    assert len(change_strengths(packets_of(still(n)))) == n


def test_of_equal_moments_those_are_taken_that_spread_over_the_film() -> None:
    times = packets_of(still(6000))
    moments = changing_moments(times, np.ones(6000), 20, after_s=0.0, until_s=600.0, apart_s=1.0)
    assert len(moments) == 20 and moments == sorted(moments)
    assert np.diff([0.0, *moments, 600.0]).max() < 90


@pytest.mark.parametrize("per_step", [1, 2])
@pytest.mark.parametrize("limit", [7, 64, 512, 513])
@pytest.mark.parametrize("seed", range(3))
def test_times_rise_keep_to_the_limit_and_leave_no_long_stretch(
    per_step: int, limit: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    sizes = still(18_000, seed)
    sizes[rng.integers(1, 18_000, 600)] *= rng.uniform(2, 30, 600)
    wanted = times_of(packets_of(sizes), limit, per_step)
    times_s = wanted.all_s
    assert wanted.n == len(times_s) <= limit
    assert wanted.n > 0.8 * limit
    assert times_s[0] == 0.0 and times_s[-1] < 1800.0
    assert np.diff(times_s).min() > 0.04  # twice what a time stamp may be off
    floor_s = 1800.0 / (limit * (1 - SHARE))
    assert np.diff([*times_s, 1800.0]).max() <= (per_step + 0.5) * floor_s
    assert wanted.sampling == ("change" if limit > 2 else "even")


@pytest.mark.parametrize("per_step", [1, 2, 3])
def test_no_grid_frame_reaches_over_a_moment(per_step: int) -> None:
    sizes = still(18_000)
    at = np.arange(501, 17_500, 777)
    sizes[at] = 6000
    times_s = times_of(packets_of(sizes), 200, per_step).all_s
    for moment_s in at / FPS:
        first = int(np.searchsorted(times_s, moment_s - 1e-9))
        assert times_s[first] == pytest.approx(moment_s)
        assert first % per_step == 0
        assert times_s[first + per_step - 1] - moment_s <= 0.5 * (per_step - 1) + 1e-9


def test_a_video_with_fewer_frames_than_the_limit_is_sampled_evenly() -> None:
    sizes = still(6000)
    sizes[::97] *= 20
    packets = packets_of(sizes)
    whole: dict[str, Any] = {"fps": 2.0, "max_frames": 1200}
    assert times_of(packets, 1200) == sample_times(info_of(packets, 600.0), **whole)
    assert times_of(packets, 1199).times_s


def test_where_nothing_stands_out_or_nothing_is_known_times_are_even() -> None:
    flat = packets_of(np.full(6000, 500.0), np.arange(6000) == 0)
    assert times_of(flat, 100).sampling == "even"
    info = info_of(None, 600.0)
    assert sample_times(info, fps=2.0, max_frames=100, sampling="change").sampling == "even"


def test_a_part_is_sampled_by_what_happens_in_it() -> None:
    sizes = still(18_000)
    sizes[[2001, 9001, 16_001]] = 6000
    wanted = times_of(packets_of(sizes), 50, start_s=600.0, end_s=1200.0)
    assert 900.1 in wanted.times_s
    assert wanted.times_s[0] == 600.0 and wanted.times_s[-1] < 1200.0
    assert 200.1 not in wanted.times_s


@pytest.mark.process
@pytest.mark.parametrize("per_step", [1, 2])
@pytest.mark.parametrize(
    "name", ["h264.mp4", "vfr.mkv", "long.mkv", "start_5s.ts", "h264.avi", "one_frame.mp4"]
)
def test_any_file_gives_its_frames_at_rising_times_within_the_limit(
    name: str, per_step: int
) -> None:
    path, limit = DATA / name, 9
    settings: dict[str, Any] = {"fps": 8.0, "max_frames": limit, "frames_per_step": per_step}
    wanted = sample_times(probe_video(path), sampling="change", **settings)
    batches = sample_frames(path, target_size=(16, 16), sampling="change", **settings)
    times_s = np.concatenate([batch.times_s for batch in batches])
    assert 0.7 * min(limit, wanted.n) <= len(times_s) <= wanted.n <= limit
    assert (np.diff(times_s) > 0).all()
