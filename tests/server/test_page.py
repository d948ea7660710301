"""The page in a real browser, as people use it: upload, watch, ask, click, come back."""

import base64
import re
from dataclasses import replace

import pytest
from chromium import LAPTOP, PHONE, Watched, browser, findings, sticking_out, until
from playwright.sync_api import expect
from server_support import answer_of, file_url, running, text, write_scenes

from retake_edge.server.images import video_of_images
from retake_edge.server.limits import ServerLimits, media_roots

pytestmark = [pytest.mark.browser, pytest.mark.process]

TIMEOUT_MS = 60_000


@pytest.fixture(scope="module")
def chromium():
    with browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Scenes that the browser can play."""
    return write_scenes(tmp_path_factory.mktemp("playable"), ".webm", "VP80")


@pytest.fixture(scope="module")
def limits(scenes):
    return ServerLimits(media_roots=media_roots([scenes[0][0].parent]))


@pytest.fixture
def served(tmp_path, limits):
    with running(tmp_path / "cache", limits) as made:
        yield made


@pytest.fixture
def tabs(chromium):
    """Make tabs of one browser profile; nothing may go wrong in any, and all is from one server."""
    context = chromium.new_context(viewport=LAPTOP)
    context.set_default_timeout(TIMEOUT_MS)
    seen = []

    def tab(server, path="/"):
        page = context.new_page()
        seen.append((server, Watched(page)))
        page.goto(f"{server.url}{path}")
        return page

    yield tab
    context.close()
    for server, watched in seen:
        assert [url for url in watched.requests if not url.startswith((server.url, "data:"))] == []
        assert watched.faults == []


def upload(page, path):
    page.set_input_files("input[type=file]", str(path))
    page.wait_for_selector(".stage h1")


def ask(page, question):
    n = page.locator(".turns .turn").count()
    page.fill("#question", question)
    page.keyboard.press("Enter")
    expect(page.locator(".turns .turn")).to_have_count(n + 1, timeout=TIMEOUT_MS)


def is_read(page):
    page.wait_for_selector(".timeline .strip img")
    page.wait_for_selector(".reading", state="hidden")


def current_time(page):
    return page.evaluate("document.querySelector('video').currentTime")


def timed(server, scenes):
    """A scene and a question about it that is answered with a time above 0."""
    for path, questions in scenes:
        for question in questions:
            said = answer_of(server.chat([file_url(path), text(question.text)]))
            if re.fullmatch(r"0:0[3-9]|0:1\d", said):
                return path, question.text, int(said[2:])
    raise AssertionError("the model answers no question with a time")


def test_from_an_upload_to_a_click_on_a_time(served, filled, scenes, tabs, tmp_path, reading_gate):
    path, question, seconds = timed(filled[0], scenes)
    named = tmp_path / "holiday & <b>friends.webm"
    named.write_bytes(path.read_bytes())
    page = tabs(served)
    reading_gate.shut()
    upload(page, named)
    reading_gate.reached()
    expect(page.locator("h1")).to_have_text(named.name)
    expect(page.locator(".reading p")).to_contain_text(re.compile(r"Being read: 0:\d\d of 0:12"))
    expect(page.locator(".unread")).to_be_visible()
    until(page, "document.querySelector('video').readyState > 0")  # it can be watched
    page.fill("#question", question)
    page.keyboard.press("Enter")
    expect(page.locator(".pending .waiting")).to_contain_text("comes when the video is read")
    reading_gate.open()
    is_read(page)
    expect(page.locator(".turns .turn .time")).to_have_text(f"0:{seconds:02d}")
    page.click(".turns .turn .time")
    until(page, f"document.querySelector('video').currentTime >= {seconds}")
    assert current_time(page) < seconds + 3
    span = page.locator(".evidence .span").first
    span.click()
    first, _, _ = span.locator(".when").inner_text().partition("-")
    start = int(first.partition(":")[2])
    until(page, f"Math.abs(document.querySelector('video').currentTime - {start}) < 1.5")
    assert "quarter" not in page.locator(".left-out").inner_text()  # the settings keep all
    expect(page.locator(".left-out")).to_contain_text("A picture was taken every 0.5 s")
    assert named.name in page.locator("#shelf").inner_text()


def test_a_reload_and_a_restart_keep_everything(tmp_path, limits, scenes, tabs):
    path, questions = scenes[1]
    with running(tmp_path, limits) as first:
        page = tabs(first)
        upload(page, path)
        ask(page, questions[0].text)
        ask(page, questions[1].text)
        said = page.locator(".turns").inner_text()
        page.reload()
        is_read(page)
        expect(page.locator(".turns .turn")).to_have_count(2)
        assert page.locator(".turns").inner_text() == said
    with running(tmp_path, limits) as second:
        page = tabs(second)
        page.click("#shelf .chats a")
        is_read(page)
        expect(page.locator(".turns .turn")).to_have_count(2)
        assert page.locator(".turns").inner_text() == said
        until(page, "document.querySelector('video').readyState > 0")
        assert second.n_read() == 0


def test_a_reload_while_the_video_is_read_and_answered_finds_both(
    served, scenes, tabs, reading_gate, answer_gate
):
    path, questions = scenes[0]
    page = tabs(served)
    reading_gate.shut()
    answer_gate.shut()
    upload(page, path)
    reading_gate.reached()
    page.fill("#question", questions[0].text)
    page.keyboard.press("Enter")
    page.wait_for_selector(".pending .waiting")
    page.reload()
    expect(page.locator(".pending .question")).to_have_text(questions[0].text)
    expect(page.locator(".reading p")).to_contain_text("Being read")
    reading_gate.open()
    answer_gate.reached()
    expect(page.locator(".pending .growing")).not_to_be_empty()
    page.reload()
    expect(page.locator(".pending .growing")).not_to_be_empty()
    answer_gate.open()
    expect(page.locator(".turns .turn")).to_have_count(1)
    assert served.n_read() == 1


def test_a_second_tab_sees_what_is_said_in_the_first(served, scenes, tabs):
    path, questions = scenes[2]
    first = tabs(served)
    upload(first, path)
    is_read(first)
    second = tabs(served)
    second.click("#shelf .row a")
    is_read(second)
    ask(first, questions[0].text)
    expect(second.locator("#shelf .chats a")).to_have_text(questions[0].text)
    second.click("#shelf .chats a")
    expect(second.locator(".turns .turn")).to_have_count(1)
    ask(second, questions[1].text)
    expect(first.locator(".turns .turn")).to_have_count(2)


def test_an_answer_is_stopped_and_the_next_one_follows(served, scenes, tabs, answer_gate):
    path, questions = scenes[0]
    page = tabs(served)
    upload(page, path)
    is_read(page)
    answer_gate.shut()
    page.fill("#question", questions[0].text)
    page.keyboard.press("Enter")
    expect(page.locator(".pending .growing")).not_to_be_empty()
    page.click(".composer button")
    expect(page.locator(".turns .turn .note").first).to_have_text("Stopped.")
    answer_gate.open()
    ask(page, questions[1].text)


def test_a_video_is_dropped_anywhere(served, scenes, tabs):
    page = tabs(served)
    page.wait_for_selector(".drop")
    data = base64.b64encode(scenes[3][0].read_bytes()).decode()
    page.evaluate(
        """(data) => {
          const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
          const dataTransfer = new DataTransfer();
          dataTransfer.items.add(new File([bytes], "dropped.mp4", { type: "video/mp4" }));
          for (const kind of ["dragenter", "dragover", "drop"]) {
            const how = { dataTransfer, bubbles: true, cancelable: true };
            document.body.dispatchEvent(new DragEvent(kind, how));
          }
        }""",
        data,
    )
    expect(page.locator("h1")).to_have_text("dropped.mp4")
    is_read(page)


def test_a_video_is_chosen_below_the_media_path_and_forgotten(served, scenes, tabs):
    page = tabs(served)
    page.click("text=Choose on the server")
    page.click(f".files button:has-text('{scenes[0][0].name}')")
    is_read(page)
    page.hover("#shelf .video")
    page.click("#shelf .row button")
    page.click("dialog button.danger")
    page.wait_for_selector(".drop")
    expect(page.locator("#shelf")).to_contain_text("No video was opened yet.")
    assert scenes[0][0].is_file()


def test_what_is_no_video_is_told_in_one_sentence(served, tabs, tmp_path):
    (tmp_path / "notes.mp4").write_bytes(b"no video " * 50)
    page = tabs(served)
    upload(page, tmp_path / "notes.mp4")
    expect(page.locator(".reading .error")).to_contain_text("notes.mp4")
    expect(page.locator("#shelf")).to_contain_text("could not be read")
    assert str(served.service.blobs.folder) not in page.locator("body").inner_text()


def test_a_video_that_the_browser_cannot_play_is_shown_in_pictures(served, tabs, tmp_path):
    import cv2
    import numpy as np

    shades = [np.full((96, 160, 3), 20 * i, np.uint8) for i in range(12)]
    images = [cv2.imencode(".png", shade)[1].tobytes() for shade in shades]
    (tmp_path / "lossless.mkv").write_bytes(b"".join(video_of_images(images, 1.0)))
    page = tabs(served)
    upload(page, tmp_path / "lossless.mkv")
    is_read(page)
    expect(page.locator(".cannot")).to_contain_text("cannot play this file")
    page.locator(".timeline .bar").focus()
    page.keyboard.press("End")
    expect(page.locator(".still")).to_have_attribute("alt", "Picture at 0:11")


@pytest.fixture
def guarded(tmp_path, limits):
    with running(tmp_path / "cache", replace(limits, api_keys=("open-sesame",))) as made:
        yield made


def test_the_key_is_asked_for_once(guarded, scenes, tabs):
    page = tabs(guarded)
    page.fill("#key", "wrong")
    page.keyboard.press("Enter")
    expect(page.locator("dialog")).to_contain_text("not right")
    page.fill("#key", "open-sesame")
    page.keyboard.press("Enter")
    page.wait_for_selector(".drop")
    page.reload()
    page.wait_for_selector(".drop")
    page.click("text=Choose on the server")
    page.click(f".files button:has-text('{scenes[0][0].name}')")
    is_read(page)
    until(page, "document.querySelector('video').readyState > 0")
    page.click("#leave")
    page.wait_for_selector("#key")


@pytest.fixture(scope="module")
def filled(tmp_path_factory, limits, scenes):
    """A server with a video that was read and asked about."""
    with running(tmp_path_factory.mktemp("filled"), limits) as made:
        path, questions = scenes[0]
        video = made.http.post("/api/videos", json={"path": str(path)}).json()["id"]
        for question in questions[:2]:
            body = {"question": question.text}
            made.http.post(f"/api/videos/{video}/questions", json=body)
            made.http.get(f"/api/videos/{video}/live")  # ends with the answer
        yield made, f"/#v={video}"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [LAPTOP, PHONE], ids=["laptop", "phone"])
def test_axe_finds_nothing_and_nothing_sticks_out(filled, tabs, size, scheme):
    server, place = filled
    page = tabs(server)
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    page.set_viewport_size(size)
    page.wait_for_selector(".drop")
    page.click("text=Choose on the server")
    page.wait_for_selector(".files li")
    assert (findings(page), sticking_out(page)) == ([], [])
    page.goto(f"{server.url}{place}")
    is_read(page)
    page.wait_for_selector(".turns .turn")
    assert (findings(page), sticking_out(page)) == ([], [])
    if size is PHONE:
        page.click("#menu")
    page.click("#keys")
    page.wait_for_selector("dialog[open]")
    assert findings(page) == []


@pytest.mark.parametrize("width", [320, 390, 720, 1040, 1920])
def test_nothing_sticks_out_at_any_width(filled, tabs, width):
    server, place = filled
    page = tabs(server, place)
    page.set_viewport_size({"width": width, "height": 800})
    is_read(page)
    page.wait_for_selector(".turns .turn")
    assert sticking_out(page) == []
    expect(page.locator("#question")).to_be_in_viewport()
    for part in (".player", ".timeline .bar", ".composer"):
        box = page.locator(part).bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= width


def test_a_phone_finds_the_list_behind_a_button(filled, tabs):
    server, place = filled
    page = tabs(server, place)
    page.set_viewport_size(PHONE)
    is_read(page)
    expect(page.locator("#side")).not_to_be_visible()
    page.click("#menu")
    expect(page.locator("#shelf .row a")).to_be_in_viewport()
    page.keyboard.press("Escape")
    expect(page.locator("#side")).not_to_be_visible()


def test_everything_is_done_with_the_keyboard(filled, tabs):
    server, place = filled
    page = tabs(server, place)
    is_read(page)
    page.wait_for_selector(".turns .turn")
    until(page, "document.querySelector('video').readyState > 0")
    page.keyboard.press("l")
    until(page, "document.querySelector('video').currentTime >= 5")
    page.keyboard.press("j")
    until(page, "document.querySelector('video').currentTime < 1")
    page.keyboard.press("n")
    until(page, "document.querySelector('video').currentTime > 0.1")
    page.locator(".timeline .bar").focus()
    page.keyboard.press("End")
    bar = page.locator(".timeline .bar")
    expect(bar).to_have_attribute("aria-valuenow", "12")
    assert "0:12" in bar.get_attribute("aria-valuetext")
    page.keyboard.press("/")
    expect(page.locator("#question")).to_be_focused()
    page.keyboard.type("Is there a red card?")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("Tell me.")
    assert page.input_value("#question") == "Is there a red card?\nTell me."
    page.keyboard.press("Escape")


def test_the_page_is_small(filled, tabs):
    """Files of the page alone, as they are sent."""
    server, _ = filled
    sizes = [len(server.http.get("/", headers={"Accept-Encoding": "gzip"}).content)]
    page = tabs(server)
    page.wait_for_selector(".drop")
    names = page.evaluate(
        "performance.getEntriesByType('resource').map(e => [e.name, e.encodedBodySize])"
    )
    sizes += [size for name, size in names if "/page/" in name]
    print("bytes sent for the page:", sum(sizes), len(sizes), "files")
    assert sum(sizes) < 40_000
