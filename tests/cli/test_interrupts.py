"""Ctrl-C: answered while a frame is encoded, obeyed after it, and at once when pressed twice."""

import re
import signal
import subprocess
import sys
import threading

import pytest
from pty_support import SIZES, Terminal, at_terminal
from session_support import LONG_VIDEO, MODEL, QUESTION, VIDEO, command, opened, run, settings
from slow_tower import write_slow_mmproj

from retake_edge import stopping
from retake_edge.llama.context import Context
from retake_edge.llama.model import Model
from retake_edge.session.store.journal import Journal
from retake_edge.stopping import is_requested

pytestmark = pytest.mark.process

EXIT_INTERRUPTED = 130
_SMALL = ("--long-side", "224", "--keep-ratio", "0.5")  # enough of a wait to press a key in


_TWICE = """
import signal
from retake_edge import stopping
from retake_edge.cli.interrupts import handle_interrupts, obeyed
handle_interrupts()
for _ in range(2):
    stopping.request()
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        obeyed()
        print("went on", flush=True)
stopping.request()
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    signal.raise_signal(signal.SIGINT)
    print("not reached")
"""


def test_a_second_ctrl_c_on_the_way_out_leaves_without_a_traceback():
    done = subprocess.run([sys.executable, "-c", _TWICE], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (EXIT_INTERRUPTED, "went on\n" * 2)
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def slow(tmp_path_factory):
    """Options of a model whose tower takes a while for each grid frame."""
    tower = write_slow_mmproj(tmp_path_factory.mktemp("slow") / "mmproj-slow.gguf")
    return [
        *("-m", str(MODEL.model), "-mm", str(tower), "--long-side", "560", "--fps", "8"),
        *("--prefill-chunk-frames", "4", "-n", "4", "-t", "1"),
    ]


def frames_read(terminal: Terminal) -> set[str]:
    """The times in the video that the bar has shown."""
    sent = terminal.raw.decode("utf-8", "replace")
    return set(re.findall(r"reading \S+  .*?(\d+) %", sent))


@pytest.mark.parametrize(("columns", "colour"), SIZES[:2])
def test_one_ctrl_c_is_answered_and_ends_after_the_frame(slow, columns, colour):
    options = [*slow, "--no-cache"]
    with at_terminal("ask", str(VIDEO), QUESTION, *options, columns=columns, colour=colour) as t:
        t.wait_for("left")
        before = frames_read(t)
        t.interrupt()
        t.wait_for("stopping after this frame")
        assert t.ended() == EXIT_INTERRUPTED
        assert len(frames_read(t) - before) <= 1
        assert "stopped at 0:00 of 0:03" in t.text()
        assert "Traceback" not in t.text() and not t.cursor_is_hidden()


def test_two_ctrl_c_leave_at_once_and_the_terminal_is_as_before(slow):
    with at_terminal("ask", str(VIDEO), QUESTION, *slow, "--no-cache") as t:
        t.wait_for("left")
        t.interrupt()
        t.wait_for("stopping after this frame")
        t.interrupt()
        assert t.ended() == EXIT_INTERRUPTED
        assert "stopped at" not in t.text(), "it waited for the frame"
        assert not t.cursor_is_hidden()


def test_what_was_read_stays_and_index_says_where_it_goes_on(slow, tmp_path):
    options = [*slow, *_SMALL, "--cache-dir", str(tmp_path)]
    with at_terminal("index", str(VIDEO), *options) as t:
        t.wait_for(lambda _: any(tmp_path.glob("sessions/*.resume")))
        t.interrupt()
        assert t.ended() == EXIT_INTERRUPTED
        stopped = re.search(r"the same command goes on at (\S+)", t.text())
        assert stopped, t.text()
    (part,) = tmp_path.glob("sessions/*.part")
    assert Journal(part).head()["video"] == VIDEO.name
    with at_terminal("index", str(VIDEO), *options) as t:
        t.wait_for(f"going on at {stopped[1]} of 0:03")
        t.interrupt()
        assert t.ended() == EXIT_INTERRUPTED


def test_a_killed_run_leaves_a_journal_to_go_on_with(slow, tmp_path):
    options = [*slow, *_SMALL, "--cache-dir", str(tmp_path)]
    with at_terminal("index", str(VIDEO), *options) as t:
        t.wait_for(lambda _: any(tmp_path.glob("sessions/*.resume")))
        t.interrupt()
        t.interrupt()
        assert t.ended() == EXIT_INTERRUPTED
    code, out, err = run("sessions", "list", "--cache-dir", str(tmp_path))
    assert code == 0 and "damaged" not in out + err


def test_a_process_that_is_to_ignore_ctrl_c_does_so(tmp_path):
    options = ["-m", str(MODEL.model), "-mm", str(MODEL.mmproj), "--long-side", "56"]
    ignored = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)}
    with command("ask", str(LONG_VIDEO), QUESTION, *options, "--no-cache", **ignored) as process:
        assert process.stderr.readline().startswith("loading")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0 and out.strip(), err


def test_ctrl_c_in_a_pipe_says_where_it_stopped(slow):
    with command("ask", str(VIDEO), QUESTION, *slow, "--no-cache") as process:
        while not process.stderr.readline().startswith("reading"):
            pass
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
    assert process.returncode == EXIT_INTERRUPTED
    assert "stopping after this frame" in err and "stopped at 0:00 of 0:03" in err


# -- decoding ----------------------------------------------------------------------------------


def test_decoding_ends_in_the_middle_of_a_batch():
    with Model(MODEL.model) as model, Context(model, n_ctx=512, n_threads=1) as context:
        tokens = model.tokenize("one two three four five")
        stopping.request()
        try:
            with pytest.raises(KeyboardInterrupt):
                context.decode_tokens(tokens, 0)
        finally:
            stopping.clear()
        assert not is_requested()
        context.clear()
        context.decode_tokens(tokens, 0)
        assert context.position_max() == len(tokens) - 1


def test_a_wish_of_another_thread_reaches_a_running_answer(tmp_path):
    with opened(tmp_path, settings(max_tokens=200)) as session:
        expected = session.ask(QUESTION).text
        stream = session.stream(QUESTION)
        next(stream)
        thread = threading.Thread(target=stopping.request)
        thread.start()
        thread.join()
        try:
            with pytest.raises(KeyboardInterrupt):
                list(stream)
        finally:
            stopping.clear()
        assert session.ask(QUESTION).text == expected, "the stopped answer left something behind"
