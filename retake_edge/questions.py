"""Check questions: text that a model can read, one question at a time."""

from __future__ import annotations

import codecs

from retake_edge.errors import ConfigError

_SHOWN = 40
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def checked_question(text: str) -> str:
    """Return a question as it is asked.

    Raises:
        ConfigError: it is empty, has NUL characters, or is no valid Unicode.
    """
    if not text.strip():
        raise ConfigError("The question is empty; say what you want to know of the video.")
    check_text("The question", text)
    return text


def check_text(name: str, text: str) -> None:
    """Raise ConfigError where `text` cannot be given to a model; `name` opens the sentence."""
    if "\0" in text:
        raise ConfigError(f"{name} has NUL characters ({text[:_SHOWN]!r}); give plain text.")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        shown = ascii(text[:_SHOWN])
        raise ConfigError(f"{name} is not valid UTF-8 text ({shown}); type it again.") from None


def decoded(name: str, data: bytes) -> str:
    """Return UTF-8 text without its byte order mark.

    Raises:
        ConfigError: it is text of another encoding, or no text; `name` opens the sentence.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" not in text:
        return text
    found = " (it looks like UTF-16)" if data.startswith(_UTF_16) or data.count(0) > 1 else ""
    raise ConfigError(f"{name} is not UTF-8 text{found}; convert it to UTF-8.")


def questions_of(text: str) -> list[str]:
    """Return the questions of a text, one a line; empty lines and `# comments` are left out."""
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]
