"""The sampling benchmark, and sampling that follows change on real files of several encoders."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retake_edge.bench.sampling.files import ENCODINGS, write_files
from retake_edge.bench.sampling.report import sampling_results, sampling_table
from retake_edge.bench.sampling.run import (
    Counted,
    SamplingSettings,
    event_scene,
    n_events_shown,
    run_sampling,
)
from retake_edge.bench.scenes.events import EVENT_KINDS, GRID, make_event_scene
from retake_edge.bench.scenes.render import render_frame
from retake_edge.errors import ConfigError
from retake_edge.video.change import change_strengths
from retake_edge.video.obu import HiddenPictures
from retake_edge.video.read import probe_video, sample_frames
from retake_edge.video.sampling import SampleTimes, sample_times

SECONDS, N_EVENTS, LIMIT = 192.0, 6, 48
PX = 64
CHANGE: dict[str, Any] = {
    "fps": 2.0,
    "max_frames": LIMIT,
    "sampling": "change",
    "frames_per_step": 2,
}
SCENE = make_event_scene("still", 5, SECONDS, N_EVENTS)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    folder = tmp_path_factory.mktemp("files")
    return write_files(SCENE, folder, tuple(ENCODINGS), GRID, PX)


@pytest.mark.process
@pytest.mark.parametrize("encoding", ["h264 crf", "h264 cbr", "vp9", "av1"])
def test_events_that_even_times_miss_are_shown(files: Mapping[str, Path], encoding: str) -> None:
    info = probe_video(files[encoding])
    wanted = sample_times(info, **CHANGE)
    even = sample_times(info, **(CHANGE | {"sampling": "even"}))
    assert wanted.n <= LIMIT and even.n == LIMIT
    assert n_events_shown(SCENE.cards, wanted) >= N_EVENTS - 1
    assert n_events_shown(SCENE.cards, even) < N_EVENTS - 1


@pytest.mark.process
def test_events_stand_out_in_prores(tmp_path: Path) -> None:
    """Not in pictures of 64 px, which are mostly headers there."""
    scene, limits = make_event_scene("still", 5, 48.0, 2), CHANGE | {"max_frames": 12}
    path = write_files(scene, tmp_path, ("prores",), GRID, 256)["prores"]
    info = probe_video(path)
    even = sample_times(info, **(limits | {"sampling": "even"}))
    assert n_events_shown(scene.cards, sample_times(info, **limits)) == 2
    assert n_events_shown(scene.cards, even) < 2


@pytest.mark.process
def test_where_all_packets_have_one_size_times_are_even(
    files: Mapping[str, Path],
) -> None:
    info = probe_video(files["raw"])
    assert info.packets is not None and len(set(info.packets.n_bytes.tolist())) == 1
    assert sample_times(info, **CHANGE) == sample_times(info, **(CHANGE | {"sampling": "even"}))


@pytest.mark.process
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_frames_are_those_of_the_wanted_times(files: Mapping[str, Path], encoding: str) -> None:
    path = files[encoding]
    wanted = sample_times(probe_video(path), **CHANGE)
    batches = list(sample_frames(path, batch_frames=8, **CHANGE))
    times_s = np.concatenate([batch.times_s for batch in batches])
    assert len(times_s) == wanted.n
    # A picture's own time, at most one picture before the wanted one.
    assert ((wanted.all_s + 0.02 - times_s >= 0) & (wanted.all_s - times_s < 1 / GRID)).all()
    assert {batch.step_s for batch in batches} == {wanted.even_step_s}
    for batch in batches:
        for time_s, frame in zip(batch.times_s, batch.frames, strict=True):
            drawn = render_frame(SCENE, round(time_s * GRID) / GRID, PX)
            assert np.abs(frame.astype(int) - drawn).mean() < 14, time_s


@pytest.mark.process
def test_reading_goes_on_after_any_frame(files: Mapping[str, Path]) -> None:
    path, size = files["h264 crf"], (16, 16)
    batches = list(sample_frames(path, target_size=size, **CHANGE))
    times_s = np.concatenate([batch.times_s for batch in batches]).tolist()
    for n in (1, 2, 17, LIMIT // 2, len(times_s) - 1):
        rest = sample_frames(path, target_size=size, after_s=times_s[n - 1], **CHANGE)
        assert [t for batch in rest for t in batch.times_s.tolist()] == times_s[n:]


@pytest.mark.parametrize("kind", EVENT_KINDS)
def test_events_stay_a_second_and_are_apart(kind: str) -> None:
    scene = make_event_scene(kind, 3, 600.0, 20)
    assert scene == make_event_scene(kind, 3, 600.0, 20)
    starts = np.array([card.start_s for card in scene.cards])
    assert len(starts) == 20 and (np.diff(starts) > 2).all()
    assert {card.end_s - card.start_s for card in scene.cards} == {1.0}
    assert (starts * GRID % 1 == 0).all() and starts[-1] < 599
    with pytest.raises(ValueError, match="do not fit"):
        make_event_scene(kind, 3, 50.0, 20)


def test_an_event_is_shown_by_a_picture_inside_it_alone() -> None:
    first = SCENE.cards[0].start_s
    cases = {first - 0.03: 0, first - 0.01: 1, first: 1, first + 0.99: 0, first + 0.95: 1}
    for time_s, n in cases.items():
        wanted = SampleTimes(time_s, 1.0, 1)
        assert n_events_shown(SCENE.cards, wanted) == n, time_s


@pytest.mark.process
def test_a_run_counts_every_file_and_its_table_says_so() -> None:
    settings = SamplingSettings(
        n_videos=1,
        seconds=96.0,
        n_events=4,
        limits=(16, 24),
        kinds=("still",),
        encodings=("h264 crf",),
        size_px=48,
    )
    counted = run_sampling(settings)
    assert [(c.limit, c.sampling) for c in counted] == [
        *((16, "even"), (16, "change"), (24, "even"), (24, "change"))
    ]
    assert all(c.n_events == 4 and 0 <= c.n_shown <= 4 and c.n_frames <= c.limit for c in counted)
    assert event_scene(settings, "still", 0) != event_scene(settings, "still", 1)
    assert sampling_table(sampling_results(counted)).count("| still | h264 crf |") == 2


def test_the_table_says_how_many_times_as_many_are_shown() -> None:
    case = "still", "vp9", 512
    counted = [
        Counted(*case, "even", 0, 4, 32, 512, 14.1),
        Counted(*case, "change", 0, 30, 32, 500, 40.0),
    ]
    table = sampling_table(sampling_results(counted))
    assert "| still | vp9 | 512 | 12.5 % of 32 | 93.8 % of 32 | 7.5 | 14.1, 40.0 |" in table


@pytest.mark.parametrize(
    "values", [{"n_videos": 0}, {"kinds": ("day",)}, {"encodings": ("av2",)}, {"limits": (0,)}]
)
def test_settings_that_cannot_work_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        SamplingSettings(**values)  # type: ignore[arg-type]


@pytest.mark.process
def test_bytes_of_pictures_that_are_shown_later_count_for_them(files: Mapping[str, Path]) -> None:
    """AV1 packs the pictures of an event into a packet up to 16 pictures earlier."""
    packets = probe_video(files["av1"]).packets
    assert packets is not None
    strengths = change_strengths(packets)
    for card in SCENE.cards:
        near = np.flatnonzero(np.abs(packets.times_s - card.start_s) < 2.5)
        largest_s = packets.times_s[near[strengths[near].argmax()]]
        assert card.start_s <= largest_s < card.end_s


def test_packets_that_are_no_av1_tell_nothing() -> None:
    rng = np.random.default_rng(0)
    for n in (0, 1, 2, 7, 40, 400):
        for _ in range(50):
            hidden = HiddenPictures(rng.bytes(n))
            for distance, n_bytes in hidden.ahead(rng.bytes(n)):
                assert 0 < distance < 128 and 0 < n_bytes <= n
