"""Draw the README's picture: two questions about the bundled video, as a terminal shows them.

    .venv/bin/python scripts/make_picture.py

Runs the real commands and writes docs/images/ask.svg.
"""

from __future__ import annotations

import io
import re
import shlex
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parents[1]
COMMANDS = (
    'ask models/tiny/demo.mp4 "What number is on the red card?"',
    'ask models/tiny/demo.mp4 "When does the green card appear?"',
    "sessions list",
)
_FONTS = re.compile(r"(?s)@font-face\s*{.*?}")  # no picture loads anything from elsewhere


def main() -> None:
    """Write the picture."""
    console = Console(record=True, width=80, file=io.StringIO(), force_terminal=True)
    for command in COMMANDS:
        console.print(Text(f"$ retake-edge {command}", style="bold"), soft_wrap=True)
        call = [sys.executable, "-m", "retake_edge", *shlex.split(command)]
        done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=True)
        console.print(Text(done.stdout.rstrip()))
        for line in done.stderr.splitlines():
            if not line.startswith(("loading", "reading", "read ")) and " in /" not in line:
                console.print(Text(line, style="dim"))
    picture = _FONTS.sub("", console.export_svg(title="retake-edge"))
    (ROOT / "docs" / "images" / "ask.svg").write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    main()
