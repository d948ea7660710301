"""The report in a real browser: what a person would see, on a laptop and on a phone."""

import base64
import json

import cv2
import numpy as np
import pytest
from chromium import browser
from report_support import sample_report

from retake_edge.report.page import render_report

pytestmark = pytest.mark.browser

NASTY = '<img src=x onerror="document.title=1"><script>&amp;"\'.mp4'


@pytest.fixture(scope="module")
def page():
    with browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render_report(sample_report(name=NASTY)), encoding="utf-8")
    return path


def test_the_page_loads_nothing_and_reports_no_error(page, file):
    page.open(file)
    asked = {event["request"]["url"] for event in page.happened("Network.requestWillBeSent")}
    assert {url for url in asked if not url.startswith("data:")} == {file.as_uri()}
    assert page.happened("Runtime.exceptionThrown") == []
    assert page.happened("Log.entryAdded") == []
    assert page.happened("Runtime.consoleAPICalled") == []


def test_the_pages_own_policy_stops_what_would_be_loaded(page, file):
    page.open(file)
    page.evaluate("new Image().src = 'http://localhost:1/x.png'; 0")
    page.evaluate("new Promise(done => setTimeout(done, 200))")
    page.send("Runtime.evaluate", expression="0")
    entries = [event["entry"]["text"] for event in page.happened("Log.entryAdded")]
    assert any("Content Security Policy" in text for text in entries), entries


def test_names_and_answers_are_text_whatever_they_hold(page, file):
    page.open(file)
    assert page.evaluate("document.title") == f"{NASTY} - retake-edge report"
    assert page.evaluate("document.querySelector('h1').textContent") == NASTY
    assert page.evaluate("document.querySelector('.text').textContent") == '42 </script><b>"&amp;'
    assert page.evaluate("document.querySelectorAll('script').length") == 2


@pytest.mark.parametrize("width", [320, 390, 768, 1440])
@pytest.mark.parametrize("dark", [False, True])
def test_nothing_sticks_out_at_any_width(page, file, width, dark):
    page.open(file, width=width, dark=dark)
    sizes = (
        "[innerWidth, document.documentElement.scrollWidth - document.documentElement.clientWidth]"
    )
    assert page.evaluate(sizes) == [width, 0]
    wide = page.evaluate(
        "[...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right >"
        " innerWidth + 1 && !e.closest('.strip, .axis, table')).map(e => e.outerHTML.slice(0, 80))"
    )
    assert wide == []


def test_every_picture_shows(page, file):
    page.open(file)
    broken = "[...document.images].filter(i => !i.naturalWidth).length"
    assert page.evaluate(broken) == 0
    assert page.evaluate("document.images.length") > 12


def test_text_stands_out_in_light_and_dark(page, file):
    for dark in (False, True):
        page.open(file, dark=dark)
        for selector in ("h1", ".lead", ".tile .what", ".tile .note", ".question", "footer"):
            colours = json.loads(page.evaluate(f"({_COLOURS})({json.dumps(selector)})"))
            assert contrast(*colours) >= 4.5, (selector, dark, colours)


_COLOURS = """(selector) => {
  const element = document.querySelector(selector), parts = (c) => c.match(/[\\d.]+/g).map(Number);
  let behind = element;
  while (parts(getComputedStyle(behind).backgroundColor)[3] === 0) behind = behind.parentElement;
  return JSON.stringify([getComputedStyle(element).color, getComputedStyle(behind).backgroundColor]
    .map(parts));
}"""


def contrast(a, b):
    """Contrast of two sRGB colours; source: WCAG 2.2, relative luminance."""

    def luminance(colour):
        shares = np.array(colour[:3]) / 255
        linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_pointing_at_the_timeline_tells_the_frame_under_the_pointer(page, file):
    page.open(file)
    page.evaluate("document.getElementById('tracks').scrollIntoView()")
    box = page.evaluate("document.getElementById('tracks').getBoundingClientRect().toJSON()")
    assert page.evaluate("document.getElementById('readout').hidden")
    # The sample has 40 frames of 2 s; its attention has a peak of 40 % at frame 30.
    page.point(box["x"] + box["width"] * 61 / 80, box["y"] + 200)
    assert not page.evaluate("document.getElementById('readout').hidden")
    told = page.evaluate("document.getElementById('readout').innerText").split("\n")
    assert [line for line in told if line.strip()] == ["1:01", "kept 25%", "attention 40%"]
    page.point(1, 1)
    assert page.evaluate("document.getElementById('readout').hidden")


def test_the_attention_is_drawn_where_the_answer_looked(page, file):
    page.open(file)
    box = page.evaluate(
        "(() => { document.querySelector('.attention').scrollIntoView(); return document"
        ".querySelector('.attention svg').getBoundingClientRect().toJSON(); })()"
    )
    shot = page.send("Page.captureScreenshot", format="png")["data"]
    image = cv2.imdecode(np.frombuffer(base64.b64decode(shot), np.uint8), cv2.IMREAD_COLOR)
    left, top = round(box["x"]), round(box["y"])
    track = image[top : top + round(box["height"]), left : left + round(box["width"])].astype(int)
    is_drawn = np.abs(track - (0x0F, 0x48, 0xD9)).max(axis=2) < 40
    heights = is_drawn.sum(axis=0) / len(track)
    columns = np.arange(len(heights)) / len(heights)
    assert heights[(columns > 60.5 / 80) & (columns < 61.5 / 80)].min() > 0.95
    assert heights[(columns < 59.5 / 80) | (columns > 62.5 / 80)].max() < 0.2
