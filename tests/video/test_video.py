"""Real files through the real decoder process.

The fixtures (scripts/make_video_fixtures.py) carry each frame's number as eight bars, so a test
reads from the pixels which frame it was given.
"""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import textwrap
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
import pytest

from retake_edge.errors import ConfigError, VideoError
from retake_edge.video import frames
from retake_edge.video import process as video_process
from retake_edge.video import worker as video_worker
from retake_edge.video.frame_size import long_side_rule
from retake_edge.video.goal import Goal, Goals
from retake_edge.video.index import FrameIndex, index_film, without_wild_end
from retake_edge.video.process import VideoLimits
from retake_edge.video.read import VideoInfo, VideoWarning, probe_video, sample_frames
from retake_edge.video.sampling import time_grid
from retake_edge.video.stream import Film

DATA = Path(__file__).parents[1] / "data" / "video"
ROOT = Path(__file__).resolve().parents[2]
TEN_PER_SECOND = [(k / 10, k) for k in range(30)]


def frame_number(frame: npt.NDArray[np.uint8]) -> int:
    """Read the number that a fixture's frame (64, 128, 3) carries."""
    bars = frame[40, 8::16].mean(axis=1) > 128
    return int((bars * (1 << np.arange(8))).sum())


def sampled(path: Path, **options: Any) -> list[tuple[float, int]]:
    """Sample `path` and return (time, frame number) of every frame."""
    batches = sample_frames(path, target_size=(128, 64), **options)
    return [
        (round(float(time_s), 3), frame_number(frame))
        for batch in batches
        for frame, time_s in zip(batch.frames, batch.times_s, strict=True)
    ]


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """Collect the worker processes that a test starts."""
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def spy(*args: Any, **kwargs: Any) -> subprocess.Popen[bytes]:
        started.append(popen(*args, **kwargs))
        return started[-1]

    monkeypatch.setattr("subprocess.Popen", spy)
    return started


# --- codecs, containers, clocks


@pytest.mark.parametrize(
    "name",
    [
        "h264.mp4",
        "h264_10bit.mp4",
        "hevc.mp4",
        "hevc_10bit.mp4",
        "vp9.webm",
        "vp9_10bit.webm",
        "fragmented.mp4",
        "h264.avi",
        "start_5s.mkv",
        "start_5s.ts",
        "av1.mp4",
        "av1_10bit.mp4",
        "flv1.flv",
    ],
)
def test_every_frame_arrives_once_with_its_own_time(name: str) -> None:
    assert sampled(DATA / name, fps=10) == TEN_PER_SECOND


@pytest.mark.parametrize("name", ["vfr.mp4", "vfr.mkv"])
def test_variable_frame_rate_is_sampled_by_time(name: str) -> None:
    """Frames 0-9 come every 0.3 s, then every 0.05 s: sampling by number would give others."""
    times = [0.0, 0.3, 0.899, 1.5, 1.799, 2.4, 3.0, 3.5, 4.0]
    expected = list(zip(times, [0, 1, 3, 5, 6, 8, 10, 20, 30], strict=True))
    assert sampled(DATA / name, fps=2, end_s=4.5) == expected


def test_one_frame_a_second_is_read_at_its_times() -> None:
    assert sampled(DATA / "long.mkv", fps=1) == [(float(k), k) for k in range(200)]


def test_a_bare_stream_without_time_stamps_runs_at_its_nominal_rate() -> None:
    assert sampled(DATA / "h264.h264", fps=25) == [(k / 25, k) for k in range(30)]


def test_a_one_frame_clip_gives_its_frame() -> None:
    info = probe_video(DATA / "one_frame.mp4")
    assert (info.n_frames, info.duration_s) == (1, 0.1)
    assert sampled(DATA / "one_frame.mp4", fps=2) == [(0.0, 0)]


@pytest.mark.parametrize(
    ("degrees", "red", "blue"),
    [
        (0, (4, 4), (4, -5)),
        (90, (-5, 4), (4, 4)),
        (180, (-5, -5), (-5, 4)),
        (270, (4, -5), (-5, -5)),
    ],
)
def test_rotation_metadata_turns_the_picture(
    degrees: int, red: tuple[int, int], blue: tuple[int, int]
) -> None:
    """Where the strip's two ends, red then blue in stored order, must show up."""
    path = DATA / (f"rotated_{degrees}.mp4" if degrees else "h264.mp4")
    info = probe_video(path)
    sideways = degrees % 180 == 90
    assert (info.width_px, info.height_px) == ((64, 128) if sideways else (128, 64))
    [batch] = list(sample_frames(path, fps=1, end_s=0.5))
    frame = batch.frames[0].astype(int)
    assert frame.shape == ((128, 64, 3) if sideways else (64, 128, 3))
    assert frame[red][0] > 180 > 80 > frame[red][2]
    assert frame[blue][2] > 180 > 80 > frame[blue][0]


def test_probe_reads_the_facts_of_the_file_and_not_its_header() -> None:
    info = probe_video(DATA / "start_5s.mkv")
    assert info == VideoInfo(
        path=DATA / "start_5s.mkv",
        width_px=128,
        height_px=64,
        rotation_deg=0,
        duration_s=3.0,  # the header says 8
        n_frames=30,  # the header's duration would give 80
        codec="h264",
        fps_nominal=10.0,
        frame_s=0.1,
        missing_s=0.0,
    )
    assert not info.is_truncated


# --- which times are sampled


def test_frames_above_the_limit_are_spread_over_the_whole_range() -> None:
    path = DATA / "faststart.mp4"
    assert sampled(path, fps=10, max_frames=4) == [(0.0, 0), (1.5, 15), (3.0, 30), (4.5, 45)]


def test_start_and_end_bound_the_samples() -> None:
    got = sampled(DATA / "faststart.mp4", fps=2, start_s=1.0, end_s=2.5)
    assert got == [(1.0, 10), (1.5, 15), (2.0, 20)]


def test_a_rate_above_the_videos_own_gives_each_frame_once() -> None:
    assert sampled(DATA / "h264.mp4", fps=60) == TEN_PER_SECOND


@pytest.mark.parametrize("seed", range(5))
def test_the_time_grid_stays_inside_the_range_and_the_limit(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(200):
        duration_s, fps = float(rng.uniform(0.01, 4000)), float(rng.uniform(0.05, 60))
        start_s = float(rng.uniform(0, duration_s))
        limit = int(rng.integers(1, 500))
        first_s, step_s, n = time_grid(
            duration_s, fps=fps, max_frames=limit, start_s=start_s, end_s=None
        )
        assert first_s == start_s and 1 <= n <= limit
        assert step_s >= 1 / fps - 1e-9
        assert n == 1 or start_s + (n - 1) * step_s < duration_s
        assert start_s + n * step_s >= duration_s - 1e-6 * max(1, 1 / fps) * duration_s


@pytest.mark.parametrize("seed", range(3))
def test_every_wanted_time_is_served_or_missed_exactly_once(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(100):
        edges = np.sort(rng.uniform(0, 50, 20)).tolist()
        spans = [pair for pair in pairwise(edges) if rng.uniform() < 0.7] or [(0.0, 50.0)]
        goal = Goal(0.0, float(rng.uniform(0.5, 3)), int(rng.integers(1, 300)), 0.0)
        wanted = [k * goal.step_s for k in range(goal.n)]
        n_given = 0
        for low, high in spans:
            inside = [t for t in wanted if low <= t < high]
            assert goal.wants(low, high) == bool(inside)
            given = list(goal.serve(low, high, is_first=False))
            # The first time may be the picture's own, the others are the wanted ones.
            assert len(given) == len(inside) and given[1:] == inside[1:]
            assert not given or low <= given[0] <= inside[0]
            n_given += len(given)
        passed = [t for t in wanted if t < spans[-1][1]]
        assert (goal.next, goal.n_missed) == (len(passed), len(passed) - n_given)


def test_a_time_stamp_years_ahead_costs_no_time() -> None:
    goal = Goal(start_s=0.0, step_s=0.5, n=10**13, slack_s=0.0)
    assert next(goal.serve(1e12, 2e12, is_first=False)) == 1e12
    assert goal.next == 2 * 10**12 + 1 and goal.n_missed == 2 * 10**12


def test_a_last_time_stamp_or_length_far_beyond_all_others_makes_no_long_video() -> None:
    usual = [(k / 10, 0.1) for k in range(30)]
    wild = [*usual[:29], (1e15, 0.1)]
    assert without_wild_end(wild, 0.1) == [*usual[:29], pytest.approx((2.9, 0.1))]
    assert without_wild_end([*usual[:29], (2.9, 1e15)], 0.1)[-1] == (2.9, 0.1)
    slides = [(0.0, 600.0), (600.0, 600.0), (1200.0, 3000.0)]
    assert without_wild_end(slides, 600.0) == slides


def test_a_held_picture_is_given_at_each_wanted_time() -> None:
    goal = Goal(start_s=0.0, step_s=1.0, n=9, slack_s=0.02)
    assert list(goal.serve(0.01, 4.2, is_first=True)) == [0.01, 1.0, 2.0, 3.0, 4.0]
    assert goal.n_missed == 0


def test_a_pair_does_not_join_the_pictures_on_both_sides_of_a_gap() -> None:
    goal = Goal(start_s=0.0, step_s=1.0, n=12, slack_s=0.02)
    given = [*goal.serve(0.0, 2.5, is_first=True), *goal.complete_pair(8.0)]
    given += goal.serve(8.0, 12.0, is_first=False)
    assert given == [0.0, 1.0, 2.0, 3.0, 8.0, 9.0, 10.0, 11.0]
    assert goal.n_missed == 5


def test_times_before_the_first_picture_are_not_planned() -> None:
    """A picture that begins 5.2 s after the sound also serves the last time before it."""
    window = {"fps": 2.0, "start_s": 0.0, "end_s": None, "first_s": 5.2}
    assert time_grid(9.0, max_frames=None, **window) == (5.0, 0.5, 8)
    assert time_grid(9.0, max_frames=4, **window) == (5.0, 1.0, 4)


@pytest.mark.parametrize("name", ["a.jpg", "b.png", "c.webp", "-%03d.png", "no_name", "d.mp4"])
def test_a_still_picture_is_a_video_of_one_frame(name: str, tmp_path: Path) -> None:
    picture = np.full((48, 64, 3), (200, 30, 10), np.uint8)  # BGR: blue
    kind = Path(name).suffix if name[0] in "abc" else ".png"
    cv2.imencode(kind, picture)[1].tofile(tmp_path / name)
    [batch] = sample_frames(tmp_path / name, fps=2)
    assert batch.times_s.tolist() == [0.0]
    assert np.abs(batch.frames[0].mean((0, 1)) - (10, 30, 200)).max() < 4


@pytest.mark.parametrize(
    ("orientation", "corner"),
    list(enumerate([(0, 0), (0, -1), (-1, -1), (-1, 0)] * 2, start=1)),
)
def test_a_photo_lies_as_its_exif_says(
    orientation: int, corner: tuple[int, int], tmp_path: Path
) -> None:
    """The stored picture is white in its upper left corner."""
    stored = np.zeros((32, 64, 3), np.uint8)
    stored[:8, :8] = 255
    jpeg = cv2.imencode(".jpg", stored)[1].tobytes()
    exif = b"Exif\0\0II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x112, 3, 1, orientation, 0, 0)
    (tmp_path / "photo.jpg").write_bytes(
        jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]
    )
    [batch] = sample_frames(tmp_path / "photo.jpg", fps=1)
    shown = batch.frames[0][..., 0]
    assert shown.shape == ((64, 32) if orientation > 4 else (32, 64))
    white = np.argwhere(shown > 128).mean(axis=0) > np.array(shown.shape) / 2
    assert tuple(white) == tuple(side < 0 for side in corner)


def test_a_name_says_nothing_about_what_is_inside(tmp_path: Path) -> None:
    path = tmp_path / "a b:%03d.png"
    path.write_bytes((DATA / "h264.mp4").read_bytes())
    assert sampled(path, fps=10) == TEN_PER_SECOND


def test_memory_does_not_grow_with_the_frames_that_are_sampled(tmp_path: Path) -> None:
    path = tmp_path / "large.mp4"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height = 1920, 1080
        for _ in range(120):
            frame = av.VideoFrame(1920, 1080, "yuv420p")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    limits = VideoLimits(max_memory_bytes=300 << 20)  # the frames are 373 MB
    batches = sample_frames(path, fps=25, target_size=(32, 18), limits=limits)
    assert sum(len(batch.frames) for batch in batches) == 120


def test_jumping_to_key_frames_gives_the_frames_of_plain_decoding() -> None:
    path = DATA / "faststart.mp4"
    every = {
        float(time_s): frame
        for batch in sample_frames(path, fps=10)
        for frame, time_s in zip(batch.frames, batch.times_s, strict=True)
    }
    [batch] = list(sample_frames(path, fps=0.25, start_s=0.9))
    assert batch.times_s.tolist() == [0.9, 4.9]
    for frame, time_s in zip(batch.frames, batch.times_s, strict=True):
        assert np.array_equal(frame, every[float(time_s)])


def faststart_index() -> FrameIndex:
    with video_worker.open_film(str(DATA / "faststart.mp4")) as film:
        index = index_film(film, lambda _: None)
    assert index is not None
    return index


def test_a_far_goal_is_jumped_to_and_a_near_one_is_not() -> None:
    """A key frame comes every second."""
    index = faststart_index()
    assert frames.jump_target(index, Goals(Goal(0.5, 1.0, 5, 0.02)), 0.0) is None
    key = frames.jump_target(index, Goals(Goal(5.5, 1.0, 5, 0.02)), 0.0)
    assert key is not None and key.time_s == 5.0


def test_a_jump_that_lands_too_late_is_made_good(monkeypatch: pytest.MonkeyPatch) -> None:
    seek = Film.seek
    monkeypatch.setattr(Film, "seek", lambda film, *_: seek(film, 5.0, 0))
    goal = Goal(start_s=0.0, step_s=2.0, n=3, slack_s=0.02)
    path = str(DATA / "faststart.mp4")
    shown = frames.shown_pictures(
        lambda _: video_worker.open_film(path), [faststart_index()], Goals(goal), lambda _: None
    )
    assert [round(time_s, 6) for _, time_s, _ in shown] == [0.0, 2.0, 4.0]
    assert goal.n_missed == 0


# --- sizes and batches


def test_batches_are_uint8_rgb_of_at_most_the_size_asked_for() -> None:
    batches = list(sample_frames(DATA / "h264.mp4", fps=10, batch_frames=8))
    assert [batch.frames.shape for batch in batches] == [(8, 64, 128, 3)] * 3 + [(6, 64, 128, 3)]
    assert all(batch.frames.dtype == np.uint8 for batch in batches)
    assert all(batch.frames.flags.writeable for batch in batches)
    assert all(batch.times_s.dtype == np.float64 for batch in batches)
    red, blue = batches[0].frames[0, 4, 4], batches[0].frames[0, 4, 124]
    assert red[0] > 180 and red[2] < 80 and blue[2] > 180 and blue[0] < 80


def test_stretch_fills_the_size_and_pad_keeps_the_shape_between_black_bars() -> None:
    path = DATA / "h264.mp4"
    options: dict[str, Any] = {"fps": 1, "end_s": 0.5, "target_size": (64, 64)}
    [stretched] = list(sample_frames(path, **options))
    [padded] = list(sample_frames(path, fit="pad", **options))
    assert stretched.frames.shape == padded.frames.shape == (1, 64, 64, 3)
    assert stretched.frames[0, 4, 4, 0] > 180
    assert padded.frames[0, :16].max() == 0 and padded.frames[0, 48:].max() == 0
    assert padded.frames[0, 18, 4, 0] > 180


@pytest.mark.parametrize(
    ("rule", "size", "expected"),
    [
        (long_side_rule(448, 28), (1920, 1080), (448, 252)),
        (long_side_rule(448, 28), (1080, 1920), (252, 448)),
        (long_side_rule(450, 28), (4000, 10), (448, 28)),
        (long_side_rule(448, 28), (100, 50), (112, 56)),
        (long_side_rule(640), (1281, 721), (640, 360)),
    ],
)
def test_the_long_side_rule_caps_and_rounds(
    rule: Any, size: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert rule(*size, 16) == expected


def test_a_size_rule_sees_the_size_after_rotation() -> None:
    batches = sample_frames(
        DATA / "rotated_90.mp4", fps=1, end_s=0.5, target_size=lambda w, h, n: (w // 2, h // 2)
    )
    assert next(batches).frames.shape == (1, 64, 32, 3)


# --- what cannot be read


def make_empty(folder: Path) -> Path:
    (folder / "empty.mp4").touch()
    return folder / "empty.mp4"


def make_text(folder: Path) -> Path:
    (folder / "notes.mp4").write_text("This is not a video.\n" * 100)
    return folder / "notes.mp4"


def make_playlist(folder: Path) -> Path:
    lines = ["#EXTM3U", "#EXTINF:3,", str(DATA / "start_5s.ts"), "#EXT-X-ENDLIST"]
    (folder / "list.m3u8").write_text("\n".join(lines))
    return folder / "list.m3u8"


def make_concat_script(folder: Path) -> Path:
    (folder / "a.mp4").write_bytes((DATA / "h264.mp4").read_bytes())
    (folder / "list.ffconcat").write_text("ffconcat version 1.0\nfile a.mp4\n")
    return folder / "list.ffconcat"


def make_without_moov(folder: Path) -> Path:
    whole = (DATA / "h264.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: whole.index(b"moov") - 4])
    return folder / "cut.mp4"


def make_zero_frames(folder: Path) -> Path:
    whole = (DATA / "fragmented.mp4").read_bytes()
    (folder / "none.mp4").write_bytes(whole[: whole.index(b"moof") - 4])
    return folder / "none.mp4"


def make_zeroed_frames(folder: Path) -> Path:
    whole = (DATA / "h264.mp4").read_bytes()
    start, end = whole.index(b"mdat") + 4, whole.index(b"moov") - 4
    (folder / "zeroed.mp4").write_bytes(whole[:start] + bytes(end - start) + whole[end:])
    return folder / "zeroed.mp4"


def make_pipe(folder: Path) -> Path:
    os.mkfifo(folder / "pipe.mp4")
    return folder / "pipe.mp4"


def make_link_to_itself(folder: Path) -> Path:
    (folder / "loop.mp4").symlink_to(folder / "loop.mp4")
    return folder / "loop.mp4"


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda folder: folder / "missing.mp4", "no file"),
        (lambda folder: folder, "directory"),
        (make_empty, "empty"),
        (make_text, "not a video"),
        (make_playlist, "not a video"),
        (make_concat_script, "not a video"),
        (lambda folder: DATA / "audio_only.m4a", "not a video"),
        (make_without_moov, "not a video"),
        (make_zero_frames, "no video frames"),
        (make_zeroed_frames, "can be decoded"),
        (make_pipe, "not a regular file"),
        (make_link_to_itself, "Cannot read"),
    ],
)
def test_an_unreadable_file_is_one_sentence_that_names_it(
    make: Any, says: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = make(tmp_path)
    for read in (probe_video, lambda p: list(sample_frames(p, fps=1))):
        with pytest.raises(VideoError) as caught:
            read(path)
        message = str(caught.value)
        assert says in message and str(path) in message
        assert "\n" not in message and message.endswith(".")
    assert capfd.readouterr() == ("", "")


@pytest.mark.process
@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9/a.mp4", "rtsp://127.0.0.1/a", "file:a.mp4", "concat:a.mp4|b.mp4"]
)
def test_a_url_never_reaches_the_decoder(url: str, workers: list[subprocess.Popen[bytes]]) -> None:
    with pytest.raises(VideoError, match="looks like a URL"):
        probe_video(url)
    assert not workers


def test_a_file_without_read_permission_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "secret.mp4"
    path.write_bytes((DATA / "h264.mp4").read_bytes())
    path.chmod(0)
    is_root = os.geteuid() == 0
    if is_root:  # root may read everything
        os.seteuid(65534)
    try:
        with pytest.raises(VideoError, match=r"secret\.mp4 \(Permission denied\)"):
            probe_video(path)
    finally:
        if is_root:
            os.seteuid(0)


@pytest.mark.parametrize("name", ["concat:a.mp4", "frame %03d.mp4", "-i.mp4", "ünïcode 影.mp4"])
def test_a_real_file_with_an_odd_name_is_read(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes((DATA / "h264.mp4").read_bytes())
    assert sampled(Path(name), fps=1) == [(0.0, 0), (1.0, 10), (2.0, 20)]


@pytest.mark.parametrize("name", ["faststart.mp4", "long.mkv"])
def test_a_file_cut_in_the_middle_gives_what_decodes_and_a_warning(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = (DATA / name).read_bytes()
    path = tmp_path / name
    path.write_bytes(whole[: len(whole) * 7 // 10])
    assert probe_video(path).is_truncated
    n_whole = probe_video(DATA / name).n_frames
    with pytest.warns(VideoWarning, match="cut short"):
        got = sampled(path, fps=10 if name == "faststart.mp4" else 1)
    numbers = [number for _, number in got]
    assert numbers == list(range(len(numbers)))
    assert n_whole // 4 < len(numbers) < n_whole
    assert capfd.readouterr().out == ""


def test_damage_in_the_middle_does_not_hide_what_follows(tmp_path: Path) -> None:
    whole = bytearray((DATA / "faststart.mp4").read_bytes())
    start = whole.index(b"mdat") + 4
    middle = start + (len(whole) - start) // 2
    whole[middle : middle + 300] = bytes(300)
    path = tmp_path / "damaged.mp4"
    path.write_bytes(whole)
    with pytest.warns(VideoWarning, match="no decodable frame"):
        got = sampled(path, fps=10)
    assert got[0] == (0.0, 0) and got[-1] == (5.9, 59)
    assert 30 < len(got) < 60


def test_a_whole_file_gives_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("h264.mp4", "vfr.mp4", "start_5s.mkv", "long.mkv"):
            assert sampled(DATA / name, fps=1)


def test_a_start_beyond_the_end_is_refused_with_the_duration() -> None:
    with pytest.raises(VideoError, match=r"at 0:03\.50: the video is 0:03\.00 long"):
        list(sample_frames(DATA / "h264.mp4", fps=1, start_s=3.5))
    with pytest.raises(VideoError, match=r"at 50:00: the video is 0:03 long"):
        list(sample_frames(DATA / "h264.mp4", fps=1, start_s=3000))


@pytest.mark.parametrize(
    "options",
    [
        {"fps": 0},
        {"fps": float("nan")},
        {"fps": 1, "max_frames": 0},
        {"fps": 1, "start_s": -1},
        {"fps": 1, "start_s": 2, "end_s": 2},
        {"fps": 1, "fit": "crop"},
        {"fps": 1, "batch_frames": 0},
    ],
)
def test_an_argument_out_of_range_is_refused_at_the_call(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="must be"):
        sample_frames(DATA / "h264.mp4", **options)


def test_a_frame_size_out_of_range_is_refused() -> None:
    with pytest.raises(ConfigError, match="0x64"):
        list(sample_frames(DATA / "h264.mp4", fps=1, target_size=(0, 64)))


# --- limits, and no process left behind


def test_a_picture_above_the_pixel_limit_is_refused_with_its_size() -> None:
    with pytest.raises(VideoError, match="4096x4096"):
        probe_video(DATA / "large.mp4", VideoLimits(max_pixels=4096 * 4095))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the address space")
def test_a_picture_above_the_memory_limit_is_refused() -> None:
    with pytest.raises(VideoError, match=r"large\.mp4"):
        probe_video(DATA / "large.mp4", VideoLimits(max_memory_bytes=8 << 20))
    assert probe_video(DATA / "large.mp4").width_px == 4096


@pytest.mark.process
def test_a_worker_without_progress_is_ended(workers: list[subprocess.Popen[bytes]]) -> None:
    with pytest.raises(VideoError, match="no progress"):
        probe_video(DATA / "h264.mp4", VideoLimits(no_progress_s=1e-4))
    assert [worker.returncode for worker in workers] == [-signal.SIGKILL]


def test_a_slow_consumer_is_not_taken_for_a_stuck_worker() -> None:
    """The watchdog's clock runs only while the caller waits for the worker."""
    with video_process.DecoderProcess(DATA / "h264.mp4", VideoLimits()) as decoder:
        assert decoder._wait_until_s is None
        assert decoder.receive()[0]["kind"] == "info"
        assert decoder._wait_until_s is None


@pytest.mark.process
def test_a_worker_that_dies_is_reported(workers: list[subprocess.Popen[bytes]]) -> None:
    batches = sample_frames(DATA / "long.mkv", fps=1, batch_frames=1, target_size=(1024, 512))
    next(batches)
    workers[0].kill()
    with pytest.raises(VideoError, match=r"ended unexpectedly \(signal 9\)"):
        list(batches)


@pytest.mark.process
def test_closing_the_iterator_early_ends_the_worker(
    workers: list[subprocess.Popen[bytes]],
) -> None:
    batches = sample_frames(DATA / "long.mkv", fps=1, batch_frames=1, target_size=(1024, 512))
    next(batches)
    assert workers[0].poll() is None
    batches.close()  # type: ignore[attr-defined]
    assert workers[0].returncode is not None


@pytest.mark.process
def test_ctrl_c_leaves_no_worker_behind() -> None:
    script = f"""
        import time
        from retake_edge.video import read as video
        from retake_edge.video import process as video_process
        start = video_process.DecoderProcess.__enter__
        def enter(self):
            started = start(self)
            print(self.process.pid, flush=True)
            return started
        video_process.DecoderProcess.__enter__ = enter
        for batch in video.sample_frames({str(DATA / "long.mkv")!r}, fps=1, batch_frames=1):
            print("batch", flush=True)
            time.sleep(60)
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        worker = int(process.stdout.readline())
        assert process.stdout.readline() == "batch\n"
        os.kill(worker, 0)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in errors
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)


@pytest.mark.process
def test_the_worker_starts_without_the_rest_of_the_package() -> None:
    code = "import sys, retake_edge.video.worker; print(*sorted(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    modules = result.stdout.split()
    ours = {name for name in modules if name.startswith("retake_edge.")}
    names = "worker frames goal index mark obu packets picture pieces stream"
    parts = names.split()
    video = {"retake_edge.video", *(f"retake_edge.video.{part}" for part in parts)}
    assert ours == {"retake_edge.stages", "retake_edge.version", *video}
    assert not {"numpy", "cv2", "typer"} & set(modules)
