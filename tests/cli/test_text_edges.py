"""Text that is no text, and streams that are closed, full or left: a sentence, and no traceback."""

import os
import subprocess
import sys

import pytest
from session_support import ARGUMENTS, MODEL, VIDEO, opened

from retake_edge.errors import ConfigError
from retake_edge.questions import checked_question, decoded, questions_of
from retake_edge.session.conversation import Conversation

pytestmark = pytest.mark.process

ASK = ("ask", str(VIDEO), "What?", *ARGUMENTS, "--no-cache")
ASK_FILE = ("ask", str(VIDEO), "--questions", "-", *ARGUMENTS, "--no-cache")
CHAT = ("chat", str(VIDEO), *ARGUMENTS, "--no-cache")
BOM = b"\xef\xbb\xbf"


def shell(line, *arguments, data=b""):
    """Run the command line where the shell has set up its streams as `line` says."""
    script = f'"$@" {line}'
    call = ["bash", "-c", script, "bash", sys.executable, "-m", "retake_edge", *arguments]
    found = subprocess.run(call, input=data, capture_output=True, timeout=300)
    assert b"Traceback" not in found.stderr, found.stderr.decode()
    return found.returncode, found.stdout, found.stderr.decode()


@pytest.mark.parametrize("arguments", [ASK, (*ASK, "--json"), ("models",), ("--help",)])
@pytest.mark.parametrize(
    ("line", "said"), [(">&-", "standard output is closed"), (">/dev/full", "Cannot write")]
)
def test_an_output_that_takes_nothing_ends_in_a_sentence(arguments, line, said):
    code, _, err = shell(line, *arguments)
    *before, last = err.strip().splitlines()
    assert code == 2 and said in last and not any("error" in line for line in before)


@pytest.mark.parametrize("line", ["2>&-", "2>/dev/full"])
def test_what_cannot_be_told_on_standard_error_is_not_told(line):
    code, out, _ = shell(line, *ASK)
    assert code == 0 and out.strip() == shell("", *ASK)[1].strip()


def test_a_reader_that_left_is_no_error():
    code, out, err = shell('| true; echo "${PIPESTATUS[0]}"', "--help")
    assert code == 0 and err == "" and out.split()[-1] in (b"0", b"141")


@pytest.mark.parametrize("arguments", [CHAT, ASK_FILE])
def test_a_closed_input_that_is_asked_for_is_said(arguments):
    code, out, err = shell("<&-", *arguments)
    assert (code, out) == (2, b"") and "standard input is closed" in err


def test_a_closed_input_that_nobody_reads_does_not_matter():
    assert shell("<&-", *ASK)[0] == 0


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("What?".encode("utf-16"), "looks like UTF-16"),
        ("What?".encode("utf-16-le"), "looks like UTF-16"),
        (b"\xff\xfe\xfd", "not UTF-8"),
        (b"one\0two", "not UTF-8"),
        (BOM + b"\n# only a comment\n", "no question"),
    ],
)
def test_questions_that_are_no_text_are_refused(data, said):
    code, out, err = shell("", *ASK_FILE, data=data)
    assert (code, out) == (2, b"") and said in err and len(err.strip().splitlines()) == 1


def test_a_mark_and_comments_are_not_asked():
    data = BOM + b"What?\r\n\n# a comment\n  What?  \n"
    code, out, err = shell("", *ASK_FILE, data=data)
    assert code == 0 and err.count("> What?") == 2 and "#" not in err
    assert len(out.splitlines()) == 2


@pytest.mark.parametrize("text", ["", " \t", os.fsdecode(b"\xff\xfe"), "a\0b"])
def test_a_question_that_is_none_is_refused(text):
    with pytest.raises(ConfigError, match="question"):
        checked_question(text)


@pytest.mark.parametrize("question", [b"", b"  ", b"\xff\xfe"])
@pytest.mark.parametrize("command", ["ask", "report"])
def test_the_command_line_refuses_it_before_it_loads_anything(command, question):
    arguments = [command, str(VIDEO), "-q", question, "-m", "nonesuch.gguf"]
    code, out, err = shell("", *arguments)
    assert (code, out) == (2, b"") and "question" in err


def test_python_refuses_it_and_goes_on(tmp_path):
    with opened(tmp_path) as session:
        right = session.ask("What?").text
        for bad in ("", "\udcff"):
            with pytest.raises(ConfigError):
                session.ask(bad)
        assert session.ask("What?").text == right
        with Conversation(session) as conversation:
            with pytest.raises(ConfigError):
                conversation.ask(" ")
            assert conversation.ask("What?").text == right


def test_a_chat_goes_on_after_a_line_that_is_no_text():
    bad = b"\xff\xfe\n" + "x".encode("utf-16") + b"\n"
    code, out, err = shell("", *CHAT, data=b"What?\n" + bad + b"What?\n")
    assert code == 0 and len(out.splitlines()) == 2
    assert err.count("error: The line is not UTF-8 text") == 2


def test_text_is_decoded_without_its_mark():
    assert decoded("It", BOM + "é".encode()) == "é"
    assert questions_of("a\n#b\n\n #c\nd # e\n") == ["a", "d # e"]


@pytest.mark.parametrize("option", ["-sys", "--grammar"])
def test_other_text_is_checked_too(option):
    code, _, err = shell("", "ask", str(VIDEO), "What?", option, b"\xff", "-m", str(MODEL.model))
    assert code == 2 and "not valid UTF-8" in err
