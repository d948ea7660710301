"""Run a build and show how far it is; its whole output is shown only if it fails.

    python scripts/show_percentage.py COMMAND...

Ninja counts its steps as [12/345], make as [ 3%].
"""

from __future__ import annotations

import re
import subprocess
import sys

_STEPS, _PERCENT = re.compile(r"\s*\[(\d+)/(\d+)\]"), re.compile(r"\s*\[ *(\d+)%\]")


def percent_of(line: str) -> int | None:
    """Return how far a build is that writes this line, in percent; None if it does not say."""
    if found := _STEPS.match(line):
        return 100 * int(found[1]) // max(1, int(found[2]))
    found = _PERCENT.match(line)
    return int(found[1]) if found else None


def main(command: list[str]) -> int:
    """Run the command; return its exit status."""
    is_terminal, shown, lines = sys.stdout.isatty(), -1, []
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    assert process.stdout is not None
    with process:
        for line in process.stdout:
            lines.append(line)
            percent = percent_of(line)
            if percent is not None and (percent != shown if is_terminal else percent >= shown + 10):
                print(
                    f"\rbuilding {percent:3} %" if is_terminal else f"building {percent} %",
                    end="" if is_terminal else "\n",
                    flush=True,
                )
                shown = percent
    if is_terminal and shown >= 0:
        print()
    if process.returncode:
        sys.stderr.writelines(lines)
    return process.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
