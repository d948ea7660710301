"""The report's numbers and safety, and the command that writes it."""

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import cv2
import numpy as np
import pytest
from report_support import END_S, N_FRAMES, N_LAYERS, sample_report, thumbnail
from session_support import ARGUMENTS, QUESTION, VIDEO, opened, run

from retake_edge.errors import ConfigError, SessionError
from retake_edge.report.contact_sheet import contact_sheet
from retake_edge.report.figures import TimeAxis, heat_map
from retake_edge.report.page import keyframe_thumbnails, render_report
from retake_edge.report.source import answered, report_of, saved_report
from retake_edge.session.evidence import Span
from retake_edge.session.store.folder import SessionStore
from retake_edge.version import __version__

# -- figures -----------------------------------------------------------------------------------


def test_kept_share_counts_each_layers_vision_tokens_alone():
    kept = sample_report().kept
    assert kept.shape == (N_LAYERS, N_FRAMES)
    assert kept[0, 10] == 1.0
    assert kept[1, 10] == 0.25
    assert kept[1, 20:26].tolist() == [0.375] * 6
    assert np.median(kept) == 0.25


def test_the_heat_map_shows_a_layers_cells_where_their_frame_is():
    report = sample_report()
    data = np.frombuffer(heat_map(report.axis, report.kept), np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    assert image.shape == (N_LAYERS, 960, 4)
    alpha = image[..., 3]
    assert alpha[0, 240:264].tolist() == [255] * 24  # frame 10 of 40
    assert set(alpha[0, :240].tolist()) == {64}
    assert set(alpha[1, 480:624].tolist()) == {96}


def test_frames_that_are_not_evenly_spaced_stand_at_their_times():
    axis = TimeAxis(np.array([0.0, 1.0, 9.0]), 0.0, 10.0)
    assert axis.frames_at(np.array([0.5, 1.0, 8.9, 9.5])).tolist() == [0, 1, 1, 2]


def test_the_axis_is_the_part_that_was_looked_at():
    report = sample_report()
    sampling = {**report.config["sampling"], "start_s": 20.0}
    config = {**report.config, "sampling": sampling}
    part = replace(report, config=config)
    assert (part.axis.start_s, part.axis.end_s) == (20.0, END_S)
    sampling["end_s"] = 500.0
    assert replace(report, config=config).axis.end_s == END_S


def test_keyframes_are_those_with_pivots_in_order_of_time():
    report = sample_report()
    assert [t.time_s for t in keyframe_thumbnails(report)] == [8.0, 20.0, 60.0]
    assert [t.time_s for t in keyframe_thumbnails(report, most=1)] == [20.0]


# -- the page ----------------------------------------------------------------------------------


def data_of(html):
    """What the page's script shows."""
    text = html.partition('id="data">')[2].partition("</script>")[0]
    return json.loads(text)


def tags_of(html):
    """Every start tag with its attributes."""
    found = []
    parser: Any = HTMLParser()
    parser.handle_starttag = lambda tag, attrs: found.append((tag, dict(attrs)))
    parser.feed(html)
    return found


def test_nothing_from_outside_becomes_markup():
    nasty = '"><img src=x onerror=alert(1)></script><script>alert(2)'
    report = sample_report(name=f"{nasty.replace('/', '')}.mp4")
    answer = replace(report.answers[0], question=nasty, text=nasty)
    html = render_report(replace(report, answers=[answer], model={"name": nasty, nasty: nasty}))
    tags = tags_of(html)
    assert [tag for tag, _ in tags].count("script") == 2
    assert "img" not in [tag for tag, _ in tags]
    assert not [attrs for _, attrs in tags if any(name.startswith("on") for name in attrs)]
    data = data_of(html)
    assert data["answers"][0]["text"] == data["model"] == nasty


def test_the_page_refers_to_nothing_outside():
    html = render_report(sample_report())
    assert not re.search(r"(src|href|url)\s*[=(]\s*[\"']?(?!data:)\w+:", html)
    assert re.findall(r"https?://\S+", html) == ['http://www.w3.org/2000/svg";']  # a name
    assert "/somewhere/" not in html


def test_the_policy_names_the_script_and_the_style_that_are_there():
    html = render_report(sample_report())
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html).group(1)
    for kind, mark in (("script", '<script type="module">'), ("style", "<style>")):
        text = html.rpartition(mark)[2].partition(f"</{kind}>")[0]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "media-src" not in policy
    assert "media-src 'self' file:" in render_report(sample_report(), "a.mp4")


def test_a_report_without_questions_pictures_or_memory_is_whole():
    bare = replace(sample_report(answered=False), thumbnails=[], peak_memory_bytes=None)
    data = data_of(render_report(bare))
    assert (data["answers"], data["keyframes"], data["facts"]["pictures"]) == ([], [], [])
    assert "Memory in all, at most" not in dict(data["figures"])
    assert data["layers"] is not None


def test_figures_have_units_that_people_read():
    figures = dict(data_of(render_report(sample_report()))["figures"])
    assert figures["Memory for the video"] == "5 MB"
    assert figures["Length of the video"] == "1:20"
    assert figures["Time in all"] == "2.8 s"


def test_layers_that_keep_the_same_have_no_picture():
    report = sample_report()
    frames = np.repeat(report.video_map.cell_frames[:1], N_LAYERS, 0)
    alike = replace(report.video_map, cell_frames=frames)
    assert data_of(render_report(replace(report, video_map=alike)))["layers"] is None


# -- the contact sheet -------------------------------------------------------------------------


def decoded(png):
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR).astype(int)


def test_a_contact_sheet_holds_every_picture_in_order():
    pictures = [thumbnail(time_s) for time_s in np.linspace(0, 79, 11)]
    sheet = decoded(contact_sheet("Übung <b>", pictures))
    assert sheet.shape == (2 * 24 + 44 + 2 * (60 + 22 + 12) - 12, 2 * 24 + 8 * 92 - 12, 3)
    for i, picture in enumerate(pictures):
        x, y = 24 + i % 8 * 92, 24 + 44 + i // 8 * 94
        expected = decoded(picture.jpeg)
        assert np.abs(sheet[y : y + 60, x : x + 80] - expected).max() == 0


def test_a_contact_sheet_frames_what_the_answer_looked_at():
    pictures = [thumbnail(float(time_s)) for time_s in range(3)]
    plain = decoded(contact_sheet("a", pictures))
    marked = decoded(contact_sheet("a", pictures, [Span(1.0, 2.0, 0.5, (1.0,))]))
    changed = np.flatnonzero((plain != marked).any(axis=(0, 2)))
    assert 24 + 92 - 8 < changed.min() < changed.max() < 24 + 92 + 80 + 8


def test_a_contact_sheet_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="no pictures"):
        contact_sheet("a", [])


# -- from real sessions ------------------------------------------------------------------------


def test_a_saved_session_gives_the_same_timeline_as_the_open_one(tmp_path):
    with opened(tmp_path) as session:
        report = report_of(session, answered(session, [QUESTION]))
        key = session.saved.key
    saved = saved_report(SessionStore(tmp_path), key[:8])
    assert np.array_equal(saved.kept, report.kept)
    assert np.array_equal(saved.video_map.frame_times_s, report.video_map.frame_times_s)
    assert list(saved.thumbnails) == list(report.thumbnails)
    assert saved.video.n_cells_kept == report.video.n_cells_kept
    assert set(report.seconds) == {*saved.seconds, "generate"}
    assert len(report.answers[0].weights) == len(report.video_map.frame_times_s)
    data = data_of(render_report(saved))
    assert data["version"] == __version__
    assert {stage["name"] for stage in data["stages"]}.isdisjoint(saved.seconds), "in plain words"


def test_a_damaged_session_makes_no_report(tmp_path):
    with opened(tmp_path) as session:
        key = session.saved.key
    store = SessionStore(tmp_path)
    file = store.complete(key)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(SessionError, match="damaged"):
        saved_report(store, key)


@pytest.mark.process
def test_the_command_writes_page_and_sheet_and_says_where(tmp_path):
    page, sheet, cache = tmp_path / "new" / "r.html", tmp_path / "s.png", tmp_path / "cache"
    arguments = ("report", str(VIDEO), "-o", str(page), *ARGUMENTS, "--cache-dir", str(cache))
    code, out, err = run(*arguments, "-q", QUESTION, "--contact-sheet", str(sheet))
    assert (code, out) == (0, f"{page}\n{sheet}\n"), err
    data = data_of(page.read_text(encoding="utf-8"))
    assert [answer["question"] for answer in data["answers"]] == [QUESTION]
    assert data["video_src"] is None
    assert decoded(sheet.read_bytes()).size
    assert [path.name for path in page.parent.iterdir()] == ["r.html"]
    key = SessionStore(cache).keys()[0]
    code, out, err = run("report", key[:6], "-o", str(page), "--cache-dir", str(cache))
    assert (code, out) == (0, f"{page}\n"), err
    assert VIDEO.name in page.read_text(encoding="utf-8")
    code, out, err = run(
        "report", key[:6], "-o", str(page), "--cache-dir", str(cache), "--link-video"
    )
    linked = data_of(page.read_text(encoding="utf-8"))["video_src"]
    assert (page.parent / linked).resolve() == VIDEO.resolve()


@pytest.mark.process
@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["-o", "report.pdf"], 2, "must end in .html"),
        (["--contact-sheet", "sheet.jpg"], 2, "must end in .png"),
        (["-o", "{tmp}/file/r.html"], 2, "Cannot write"),
    ],
)
def test_what_cannot_be_written_is_refused_in_one_sentence(tmp_path, arguments, code, told):
    (tmp_path / "file").write_text("in the way")
    arguments = [argument.format(tmp=tmp_path) for argument in arguments]
    found, out, err = run("report", str(VIDEO), *arguments, *ARGUMENTS, "--no-cache", cwd=tmp_path)
    assert (found, out) == (code, "")
    assert told in err
    assert "Traceback" not in err


def test_the_report_tells_what_stood_still():
    report = sample_report()
    assert "Stood still, not read again" not in dict(data_of(render_report(report))["figures"])
    still = replace(report, video=replace(report.video, n_still=4, n_left_out=40))
    told = dict(data_of(render_report(still))["figures"])["Stood still, not read again"]
    assert told == f"4 of {report.video.n_grid_frames} pictures"
