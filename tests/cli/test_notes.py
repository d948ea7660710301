"""Notes, warnings and errors at a terminal: their lines break between words."""

import pytest
from pty_support import at_terminal
from session_support import ARGUMENTS, QUESTION, VIDEO, run

from retake_edge.cli.streams import between_words

pytestmark = pytest.mark.process

LONG = "a question of some length that is about nothing at all " * 40


@pytest.mark.parametrize("columns", [80, 120])
def test_a_long_error_breaks_between_words(columns):
    code, _, whole = run("ask", str(VIDEO), LONG, *ARGUMENTS, "--no-cache")
    with at_terminal(
        "ask", str(VIDEO), LONG, *ARGUMENTS, "--no-cache", columns=columns
    ) as terminal:
        assert terminal.ended() == code != 0
        lines = [line.rstrip() for line in terminal.lines() if line.strip()]
    assert len(lines) > 1 and all(len(line) <= columns for line in lines)
    assert " ".join(lines).split() == whole[whole.index("error:") :].split()


def test_what_is_laid_out_in_columns_stays_as_it_is(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    table = f"key       size      part{' ' * 40}age"
    assert between_words(f"{table}\nshort") == f"{table}\nshort"
    assert between_words("word " * 20) == "\n".join(
        ["word word word word word word word word"] * 2 + ["word word word word"]
    )


def test_sessions_rm_asks_at_a_terminal_and_removes_only_after_a_yes(tmp_path):
    cache = ["--cache-dir", str(tmp_path)]
    code, key, err = run("index", str(VIDEO), *ARGUMENTS, *cache)
    assert code == 0, err
    for answer, told in (
        ("", "Nothing is removed."),
        ("n", "Nothing"),
        ("y", "1 saved video removed"),
    ):
        with at_terminal("sessions", "rm", key[:8], *cache) as terminal:
            terminal.wait_for("Remove 1 saved video")
            assert (tmp_path / "sessions" / f"{key.strip()}.session").exists()
            terminal.line(answer)
            assert terminal.ended() == 0 and told in terminal.text()
    assert not (tmp_path / "sessions" / f"{key.strip()}.session").exists()


def test_an_empty_answer_is_said_to_be_one(tmp_path):
    code, out, err = run(
        "ask",
        str(VIDEO),
        QUESTION,
        *ARGUMENTS,
        "--cache-dir",
        str(tmp_path),
        "--grammar",
        'root ::= ""',
    )
    assert code == 0, err
    assert not out.strip() and "an empty answer" in err
