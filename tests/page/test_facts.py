"""What the page is told of a video: figures, and words for what was left out."""

from dataclasses import replace

import numpy as np
import pytest
from report_support import END_S, N_FRAMES, sample_report

from retake_edge.page.facts import part_of, span_facts, video_facts
from retake_edge.page.words import left_out, share
from retake_edge.session.evidence import Span


def facts(report=None, **changes):
    report = report or sample_report()
    sampling = {**report.config["sampling"], **changes}
    pictures = [(picture.time_s, picture.jpeg) for picture in report.thumbnails]
    return video_facts(report.video, report.video_map, sampling, pictures)


def test_a_track_that_is_level_is_left_out():
    report = sample_report()
    assert max(facts(report)["kept"]) == pytest.approx((1 + 0.25 + 0.25) / 3)
    frames = np.repeat(np.arange(N_FRAMES, dtype=np.int32), 2)
    level = replace(report.video_map, cell_frames=np.stack([frames] * 3))
    assert facts(replace(report, video_map=level))["kept"] is None
    whole = replace(report, video=replace(report.video, reduced_by="nothing"))
    assert facts(whole)["kept"] is None


def test_pictures_have_the_shape_of_the_video():
    assert facts()["shape"] == [80, 60]
    assert facts(replace(sample_report(), thumbnails=[]))["shape"] == [16, 9]


def test_the_part_that_was_looked_at_ends_with_the_video_or_before():
    report = sample_report()
    times = report.video_map.frame_times_s
    sampling = {"start_s": 20.0, "end_s": 500.0}
    assert part_of(report.video, times, sampling) == (20.0, END_S)
    assert part_of(report.video, times, {"start_s": 0.0, "end_s": None}) == (0.0, END_S)


def test_spans_that_would_read_as_one_are_one_and_the_heaviest_is_first():
    spans = [Span(40.0, 44.0, 0.3, ()), Span(10.0, 10.4, 0.2, ()), Span(10.8, 11.5, 0.25, ())]
    told = [(span["label"], span["weight"]) for span in span_facts(spans)]
    assert told == [("0:10-0:11", 0.45), ("0:40-0:44", 0.3)]


def words(**changes):
    report = sample_report()
    kept = changes.pop("kept", np.ones(N_FRAMES, np.float32))
    start_s, end_s = changes.pop("start_s", 0.0), changes.pop("end_s", END_S)
    video = replace(report.video, **changes)
    return left_out(video, report.video_map.frame_times_s, kept, start_s, end_s)


def test_what_was_left_out_is_said_in_words():
    assert words() == [
        "A picture was taken every 1 s, 80 in all; what is shorter may be missed.",
        "To save memory, a quarter of the details that the model saw was kept; the others were "
        "dropped.",
        "Sound and subtitles were not used.",
    ]


def test_a_part_of_the_video_is_told_as_such():
    assert words(start_s=20.0)[0] == "Only the part from 0:20 to 1:20 was read."
    assert words(end_s=30.0)[0] == "Only the part from 0:00 to 0:30 was read."


def test_nothing_dropped_and_frames_left_out_are_told():
    assert words(reduced_by="nothing")[1] == "Of what the model saw, nothing was dropped."
    reason = "its cells cannot be moved"
    told = words(reduced_by="frames", keep_ratio=0.5, not_compressible=reason)[1]
    assert told.startswith("Half of the pictures was used")
    assert told.endswith("since its cells cannot be moved.")


def test_what_stood_still_and_the_question_that_chose_are_told():
    told = words(n_still=N_FRAMES // 4, n_grid_frames=N_FRAMES, guide="Who speaks?")
    assert told[1].startswith("What stood still was read once: a quarter of the pictures")
    assert told[3] == "What was kept was chosen for one question: Who speaks?"


def test_stretches_of_which_nothing_is_left_are_told_the_longest_ones():
    kept = np.ones(N_FRAMES, np.float32)
    kept[[2, 3, 10, 11, 12, 30, 31, 32, 33, 34]] = 0
    assert words(kept=kept)[2] == "Nothing is left of 0:20 to 0:26 and 1:00 to 1:10."


@pytest.mark.parametrize(
    ("ratio", "said"),
    [(0.25, "a quarter"), (0.5, "half"), (0.126, "an eighth"), (0.33, "33 %"), (0.004, "0.4 %")],
)
def test_shares_are_said_as_people_say_them(ratio, said):
    assert share(ratio) == said
