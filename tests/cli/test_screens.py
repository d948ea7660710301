"""ask, index and chat at a terminal of 80 and 120 columns, with and without colour."""

import re
import time

import pytest
from pty_support import SIZES, at_terminal
from session_support import (
    ARGUMENTS,
    LONG_VIDEO,
    MODEL,
    QUESTION,
    VIDEO,
    opened,
    run,
    settings,
)

from retake_edge.cli.progress import Progress, _Written, left, shortened, speed
from retake_edge.formats import duration
from retake_edge.plan.pace import Pace
from retake_edge.plan.seconds import Work
from retake_edge.progress import Reading, in_percent, with_more
from retake_edge.session.conversation import Conversation

BAR = re.compile(
    r"reading long\.mkv  \d+:\d\d of 3:20  \d+ %  "
    r"(?:[\d.]+ frames/s|\d+ s a frame)  about \d+ s left"
)
PLAIN = ["--long-side", "112", "-n", "6", "-t", "1"]
MODEL_OPTIONS = ["-m", str(MODEL.model), "-mm", str(MODEL.mmproj)]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("screens")
    code, _, err = run("index", str(VIDEO), *ARGUMENTS, "--cache-dir", str(folder))
    assert code == 0, err
    return ["--cache-dir", str(folder)]


@pytest.mark.process
@pytest.mark.parametrize(("columns", "colour"), SIZES)
def test_asking_shows_one_bar_and_then_the_answer_block(columns, colour):
    options = [*MODEL_OPTIONS, *PLAIN, "--no-cache"]
    with at_terminal(
        "ask", str(LONG_VIDEO), QUESTION, *options, columns=columns, colour=colour
    ) as terminal:
        assert "loading tiny-f32.gguf" in terminal.wait_for("loading")
        shown = terminal.wait_for(lambda text: bool(BAR.search(text)))
        assert len(shown.splitlines()) == 1, "there is one line, and it is not broken"
        assert terminal.ended() == 0
        assert terminal.has_colour() == colour and not terminal.cursor_is_hidden()
        *_, facts = terminal.lines()
        assert "reading" not in terminal.text() and "loading" not in terminal.text()
        assert re.fullmatch(r"tiny-f32, long\.mkv 0:00-3:20, a frame every 0.5 s", facts)
        assert all(len(line) <= columns for line in terminal.lines())


@pytest.mark.process
@pytest.mark.parametrize(("columns", "colour"), SIZES)
def test_index_says_what_it_saved_and_that_it_was_there(columns, colour, cache):
    size = {"columns": columns, "colour": colour}
    with at_terminal("index", str(VIDEO), *ARGUMENTS, *cache, **size) as terminal:
        assert terminal.ended() == 0
        *_, key, told = terminal.lines()
    assert re.fullmatch(r"[0-9a-f]{32}", key)
    assert re.fullmatch(r"h264\.mp4, 0:03: was there already, [\d.]+ MB", told)


@pytest.mark.process
@pytest.mark.parametrize(("columns", "colour"), SIZES)
def test_a_chat_from_its_banner_to_bye(columns, colour, cache):
    size = {"columns": columns, "colour": colour}
    with at_terminal("chat", str(VIDEO), *ARGUMENTS, *cache, **size) as terminal:
        shown = terminal.wait_for("\n>")
        assert "tiny-f32, h264.mp4 0:00-0:03, a frame every 0.1 s" in shown
        assert "/help shows what else there is" in shown
        terminal.send("half a question")
        terminal.wait_for("half a question")
        time.sleep(0.1)  # readline shows a key before it can see a signal again
        terminal.interrupt()
        terminal.wait_for(lambda text: text.count("\n>") == 2)
        terminal.line("/HELP")
        terminal.wait_for("stops an answer.")
        terminal.line("/Frames")
        assert "24 frames from 0:00 to 0:02, one every 0.1 s" in terminal.wait_for("24 frames")
        terminal.line("/BYE")
        assert terminal.ended() == 0
        assert all(len(line) <= columns for line in terminal.lines())
        assert not terminal.cursor_is_hidden()


@pytest.mark.process
def test_ctrl_c_stops_an_answer_and_the_chat_goes_on(cache):
    with at_terminal("chat", str(VIDEO), *ARGUMENTS, "-n", "400", *cache) as terminal:
        terminal.wait_for("\n>")
        terminal.line("Tell me everything.")
        terminal.wait_for(lambda text: len(text.partition("everything.")[2]) > 5)
        terminal.interrupt()
        terminal.wait_for("this turn is forgotten")
        terminal.line("/when")
        terminal.wait_for("Nothing has been answered yet.")
        terminal.line("/exit")
        assert terminal.ended() == 0


@pytest.mark.process
def test_a_saved_chat_goes_on_another_day(cache):
    with at_terminal("chat", str(VIDEO), *ARGUMENTS, *cache) as terminal:
        terminal.wait_for("\n>")
        terminal.line("/save")
        terminal.wait_for("nothing to save")
        terminal.line(QUESTION)
        terminal.wait_for(lambda text: text.count("\n>") == 3)
        terminal.line("/save")
        terminal.wait_for("goes on with it")
        terminal.line("/bye")
        assert terminal.ended() == 0
        answer = terminal.text().partition(QUESTION)[2].splitlines()[1]
    with at_terminal("chat", str(VIDEO), "-c", *ARGUMENTS, *cache) as terminal:
        shown = terminal.wait_for(lambda text: text.count("\n>") == 2)
        assert f"> {QUESTION}\n{answer}" in shown
        terminal.line("/when")
        terminal.line("/bye")
        assert terminal.ended() == 0
        assert "Nothing has been answered" not in terminal.text()


@pytest.mark.process
def test_there_is_no_chat_to_go_on_with_before_one_was_saved(tmp_path):
    options = [*ARGUMENTS, "--cache-dir", str(tmp_path)]
    code, out, err = run("chat", str(VIDEO), *options, "-c", stdin=-3)
    assert (code, out) == (2, "") and "no saved conversation" in err


@pytest.mark.process
def test_c_with_a_number_is_the_size_of_the_context(cache):
    code, _, err = run("chat", str(VIDEO), *ARGUMENTS, *cache, "-c", "64", stdin=-3)
    assert code == 5 and "-c gives 64" in err


@pytest.mark.process
def test_an_empty_answer_says_so(cache, tmp_path):
    grammar = tmp_path / "nothing.gbnf"
    grammar.write_text('root ::= ""\n')
    options = [*ARGUMENTS, *cache, "--grammar-file", str(grammar)]
    code, out, err = run("ask", str(VIDEO), QUESTION, *options)
    assert (code, out.strip()) == (0, "") and "an empty answer" in err


@pytest.mark.process
def test_frames_far_apart_are_said_to_be(tmp_path):
    options = [*MODEL_OPTIONS, *PLAIN, "--fps", "0.25", "--cache-dir", str(tmp_path)]
    _, _, err = run("ask", str(LONG_VIDEO), QUESTION, *options)
    assert "a frame every 4 s (shorter events may be missed: --fps or --start/--end" in err


@pytest.mark.process
def test_a_file_gets_a_line_at_the_start_and_one_at_the_end(tmp_path):
    options = [*MODEL_OPTIONS, *PLAIN, "--cache-dir", str(tmp_path)]
    _, _, err = run("index", str(LONG_VIDEO), *options)
    loading, reading, read, told = err.splitlines()
    assert loading == "loading tiny-f32.gguf"
    assert reading.startswith("reading long.mkv  0:00 of 3:20  0 %")
    assert re.fullmatch(r"read long\.mkv  3:20  in \d+ s", read)
    assert told.startswith("long.mkv, 3:20: saved")


# -- without a terminal ------------------------------------------------------------------------


def test_a_line_comes_now_and_then_while_nothing_else_is_told(capsys):
    written = _Written("talk.mp4", "tiny", every_s=0.01)
    written("load", 0, 100)
    told = ""
    while told.count("\n") < 3:
        told += capsys.readouterr().err
    written.end()
    assert set(told.splitlines()) == {"loading tiny"}


def reading(time_s, left_s=540.0):
    return Reading(0.0, 3720.0, time_s, 0.0, None, left_s)


def test_the_line_has_all_that_is_to_be_known():
    progress = Progress("talk.mp4", "tiny")
    progress("encode", 0, 7440, reading(0.0, None))
    assert progress.parts() == ["reading talk.mp4", "0:00 of 1:02:00", "0 %"]
    progress("encode", 1520, 7440, reading(760.0))
    _, where, percent, rate, time_left = progress.parts()
    assert (where, percent, time_left) == ("12:40 of 1:02:00", "20 %", "about 9 min left")
    assert rate.endswith("frames/s")


def test_decoded_frames_do_not_count_as_read():
    progress = Progress("talk.mp4")
    progress("encode", 8, 100, reading(4.0))
    progress("decode", 24, 100, reading(4.0))
    assert progress.done == 8


def test_numbers_are_told_as_people_say_them():
    assert [speed(r) for r in (123.4, 6.14, 0.5, 0.04)] == [
        *("123 frames/s", "6.1 frames/s", "0.5 frames/s", "25 s a frame")
    ]
    assert [duration(s) for s in (7, 42, 540, 7830, 7200)] == [
        *("7 s", "40 s", "9 min", "2 h 10 min", "2 h")
    ]
    assert left(0.2) == "about 1 s left"
    assert shortened("a" * 50 + ".mp4", 20) == "aaaaaaaaa...aaaa.mp4"
    assert shortened("bad\x1b[2J\n.mp4", 40) == "bad?[2J?.mp4"


# -- what the library tells --------------------------------------------------------------------


def test_a_callback_gets_as_many_arguments_as_it_takes():
    told = []
    with_more(lambda stage, done, total: told.append((stage, done, total)))("load", 1, 2, None)
    with_more(lambda *all_of_it: told.append(all_of_it))("load", 1, 2, None)
    assert told == [("load", 1, 2), ("load", 1, 2, None)]


def test_each_percent_is_told_once():
    told = []
    tell = in_percent(lambda stage, done, total: told.append(done), "load")
    for i in range(1001):
        tell(i / 1000)
    assert told == list(range(101))


def test_before_anything_is_measured_the_plan_says_how_long():
    work = Work(decode=1.0, encode=100.0, prefill=50.0, question=1.0, answer=1.0)
    assert Pace(work, {}).left_s(0.0, 0.0, {}) is None
    known = {"decode": 10.0, "encode": 90.0, "prefill": 50.0}
    assert Pace(work, known).left_s(0.0, 0.0, {}) == pytest.approx(150.0)
    # Prefill that has not begun is expected to take as long for each operation as encoding.
    pace = Pace(work, {})
    pace._begun_at -= 40.0
    assert pace.left_s(0.4, 0.0, {}) == pytest.approx(60.0 + 50.0, rel=1e-3)
    assert pace.left_s(0.5, 0.25, {"prefill": 20.0}) == pytest.approx(20.0 + 60.0, rel=1e-3)


def test_a_recalled_turn_is_as_if_it_had_just_been_answered(tmp_path):
    with opened(tmp_path, settings(type_kv="f32"), n_question_reserve=600) as session:
        known = session.engine.model.tokenize("aaa")
        with Conversation(session) as talk:
            list(talk.stream(QUESTION, known))
            expected = talk.ask("And then?").text
        with Conversation(session) as talk:
            assert talk.recall(QUESTION, "aaa").text == "aaa"
            assert talk.ask("And then?").text == expected
            assert [turn.question for turn in talk.turns] == [QUESTION, "And then?"]
