"""README and docs are what the code says: the file tree, the commands, the transcript."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from update_readme import PROGRESS

from retake_edge.compress.policies import POLICIES as RULES
from retake_edge.config import POLICIES

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.process
def test_the_file_tree_and_the_settings_are_up_to_date():
    check = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "update_readme.py"), "--check"],
        capture_output=True,
        text=True,
    )
    assert check.returncode == 0, check.stderr


@pytest.mark.process
def test_the_transcript_in_the_readme_is_what_the_program_says(tmp_path, monkeypatch):
    """Answers and times; by how much an answer looked where depends on the processor."""
    monkeypatch.setenv("RETAKE_CACHE_DIR", str(tmp_path))  # nothing was read before
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    pattern = r'^\$ retake-edge ask (\S+) "(.+?)" (.+)\n(.+)\n(.+\n.+)$'
    shown = re.findall(pattern, readme, re.MULTILINE)
    assert len(shown) == 2
    for video, question, options, answer, told in shown:
        command = [sys.executable, "-m", "retake_edge", "ask", str(ROOT / video), question]
        run = subprocess.run([*command, *options.split()], capture_output=True, text=True)
        said = [line for line in run.stderr.splitlines() if not line.startswith(PROGRESS)]
        spans, facts = told.splitlines()
        assert (run.stdout.strip(), said[1:]) == (answer, [facts])
        assert re.match(r"at \d+:\d\d-", spans)[0] == re.match(r"at \d+:\d\d-", said[0])[0]


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


def _texts():
    folders = ("docs", "cpp_patches", "retake_edge", "scripts", "tests")
    found = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "Makefile"]
    for folder in folders:
        found += [
            path for end in ("md", "py", "patch") for path in ROOT.glob(f"{folder}/**/*.{end}")
        ]
    return [path for path in found if "_bindings" not in path.parts]


@pytest.mark.parametrize("path", _texts(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_and_module_that_a_text_names_is_there(path):
    text = path.read_text(encoding="utf-8")
    files = set(re.findall(r"\b(?:retake_edge|tests|scripts)/[a-z_/]+\.py\b", text))
    assert [name for name in files if not (ROOT / name).is_file()] == []
    names = set(re.findall(r"\bretake_edge(?:\.[a-z]\w*)+", text))  # also in strings
    names |= {".".join(pair) for pair in re.findall(r"from (retake_edge[\w.]*) import (\w+)", text)}
    assert [name for name in names if "_bindings" not in name and not _is_there(name)] == []


def _is_there(name: str) -> bool:
    """Whether a dotted name is a module of the package, or what a module holds."""
    module, _, held = name.rpartition(".")
    try:
        importlib.import_module(name)
    except ImportError:
        return bool(module) and _is_there(module) and hasattr(importlib.import_module(module), held)
    return True
