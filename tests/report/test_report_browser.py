"""The report in a real browser: what a person would see, on a laptop and on a phone."""

import shutil

import pytest
from chromium import LAPTOP, PHONE, Watched, browser, findings, sticking_out, until
from report_support import END_S, sample_report
from session_support import VIDEO

from retake_edge.report.page import render_report, video_link

pytestmark = [pytest.mark.browser, pytest.mark.process]

NASTY = '<img src=x onerror="document.title=1"><script>&amp;"\'.mp4'


@pytest.fixture(scope="module")
def chromium():
    with browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render_report(sample_report(name=NASTY)), encoding="utf-8")
    return path


@pytest.fixture
def page(chromium):
    made = chromium.new_page(viewport=LAPTOP)
    yield made
    made.close()


def open_page(page, file):
    page.goto(file.as_uri())
    page.wait_for_selector(".timeline .strip img")


def test_the_page_loads_nothing_and_reports_no_error(page, file):
    seen = Watched(page)
    open_page(page, file)
    assert {url for url in seen.requests if not url.startswith("data:")} == {file.as_uri()}
    assert seen.faults == []


def test_the_pages_own_policy_stops_what_would_be_loaded(page, file):
    seen = Watched(page)
    open_page(page, file)
    page.evaluate("new Image().src = 'http://localhost:1/x.png'")
    page.wait_for_timeout(300)
    assert any("Content Security Policy" in fault for fault in seen.faults), seen.faults


def test_names_and_answers_are_text_whatever_they_hold(page, file):
    open_page(page, file)
    assert page.title() == f"{NASTY} - retake-edge report"
    assert page.text_content("h1") == NASTY
    assert page.text_content(".answer .text") == '42 </script><b>"&amp;'
    assert page.locator("script").count() == 2


@pytest.mark.parametrize("width", [320, 390, 768, 1440])
def test_nothing_sticks_out_at_any_width(page, file, width):
    page.set_viewport_size({"width": width, "height": 900})
    open_page(page, file)
    for folded in page.locator("summary").all():
        folded.click()
    assert sticking_out(page) == []


@pytest.mark.parametrize("size", [LAPTOP, PHONE], ids=["laptop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(page, file, size, scheme):
    page.set_viewport_size(size)
    page.emulate_media(color_scheme=scheme)
    open_page(page, file)
    for folded in page.locator("summary").all():
        folded.click()
    assert findings(page) == []


def test_pointing_at_the_timeline_tells_the_frame_under_the_pointer(page, file):
    open_page(page, file)
    bar = page.locator(".timeline .bar").bounding_box()
    assert page.locator(".readout").is_hidden()
    # The sample has 40 frames of 2 s; its attention has a peak of 40 % at frame 30.
    page.mouse.move(bar["x"] + bar["width"] * 61 / END_S, bar["y"] + 20)
    told = page.locator(".readout").inner_text().split("\n")
    assert [line for line in told if line.strip()] == ["1:01", "looked at 40 %", "kept 25 %"]
    page.mouse.move(1, 1)
    assert page.locator(".readout").is_hidden()


def test_the_attention_is_as_high_as_its_weight_where_the_answer_looked(page, file):
    open_page(page, file)
    heights = page.evaluate(
        """() => {
          const path = document.querySelector(".track.look path");
          const steps = [...path.getAttribute("d").matchAll(/V([\\d.]+)H([\\d.]+)/g)];
          return steps.map(([, y, x]) => [Number(x), 100 - Number(y)]);
        }"""
    )
    at_peak = [high for right, high in heights if 760 < right <= 774]
    elsewhere = [high for right, high in heights if right < 745 or right > 780]
    assert min(at_peak) == pytest.approx(100)
    assert max(elsewhere) < 10


def test_a_time_shows_its_picture_large_where_there_is_no_video(page, file):
    open_page(page, file)
    assert page.locator("video").is_hidden()
    page.click(".evidence .span")
    # Thumbnails stand every 4 s, and the span begins at 1:00.
    assert page.locator(".still").get_attribute("alt") == "Picture at 1:00"
    box = page.locator(".still").bounding_box()
    assert box["width"] > 300


def test_a_time_moves_the_video_that_lies_beside_the_page(page, tmp_path):
    shutil.copy(VIDEO, tmp_path / "a b#.mp4")
    path = tmp_path / "pages" / "report.html"
    path.parent.mkdir()
    link = video_link(tmp_path / "a b#.mp4", path)
    assert link == "../a%20b%23.mp4"
    path.write_text(render_report(sample_report(), link), encoding="utf-8")
    seen = Watched(page)
    open_page(page, path)
    until(page, "document.querySelector('video').readyState > 0")
    length = page.evaluate("document.querySelector('video').duration")
    page.locator(".timeline .bar").focus()
    page.keyboard.press("ArrowRight")
    until(page, "document.querySelector('video').currentTime > 1.5")
    assert length > 2
    assert seen.faults == []
    # Without it there are pictures, and it is said why.
    (tmp_path / "a b#.mp4").unlink()
    open_page(page, path)
    page.wait_for_selector(".cannot:not([hidden])")
    assert page.locator(".still").is_visible()


def test_keyframes_stand_in_one_strip_in_the_videos_own_shape(page, file):
    open_page(page, file)
    pictures = page.locator(".keyframes img").all()
    boxes = [picture.bounding_box() for picture in pictures]
    assert [text.strip() for text in page.locator(".keyframes li").all_inner_texts()] == [
        "0:08",
        "0:20",
        "1:00",
    ]
    assert len({box["y"] for box in boxes}) == 1
    assert all(box["width"] / box["height"] == pytest.approx(80 / 60, abs=0.05) for box in boxes)
