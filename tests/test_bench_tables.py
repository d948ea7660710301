"""The tables in the README and the documents are those of the run files."""

import importlib.util
from pathlib import Path

import pytest

from retake_edge.bench.run_file import command_line
from retake_edge.bench.tables import run_tables
from retake_edge.errors import ConfigError

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def make_tables():
    spec = importlib.util.spec_from_file_location("make_tables", ROOT / "scripts/make_tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pages_show_what_was_measured(make_tables):
    stale = [page.name for page in make_tables.stale_pages()]
    assert not stale, "run scripts/make_tables.py"


def test_a_page_has_the_measured_block(make_tables):
    page = (ROOT / "docs/measured.md").read_text()
    assert "<!-- measured -->" in page and "benchmarks/quality.json" in page


def test_a_changed_figure_makes_a_page_stale(make_tables):
    page = (ROOT / "docs/measured.md").read_text()
    start = page.index("<!-- measured -->")
    digit = next(i for i in range(start, len(page)) if page[i].isdigit())
    changed = page[:digit] + str((int(page[digit]) + 1) % 10) + page[digit + 1 :]
    assert make_tables.filled(changed) == page


def test_text_outside_the_markers_stays(make_tables):
    page = "before\n<!-- events -->\nold\n<!-- /events -->\nafter\n"
    made = make_tables.filled(page)
    assert made.startswith("before\n<!-- events -->\n\n| keep")
    assert made.endswith("<!-- /events -->\nafter\n") and "old" not in made


def test_commands_are_shown_without_folders():
    argv = ["/some/where/cli", "bench", "quality", "--out", "/some/where/run.json", "a b"]
    assert command_line(argv) == "retake-edge bench quality --out run.json 'a b'"


def test_a_document_that_is_no_run_file_is_refused():
    with pytest.raises(ConfigError, match="no run file"):
        run_tables({"what": "nonesuch"})
