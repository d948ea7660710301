"""The files of the page: served one by one, or joined into a page that holds all it needs.

The scripts are ES modules that browsers load as they are. A frozen page has one script: its
modules one after another, those that are imported first, without their import and export lines.
For that a name stands for one thing in all modules, and an import is a line of its own.
"""

from __future__ import annotations

import re
from pathlib import Path

FOLDER = Path(__file__).parent / "static"
_IMPORT = re.compile(r'^import (?:\{[^}]*\} from )?"\./([\w.]+)";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function|class|const|let)\b)", re.MULTILINE)


def text_of(name: str) -> str:
    """Return the text of a file of the page."""
    return (FOLDER / name).read_text(encoding="utf-8")


def joined_script(entry: str) -> str:
    """Return a module together with all that it imports, as one script."""
    done: list[str] = []
    _collect(entry, done)
    parts = [_EXPORT.sub("", _IMPORT.sub("", text_of(name))) for name in done]
    return "\n".join(parts)


def _collect(name: str, done: list[str]) -> None:
    """Add a module's name behind those that it imports."""
    for other in _IMPORT.findall(text_of(name)):
        if other not in done:
            _collect(other, done)
    if name not in done:
        done.append(name)
