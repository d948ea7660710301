"""Files of every kind, made with ffmpeg and read as ffmpeg reads them (scripts/video_matrix).

The frames carry their numbers, so times are checked against what was drawn, too. Where ffmpeg is
missing, the small files of tests/data/video serve (test_video.py).
"""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from video_matrix.bytes_of import turn
from video_matrix.case import Case, case, even, make_file
from video_matrix.cases import all_cases
from video_matrix.cases_codecs import X264
from video_matrix.compare import Verdict, compare, delayed
from video_matrix.run import run

from retake_edge.video.read import sample_frames

pytestmark = [
    pytest.mark.ffmpeg,
    pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="there is no ffmpeg"),
]
# Every fourth file, of every kind; `python scripts/video_matrix` compares all.
NAMES = [one.name for one in all_cases()][::4]


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Verdict]:
    """The verdict on every file; they are made and compared several at a time."""
    jobs = os.cpu_count() or 2
    return {v.name: v for v in run(NAMES, tmp_path_factory.mktemp("matrix"), jobs)}


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_read_as_ffmpeg_reads_it(name: str, verdicts: dict[str, Verdict]) -> None:
    assert verdicts[name].faults == []


def judged(one: Case, folder: Path) -> str:
    path = make_file(one.name, one.steps, folder / "made", folder / "sources")
    return "; ".join(compare(one, path).faults)


def test_the_comparison_sees_a_picture_that_comes_too_late(tmp_path: Path) -> None:
    assert "shows" in judged(case("late.mp4", X264, truth=delayed(even(), 0.3)), tmp_path)


def test_the_comparison_sees_a_wrong_length(tmp_path: Path) -> None:
    assert "length" in judged(case("long.mp4", X264, truth=replace(even(), end_s=5.0)), tmp_path)


def test_the_comparison_sees_a_picture_that_lies_wrong(tmp_path: Path) -> None:
    steps = (f"{X264} plain.mp4", turn("turned.mp4", "plain.mp4", 0, 1, -1, 0))
    assert "corners" in judged(case("turned.mp4", *steps), tmp_path)


def test_the_comparison_sees_a_wrong_shape(tmp_path: Path) -> None:
    assert "shape" in judged(case("wide.mp4", X264, truth=even(aspect=2.0)), tmp_path)


def test_the_comparison_sees_the_wrong_stream(tmp_path: Path) -> None:
    assert "shows" in judged(case("other.mp4", f"-i src:25:128:228 {X264}"), tmp_path)


def test_the_comparison_sees_combed_lines(tmp_path: Path) -> None:
    woven = "-i src:50:0:200 -vf tinterlace=interleave_top,setfield=prog -c:v ffv1"
    assert "combed" in judged(case("woven.mkv", woven, mark="interlaced", blur=255), tmp_path)


def test_the_comparison_sees_a_film_where_there_should_be_none(tmp_path: Path) -> None:
    assert "there is no film" in judged(case("film.mp4", X264, mark="refused"), tmp_path)


def test_pictures_that_only_pass_for_key_frames_are_not_jumped_to(tmp_path: Path) -> None:
    path = make_file("rpza.mov", ("-c:v rpza",), tmp_path / "made", tmp_path / "sources")
    close, far = (
        {
            float(time_s): frame
            for batch in sample_frames(path, fps=fps)
            for time_s, frame in zip(batch.times_s, batch.frames, strict=True)
        }
        for fps in (25, 0.4)
    )
    assert len(far) == 2
    for time_s, frame in far.items():
        np.testing.assert_array_equal(frame, close[time_s])
