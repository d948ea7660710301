"""README and docs are what the code says: the file tree, the commands, the transcript."""

import re
import subprocess
import sys
from pathlib import Path

from update_readme import PROGRESS

from retake_edge.compress.policies import POLICIES as RULES
from retake_edge.config import POLICIES

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]


def test_the_file_tree_is_up_to_date():
    check = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "update_readme.py"), "--check"],
        capture_output=True,
        text=True,
    )
    assert check.returncode == 0, check.stderr


def test_the_transcript_in_the_readme_is_what_the_program_says():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    pattern = r'^\$ retake-edge ask (\S+) "(.+?)" (.+)\n(.+)\n(.+\n.+)$'
    shown = re.findall(pattern, readme, re.MULTILINE)
    assert len(shown) == 2
    for video, question, options, answer, told in shown:
        command = [sys.executable, "-m", "retake_edge", "ask", str(ROOT / video), question]
        run = subprocess.run([*command, *options.split()], capture_output=True, text=True)
        said = [line for line in run.stderr.splitlines() if not line.startswith(PROGRESS)]
        assert (run.stdout.strip(), "\n".join(said)) == (answer, told)


def test_every_policy_of_the_command_line_has_a_rule():
    assert set(POLICIES) == set(RULES)


def test_the_map_of_the_house_has_the_lines_of_the_layer_contract():
    """docs/architecture.md's table, from line 1 down, and the layers from cli down."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = project["tool"]["importlinter"]["contracts"][0]["layers"]
    contract = [set(re.findall(r"retake_edge\.(\w+)", layer)) for layer in layers]
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    lines: dict[int, set[str]] = {}
    for number, names in re.findall(r"^\| (\d+) \| (.+?) \|", page, re.MULTILINE):
        lines.setdefault(int(number), set()).update(re.findall(r"`(\w+)/?`", names))
    assert [lines[number] for number in sorted(lines)] == contract[1:]
    assert list(lines) == sorted(lines)
