"""The engine's words stay off the screens that everyone sees; docs/glossary.md explains them."""

import os
import re
from pathlib import Path

import pytest
from report_support import sample_report
from session_support import ARGUMENTS, QUESTION, VIDEO, run

from retake_edge.report.page import render_report

ENGINE_WORDS = re.compile(
    r"\bKV\b|\bcells?\b|\bpivot\w*|\bprefill\w*|\bspread\b|\bgrid frames?\b", re.I
)
_FLAGS = re.compile(r"--[\w-]+")
_GLOSSARY = Path(__file__).parents[2] / "docs" / "glossary.md"
_CHAT = "/help\n/frames\n{q}\n/when\n/save\n/reset\n/nothing\n/bye\n"

HELPED = ("ask", "chat", "doctor", "index", "models", "plan", "pull", "report", "scene", "sessions")

SCREENS = {
    "ask": ["ask", str(VIDEO), QUESTION, *ARGUMENTS],
    "index": ["index", str(VIDEO), *ARGUMENTS],
    "chat": ["chat", str(VIDEO), *ARGUMENTS],
    "sessions": ["sessions", "list"],
    "sessions of no such key": ["sessions", "show", "abc"],
    "plan": ["plan", str(VIDEO), *ARGUMENTS],
    "plan of a model": ["plan", "-m", "qwen2.5-vl-3b"],
    "models": ["models", "--details"],
    "no model to pull": ["pull", "huge"],
    "doctor": ["doctor"],
    "no video to index": ["index", "/nowhere"],
    "an option that is none": ["ask", str(VIDEO), "x", "--nothing"],
    "all commands": ["--help"],
    **{f"help of {name}": [name, "--help"] for name in HELPED},
    "no such video": ["ask", "/nowhere.mp4", "x", *ARGUMENTS],
    "too small a context": ["ask", str(VIDEO), "x", *ARGUMENTS, "-c", "64"],
    "too long a question": ["ask", str(VIDEO), "why " * 600, *ARGUMENTS],
    "too small a budget": ["ask", str(VIDEO), "x", *ARGUMENTS[:-6], "--kv-budget", "2"],
    "no such model": ["ask", str(VIDEO), "x", "-m", "huge"],
    "a model that cannot see": ["ask", str(VIDEO), "x", "-m", ARGUMENTS[1], "-mm", ARGUMENTS[1]],
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("words")
    run("index", str(VIDEO), *ARGUMENTS, "--cache-dir", str(folder))
    return ["--cache-dir", str(folder)]


def engine_words(text: str) -> list[str]:
    """The words of a screen that it should do without; names of flags are no words."""
    return [match[0] for match in ENGINE_WORDS.finditer(_FLAGS.sub("", text))]


@pytest.mark.process
@pytest.mark.parametrize("name", SCREENS)
def test_everyday_screens_do_without_the_engines_words(name, cache):
    options = {"stdin": -1} if name == "chat" else {}
    if name == "chat":
        from session_support import command

        with command(*SCREENS[name], *cache, **options) as process:
            out, err = process.communicate(_CHAT.format(q=QUESTION), timeout=300)
    else:
        environment = {**os.environ, "RETAKE_CACHE_DIR": cache[1]}
        _, out, err = run(*SCREENS[name], env=environment)
    assert out + err, "there is no screen"
    assert engine_words(out + err) == [], out + err


def test_the_report_page_does_without_them_outside_its_settings():
    page = render_report(sample_report())
    shown = re.sub(r"(?s)<(style|script|details)\b.*?</\1>", "", page)
    assert engine_words(re.sub(r"<[^>]*>", " ", shown)) == []


def test_the_glossary_explains_each_of_them():
    words = _GLOSSARY.read_text(encoding="utf-8")
    for word in ("cell", "pivot", "prefill", "spread", "grid frame"):
        assert f"| {word} |" in words
