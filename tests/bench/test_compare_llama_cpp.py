"""The comparison with llama.cpp's own program: what it reads off a run, and its own checks."""

import os
import sys
from pathlib import Path

import pytest
from compare_llama_cpp import (
    CASES,
    KINDS,
    OURS,
    STOCK,
    Film,
    ask_ours,
    compare_table,
    make_film,
    parse,
    row,
)
from stock_llama_cpp import Asked, StockOptions, ask, build
from watched import Limits, Watched, resident_bytes, tree

from retake_edge.bench.scenes.questions import Question

LIMITS = Limits(60, 4 << 30)
PROGRAM = r"""
import os, sys, time
mode, words = os.environ["MODE"], sys.argv[1:]
def say(text):
    sys.stdout.write(text)
    sys.stdout.flush()
say("\n Running in chat mode\n\n> ")
path = input().removeprefix("/video ")
say("\n> " if mode == "unread" else f"{path} video loaded\n\n> ")
answers = {"What number?": "70", "And the last?": "14 > 13"}
for line in sys.stdin:
    if mode == "full":
        sys.exit("decode: failed to find a memory slot for batch of size 16\nUnable to decode")
    if mode == "broken":
        sys.exit("clip.cpp:1: no such thing")
    if mode == "slow":
        time.sleep(60)
    if mode == "large":
        held = b"x" * (300 << 20)
        time.sleep(60)
    say(f"{line}\n{answers[line.strip()]}\n\n> ")
say("\n\n")
sys.exit("llama_perf_context_print: prompt eval time =  9.11 ms /  4321 tokens ( 0.1 ms per token)"
         if mode != "status" else 3)
"""


@pytest.fixture
def program(tmp_path, monkeypatch):
    """A program that talks as llama-mtmd-cli does, in the way that MODE says."""
    file = tmp_path / "program.py"
    file.write_text(PROGRAM)

    def asked(mode, limits=LIMITS):
        monkeypatch.setenv("MODE", mode)
        options = StockOptions(Path("m.gguf"), Path("p.gguf"), 2.0, 16, 2)
        questions = ("What number?", "And the last?")
        return ask([sys.executable, str(file)], Path("talk.mp4"), questions, options, limits)

    return asked


@pytest.mark.process
def test_answers_and_their_times_are_read_from_between_the_prompts(program):
    asked = program("well")
    assert asked.texts == ("70", "14 > 13")
    assert asked.ended == ""
    assert 0 < asked.answer_s <= asked.answer_s + asked.follow_up_s <= asked.seconds
    assert asked.n_tokens == asked.n_kept == 4321
    assert asked.peak_bytes > 1 << 20


@pytest.mark.process
@pytest.mark.parametrize(
    ("mode", "ended"),
    [
        ("full", "context limit"),
        ("broken", "exit status 1: clip.cpp:1: no such thing"),
        ("unread", "the video was not read"),
    ],
)
def test_a_run_that_ends_early_says_why_and_has_no_answers(program, mode, ended):
    asked = program(mode)
    assert asked.ended.startswith(ended)
    assert (asked.texts, asked.answer_s, asked.follow_up_s) == ((), None, None)


@pytest.mark.process
def test_a_run_is_ended_at_the_time_limit(program):
    asked = program("slow", Limits(0.7, 4 << 30))
    assert (asked.ended, asked.texts) == ("time limit", ())


@pytest.mark.process
def test_a_run_is_ended_at_the_memory_limit(program):
    asked = program("large", Limits(60, 200 << 20))
    assert (asked.ended, asked.texts) == ("memory limit", ())
    assert asked.peak_bytes > 200 << 20


@pytest.mark.process
def test_the_memory_of_children_counts(tmp_path):
    child = "held = b'x' * (120 << 20); import time; time.sleep(0.6)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with Watched([sys.executable, "-c", parent], LIMITS) as run:
        assert run.wait() == 0
    assert run.peak_bytes > 120 << 20
    assert os.getpid() in tree(os.getpid())
    assert resident_bytes([os.getpid()]) > 10 << 20


@pytest.mark.process
def test_a_mark_has_the_time_of_the_piece_that_completed_it():
    say = "import sys, time\nfor part in ('a>', ' b', '>', ' c'):\n"
    say += "    sys.stdout.write(part); sys.stdout.flush(); time.sleep(0.1)"
    with Watched([sys.executable, "-c", say], LIMITS) as run:
        run.wait()
    first, second = run.out.when("> ", 1), run.out.when("> ", 2)
    assert first == run.out.times_s[run.out.ends.index(4)]
    assert second > first
    assert run.out.when("> ", 3) is None


def test_frames_of_both_programs_have_as_many_tokens():
    options = StockOptions(Path("m"), Path("p"), 2.0, 16, 2, n_ctx=4096, frame_tokens=16)
    words = options.arguments()
    for flag, value in (
        ("--image-min-tokens", "16"),
        ("--image-max-tokens", "16"),
        ("-c", "4096"),
        ("--video-fps", "2"),
    ):
        assert words[words.index(flag) + 1] == value


def test_a_line_of_the_run_file_grades_what_was_answered():
    questions = [Question("number", "What number?", "70"), Question("last_card", "Last?", "14")]
    film = Film(Path("talk.mp4"), questions)
    asked = Asked(("70.", "15"), 1.234, 0.5, 1 << 30, 4000, 1000, "", 2.0)
    line = row("slides, 2 min", "retake-edge", asked, film, 0.4)
    assert (line["right"], line["answer_s"]) == ([True, False], 1.23)
    cut = Asked((), None, None, 1 << 30, None, None, "memory limit", 9.0)
    lines = [line, row("slides, 1 h", STOCK, cut, film, None)]
    table = compare_table({"runs": lines})
    assert table.splitlines()[2] == (
        "| slides, 2 min | retake-edge | 1.2 s | 0.5 s | 0.4 s | 1,024 MiB | 4,000 | 1,000 "
        "| right, wrong |"
    )
    assert table.splitlines()[3].endswith("| - | - | - | 1,024 MiB | - | - | memory limit |")


def test_an_unknown_case_is_refused(capsys):
    with pytest.raises(SystemExit):
        parse(["folder", "--cases", "a concert"])
    assert "a concert" in capsys.readouterr().err
    assert parse(["folder", "--cases", "slides, 2 min"]).cases == ["slides, 2 min"]


@pytest.mark.ffmpeg
@pytest.mark.process
def test_retake_edge_is_asked_twice_in_one_process_and_once_more_later(tmp_path, monkeypatch):
    monkeypatch.setitem(CASES, "short", ("slides", 30))
    film = make_film(tmp_path, "short", 3, 2.0, 112)
    assert [question.kind for question in film.questions] == list(KINDS)
    words = ["-m", "tiny", "--fps", "2", "-t", "1", "--cache-dir", str(tmp_path / "sessions")]
    questions = [question.text for question in film.questions]
    asked, facts = ask_ours(film.path, questions, [*words, *OURS["everything kept"]], LIMITS)
    assert (len(asked.texts), asked.ended) == (2, "")
    assert 0 < asked.follow_up_s < asked.answer_s < asked.seconds
    assert (facts["n_frames"], facts["n_cells_kept"]) == (60, facts["n_cells_before"])
    assert facts["again_s"] > 0


@pytest.mark.stock
@pytest.mark.ffmpeg
@pytest.mark.process
def test_the_stock_program_sees_the_frames_that_we_see(tmp_path, monkeypatch):
    """Builds llama.cpp (minutes); the folder STOCK_LLAMA_CPP keeps it for the next time."""
    built = build(Path(os.environ.get("STOCK_LLAMA_CPP", tmp_path / "stock")))
    monkeypatch.setitem(CASES, "short", ("slides", 30))
    film = make_film(tmp_path, "short", 3, 2.0, 112)
    source = parse(["folder"]).source
    options = StockOptions(source.model, source.mmproj, 2.0, 8, 1, frame_tokens=16)
    asked = ask([str(built)], film.path, [q.text for q in film.questions], options, LIMITS)
    assert (len(asked.texts), asked.ended) == (2, "")
    assert 0 < asked.follow_up_s < asked.answer_s
    n_steps = 30
    assert n_steps * 16 < asked.n_tokens < n_steps * 16 + 400
