"""Every module is imported by a test, or it is said how it is tested."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTED_OTHERWISE = {
    "__main__": "python -m retake_edge: all tests of the command line",
    "version": "the build reads it: tests/test_build.py",
    "formats": "the words of screens and pages: tests/cli, tests/report",
    "stages": "the seconds of sessions and chunks: tests/session, tests/engine",
    "cli.": "the command line is called as a user does: tests/cli",
    "server.": "asked over HTTP: tests/server",
    "evaluate.": "through presets, sets and the commands: tests/evaluate",
    "convert.": "a whole checkpoint: tests/models/test_convert.py",
    "golden.": "python -m retake_edge.golden: tests/reference",
    "bench.quality.": "bench quality --plot: tests/bench",
    "bench.speed.": "processes of bench speed: tests/bench",
    "engine.state": "sessions that stop and go on: tests/session",
    "models.families.": "the rules of every family: tests/models",
    "models.hub.": "pull from a hub of our own: tests/models/test_hub.py",
    "models.shape": "published models' plans: tests/models/test_published.py",
    "plan.positions": "plans near a trained context: tests/engine/test_trained_context.py",
    "session.": "sessions that are saved and opened: tests/session",
    "video.": "the decoder process reads files: tests/video",
}


def imported() -> set[str]:
    """Return the modules, and the names in them, that tests import."""
    found: set[str] = set()
    for path in (ROOT / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {name.name for name in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found |= {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
    return found


def test_every_module_is_imported_by_a_test_or_has_a_reason():
    tested, left = imported(), []
    for path in sorted((ROOT / "retake_edge").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if "_bindings" in parts or parts[-1] == "__init__" or ".".join(parts) in tested:
            continue
        name = ".".join(parts[1:])
        if not any(
            name == key or (key[-1] == "." and name.startswith(key)) for key in TESTED_OTHERWISE
        ):
            left.append(name)
    assert left == []
