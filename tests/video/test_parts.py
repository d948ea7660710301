"""Parts of a video from one process, and what happens between sampled frames."""

import numpy as np
import pytest

from retake_edge.bench.scenes.brief import make_brief_scene
from retake_edge.bench.scenes.render import write_video
from retake_edge.errors import VideoError
from retake_edge.video.glance import SIDE_PX, Moment, unseen_moments
from retake_edge.video.read import FrameBatch, open_video, sample_frames
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


def test_cards_between_the_samples_are_moments(video):
    step_s = 0.5
    with open_video(video) as reader:
        every = SampleTimes(0.0, step_s / 4, 24 * 8)
        frames = reader.frames(every, (SIDE_PX, SIDE_PX))
        found = unseen_moments(frames, np.arange(0.0, 24.0, step_s))
    hidden = [c for c in SCENE.cards if not sampled_inside(c, step_s)]
    assert hidden
    for card in hidden:
        assert any(abs(moment.start_s - card.start_s) < 0.01 for moment in found)


def sampled_inside(card, step_s):
    return np.ceil(card.start_s / step_s) * step_s < card.end_s


def small(levels, step_s=0.25):
    frames = np.repeat(np.array(levels, np.uint8), 4 * 3).reshape(-1, 2, 2, 3)
    return [FrameBatch(frames, np.arange(len(levels)) * step_s, step_s)]


def test_a_cut_and_a_ramp_are_no_moments_but_a_flash_is():
    cut = [10, 10, 90, 90, 90, 90, 90, 90, 90]
    ramp = [10, 11, 12, 13, 14, 15, 16, 17, 18]
    assert unseen_moments(small(cut), np.arange(30.0)) == []
    assert unseen_moments(small(ramp), np.arange(30.0)) == []
    flash = [10] * 5 + [90, 90] + [10] * 10
    assert unseen_moments(small(flash), np.arange(30.0)) == [Moment(1.25, 80.0)]


def test_where_all_moves_only_what_stands_out_is_a_moment():
    restless = [10, 40, 40, 40] * 20
    assert unseen_moments(small(restless), np.arange(30.0)) == []
    restless[42] = 90
    [moment] = unseen_moments(small(restless), np.arange(30.0))
    assert moment == Moment(10.5, 50.0)


def test_moments_come_in_order_of_novelty_over_any_batches():
    levels = [10, 40, 10, 10] + [10] * 20 + [10, 10, 90, 10] + [10] * 4
    [whole] = small(levels)
    batches = [
        FrameBatch(whole.frames[i : i + 3], whole.times_s[i : i + 3], 0.25) for i in range(0, 32, 3)
    ]
    expected = [Moment(6.5, 80.0), Moment(0.25, 30.0)]
    assert unseen_moments(batches, np.arange(30.0)) == expected
    assert unseen_moments([whole], np.arange(30.0)) == expected
