"""Parts of a video from one process, and what happens between sampled frames."""

import shutil
import subprocess

import numpy as np
import pytest

from retake_edge.bench.scenes.brief import make_brief_scene
from retake_edge.bench.scenes.render import write_video
from retake_edge.errors import VideoError
from retake_edge.video.glance import SIDE_PX, Glance, Glanced, Moment
from retake_edge.video.read import open_video, sample_frames
from retake_edge.video.sampling import SampleTimes

SCENE = make_brief_scene(4, 24, n_cards=3, card_s=0.25, difficulty="hard")


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_video(SCENE, tmp_path_factory.mktemp("parts") / "scene.mp4")


def joined(batches):
    batches = list(batches)
    return (
        np.concatenate([batch.frames for batch in batches]),
        np.concatenate([batch.times_s for batch in batches]),
    )


def test_parts_are_what_sampling_them_gives_in_any_order(video):
    with open_video(video) as reader:
        for start_s, fps in ((10.0, 8.0), (2.0, 4.0), (10.0, 2.0)):
            n = round(4 * fps)
            wanted = SampleTimes(start_s, 1 / fps, n)
            part = joined(reader.frames(wanted, (112, 112), fit="pad"))
            sampled = sample_frames(
                video,
                fps=fps,
                start_s=start_s,
                end_s=start_s + 4,
                target_size=(112, 112),
                fit="pad",
            )
            for ours, theirs in zip(part, joined(sampled), strict=True):
                np.testing.assert_array_equal(ours, theirs)


def test_a_part_beyond_the_end_is_empty(video):
    with open_video(video) as reader:
        assert list(reader.frames(SampleTimes(30.0, 0.5, 4), (28, 28))) == []
        assert len(joined(reader.frames(SampleTimes(0.0, 0.5, 4), (28, 28)))[1]) == 4


def test_no_process_is_left_where_the_file_is_no_video(tmp_path):
    file = tmp_path / "no.mp4"
    file.write_bytes(b"no video")
    with pytest.raises(VideoError, match=r"no\.mp4"), open_video(file):
        pass


FIRST, EVERY = SampleTimes(0.0, 0.5, 48), SampleTimes(0.0, 0.125, 24 * 8)


def test_cards_between_the_samples_are_moments(video):
    with open_video(video) as reader:
        found = reader.glance(FIRST, EVERY).moments
    hidden = [c for c in SCENE.cards if not sampled_inside(c, FIRST.step_s)]
    assert hidden
    for card in hidden:
        assert any(abs(moment.start_s - card.start_s) < 0.01 for moment in found)


@pytest.mark.ffmpeg
@pytest.mark.process
@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="there is no ffmpeg")
@pytest.mark.parametrize("codec", ["libx264", "libx265", "libvpx-vp9", "mpeg4", "mjpeg"])
def test_frames_and_moments_of_one_pass_are_those_of_two(video, tmp_path, codec):
    file = tmp_path / ("scene.webm" if "vp9" in codec else "scene.mkv")
    command = ["ffmpeg", "-v", "error", "-i", str(video), "-c:v", codec, "-g", "40", str(file)]
    subprocess.run(command, check=True)
    size, ends = (112, 112), []
    alone = joined(sample_frames(file, fps=2, target_size=size))
    glancing = sample_frames(
        file, fps=2, target_size=size, glance=lambda *_: EVERY, on_end=ends.append
    )
    both = joined(glancing)
    for ours, theirs in zip(both, alone, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    with open_video(file) as reader:
        apart = reader.glance(FIRST, EVERY)
    glanced = ends[0].glanced
    assert glanced.moments == apart.moments != []
    np.testing.assert_array_equal(glanced.seen_s, alone[1])
    np.testing.assert_array_equal(glanced.seen, apart.seen)


def test_nothing_is_glanced_at_unless_asked_for_nor_where_reading_goes_on(video):
    ends = []
    list(sample_frames(video, fps=2, on_end=ends.append))
    list(sample_frames(video, fps=2, glance=lambda *_: EVERY, after_s=4.0, on_end=ends.append))
    assert [end.glanced for end in ends] == [None, None]


def sampled_inside(card, step_s):
    return np.ceil(card.start_s / step_s) * step_s < card.end_s


def moments_of(levels, step_s=0.25):
    """What a glance finds in frames of one grey level each, one sampled a second."""
    glance = Glance(np.arange(30.0).tolist())
    for i, level in enumerate(levels):
        glance.add(i * step_s, np.full((SIDE_PX, SIDE_PX, 3), level, np.uint8))
    return glance.found().moments


def test_a_cut_and_a_ramp_are_no_moments_but_a_flash_is():
    assert moments_of([10, 10, 90, 90, 90, 90, 90, 90, 90]) == []
    assert moments_of([10, 11, 12, 13, 14, 15, 16, 17, 18]) == []
    assert moments_of([10] * 5 + [90, 90] + [10] * 10) == [Moment(1.25, 80.0)]


def test_where_all_moves_only_what_stands_out_is_a_moment():
    restless = [10, 40, 40, 40] * 20
    assert moments_of(restless) == []
    restless[42] = 90
    assert moments_of(restless) == [Moment(10.5, 50.0)]


def test_moments_come_in_order_of_novelty():
    levels = [10, 40, 10, 10] + [10] * 20 + [10, 10, 90, 10] + [10] * 4
    assert moments_of(levels) == [Moment(6.5, 80.0), Moment(0.25, 30.0)]
    assert moments_of([]) == []


def test_what_no_kept_frame_shows_is_a_moment_too():
    levels = np.full(40, 10, np.uint8)
    levels[[2, 3, 8, 37]] = 90, 90, 60, 70
    seen = np.repeat(levels, 12 * 12 * 3).reshape(-1, 12, 12, 3)
    glanced = Glanced([], np.arange(40.0), seen)
    every_fourth = set(range(0, 40, 4))

    def dropped(kept):
        return glanced.dropped(np.isin(np.arange(40), list(kept)))

    assert dropped(range(40)) == dropped(()) == []
    ends = [Moment(2.0, 80.0), Moment(37.0, 60.0)]
    assert dropped(every_fourth) == ends  # 8 is kept itself
    assert dropped(every_fourth - {8}) == [ends[0], ends[1], Moment(8.0, 50.0)]
    assert dropped(every_fourth | {3}) == [ends[1]]  # 3 shows what 2 does
