"""What is known of a read video, and what the version before called it."""

from dataclasses import asdict

import pytest

from retake_edge.session.video_map import VideoStats

STATS = VideoStats("a.mp4", 3.0, 6, 3, 2, 3, 48, 48, 1.0, 512, 1024, "nothing", "no attention")


def test_the_figures_of_a_video_are_read_as_they_were_written():
    assert VideoStats.from_dict(asdict(STATS)) == STATS


def test_the_figures_that_the_version_before_wrote_are_read():
    old = asdict(STATS)
    old["why_whole"] = old.pop("not_compressible")
    assert VideoStats.from_dict(old) == STATS


def test_figures_that_nobody_wrote_are_refused():
    with pytest.raises(TypeError):
        VideoStats.from_dict(asdict(STATS) | {"colour": 1})
