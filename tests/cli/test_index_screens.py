"""index with several videos at a terminal; the video after the question; a URL."""

import re
import shutil

import pytest
from pty_support import SIZES, at_terminal
from session_support import ARGUMENTS, LONG_VIDEO, MODEL, QUESTION, VIDEO
from slow_tower import write_slow_mmproj

pytestmark = pytest.mark.process

URL = "https://videos.example.org//talks/a%20b.mp4?id=7"


@pytest.fixture
def folder(tmp_path):
    """A folder with two videos and a file that only looks like one, in this order."""
    videos = tmp_path / "talks"
    videos.mkdir()
    shutil.copy(VIDEO, videos / "talk2.mp4")
    (videos / "talk9.mp4").write_text("no video")
    shutil.copy(VIDEO, videos / "talk10.mp4")
    return videos


@pytest.mark.parametrize(("columns", "colour"), SIZES)
def test_a_folder_is_read_video_by_video_and_failures_are_told_at_the_end(columns, colour, folder):
    cache = ["--cache-dir", str(folder.parent / "cache")]
    size = {"columns": columns, "colour": colour}
    with at_terminal("index", str(folder), *ARGUMENTS, *cache, **size) as terminal:
        assert terminal.ended() == 3
        lines = terminal.lines()
    told = " ".join(lines)
    assert re.search(r"1 of 3: .*2 of 3: .*3 of 3: ", told)
    # The third has the first one's bytes, and so its session.
    assert "talk2.mp4, 0:03: saved" in told and "talk10.mp4, 0:03: was there already" in told
    end = told.partition("not read: 1 of 3 videos")[2]
    assert "talk9.mp4" in end and "talk2.mp4" not in end and "talk10.mp4" not in end
    assert "Traceback" not in told and not terminal.cursor_is_hidden()


@pytest.mark.parametrize(("columns", "colour"), SIZES[:2])
def test_stopped_in_the_second_video_it_goes_on_there(columns, colour, tmp_path):
    tower = write_slow_mmproj(tmp_path / "mmproj-slow.gguf")
    options = [
        *("-m", str(MODEL.model), "-mm", str(tower), "--long-side", "224", "--fps", "8"),
        *("--keep-ratio", "0.5", "--prefill-chunk-frames", "4", "-n", "4", "-t", "1"),
        *("--cache-dir", str(tmp_path / "cache")),
    ]
    first = tmp_path / "short.mp4"
    shutil.copy(VIDEO, first)
    broken = tmp_path / "broken.mp4"
    broken.write_text("no video")
    names = [str(broken), str(first), str(LONG_VIDEO)]
    size = {"columns": columns, "colour": colour}
    with at_terminal("index", *names, *options, **size) as terminal:
        terminal.wait_for("3 of 3: ")
        terminal.wait_for(lambda _: any((tmp_path / "cache/sessions").glob("*.resume")))
        terminal.interrupt()
        assert terminal.ended() == 130
        stopped = re.search(r"the same command goes on at (\S+)", terminal.text())
        assert stopped, terminal.text()
        assert "not read: 1 of 3 videos" in terminal.text(), "what failed before is not lost"
    with at_terminal("index", *names, *options, **size) as terminal:
        terminal.wait_for("was there already")
        terminal.wait_for(f"going on at {stopped[1]} of 3:20")
        terminal.interrupt()
        assert terminal.ended() == 130


@pytest.mark.parametrize(("columns", "colour"), SIZES)
def test_the_video_may_come_second_and_that_is_said(columns, colour, tmp_path):
    options = [*ARGUMENTS, "--cache-dir", str(tmp_path)]
    size = {"columns": columns, "colour": colour}
    with at_terminal("ask", QUESTION, str(VIDEO), *options, **size) as terminal:
        assert terminal.ended() == 0
        told = " ".join(terminal.text().split())
        assert "note:" in told and "h264.mp4 is taken as the video" in told
        assert terminal.lines()[-1].startswith("tiny-f32, h264.mp4 0:00-0:03")


@pytest.mark.parametrize("command", ["ask", "chat", "index", "plan", "report"])
@pytest.mark.parametrize(("columns", "colour"), SIZES[::3])
def test_a_url_is_refused_as_it_was_written_and_a_downloader_named(command, columns, colour):
    question = [QUESTION] if command == "ask" else []
    size = {"columns": columns, "colour": colour}
    with at_terminal(command, URL, *question, *ARGUMENTS, **size) as terminal:
        assert terminal.ended() == 3
        told = "".join(line.strip() for line in terminal.lines())
    assert URL in told and "yt-dlp" in told and "Traceback" not in told


def test_a_start_after_the_end_is_refused_before_anything_else_is_said(tmp_path):
    cache = ["--cache-dir", str(tmp_path)]
    with at_terminal("index", str(VIDEO), *ARGUMENTS, *cache) as terminal:
        assert terminal.ended() == 0
    with at_terminal("ask", str(VIDEO), QUESTION, *ARGUMENTS, "--start", "50:00", *cache) as t:
        assert t.ended() == 3
        told = " ".join(t.text().split())
    assert "at 50:00: the video is 0:03 long" in told and "note:" not in told
