"""Fill the generated parts of README.md and docs/: the demo's transcript, the files, the settings.

python scripts/update_readme.py            rewrite all (runs the demo)
python scripts/update_readme.py --docs     rewrite those of docs/
python scripts/update_readme.py --check    exit 1 if one of docs/ is out of date
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

from retake_edge.config import all_settings

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
TREE = ROOT / "docs" / "tree.md"
API = ROOT / "docs" / "python-api.md"
DEMO = ROOT / "models" / "tiny" / "demo.mp4"
DEMO_QUESTIONS = ("What number is on the red card?", "When does the green card appear?")
BUILT = ("_bindings",)  # made by the build, not kept in git
FOLDERS = {
    "retake_edge": None,
    "cpp_patches": "the patch series over llama.cpp, and our C++ beside it",
    "models": "manifests, and the bundled model",
    "scripts": "fetching and patching llama.cpp, training the bundled model, fixtures",
    "benchmarks": "run files behind every figure",
    "docs": "the Python API, the policies and their evidence",
    "tests": "the tests and their data",
}


def file_tree() -> str:
    """Return one line a folder, and one a module with the first line of its docstring."""
    lines = []
    for folder, text in FOLDERS.items():
        if not (ROOT / folder).is_dir():
            continue
        lines.append(f"{folder + '/':<32}{text or ''}".rstrip())
        if text is None:
            files = sorted((ROOT / folder).rglob("*.py"))
            lines += [_module_line(path) for path in files if path.parent.name not in BUILT]
    return "```\n" + "\n".join(lines) + "\n```"


def _module_line(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    first = docstring.split("\n\n")[0].replace("\n", " ")
    sentence = re.split(r"(?<=[a-z0-9\")])[.;] ", first.rstrip("."))[0]
    depth = len(path.relative_to(ROOT).parts) - 1
    name = path.name if depth == 1 else "/".join(path.relative_to(ROOT).parts[1:])
    return f"  {name:<30}{sentence}"


def settings_table() -> str:
    """Return a Markdown table: every setting with its flag, default, values and help."""
    lines = ["| field | flag | default | values | |", "|---|---|---|---|---|"]
    for path, one in all_settings().items():
        flags = ", ".join(f"`{flag}`" for flag in one.flags) or f"none: {one.no_flag}"
        default = one.unset or ("none" if one.default in (None, "") else f"`{one.default}`")
        values = ", ".join(one.choices) or ("a number" if one.kind is float else "a whole number")
        if one.kind is bool:
            values = "`True` or `False`"
        elif one.range is not None and str(one.range) != "finite":
            values = str(one.range)
        elif one.kind is str and not one.choices:
            values = "text"
        lines.append(f"| `{path}` | {flags} | {default} | {values} | {one.help} |")
    return "\n".join(lines)


PROGRESS = ("loading", "reading", "read ")
"""How lines begin that go away at a terminal."""


def transcript() -> str:
    """Run the demo's questions and return what a terminal shows."""
    lines = []
    for question in DEMO_QUESTIONS:
        command = [sys.executable, "-m", "retake_edge", "ask", str(DEMO), question, "--no-cache"]
        run = subprocess.run(
            [*command, "--keep-ratio", "0.25"], capture_output=True, text=True, check=True
        )
        shown = DEMO.relative_to(ROOT)
        lines.append(f'$ retake-edge ask {shown} "{question}" --keep-ratio 0.25')
        told = [line for line in run.stderr.splitlines() if not line.startswith(PROGRESS)]
        lines += [run.stdout.rstrip(), *told]
    return "```\n" + "\n".join(lines) + "\n```"


def fill(page: Path, section: str, content: str) -> str:
    """Return the page's text with what stands between a section's markers replaced."""
    pattern = rf"(<!-- {section} -->\n).*?(<!-- /{section} -->)"
    text = page.read_text(encoding="utf-8")
    filled, n = re.subn(
        pattern, lambda m: f"{m[1]}{content}\n{m[2]}", text, count=1, flags=re.DOTALL
    )
    if n != 1:
        raise SystemExit(f"{page} has no markers for {section!r}.")
    return filled


def main() -> None:
    """Rewrite the pages, or check those of docs/."""
    pages = {
        TREE: fill(TREE, "tree", file_tree()),
        API: fill(API, "settings", settings_table()),
    }
    if "--check" in sys.argv[1:]:
        old = [page for page, text in pages.items() if text != page.read_text(encoding="utf-8")]
        raise SystemExit(f"{old[0]} is out of date." if old else 0)
    for page, text in pages.items():
        page.write_text(text, encoding="utf-8")
    if "--docs" in sys.argv[1:]:
        return
    README.write_text(fill(README, "transcript", transcript()), encoding="utf-8")


if __name__ == "__main__":
    main()
