"""The tables in the README and the documents are those of the run files."""

from pathlib import Path

import make_tables
import pytest

from retake_edge.bench.run_file import command_line
from retake_edge.bench.speed.checks import checks
from retake_edge.bench.speed.report import goals_table
from retake_edge.bench.tables import run_tables
from retake_edge.errors import ConfigError

ROOT = Path(__file__).parents[2]


def test_the_pages_show_what_was_measured():
    stale = [page.name for page in make_tables.stale_pages()]
    assert not stale, "run scripts/make_tables.py"


def test_a_page_has_the_measured_block():
    page = (ROOT / "docs/measured.md").read_text()
    assert "<!-- measured -->" in page and "benchmarks/quality.json" in page


def test_a_changed_figure_makes_a_page_stale():
    page = (ROOT / "docs/measured.md").read_text()
    start = page.index("<!-- measured -->")
    digit = next(i for i in range(start, len(page)) if page[i].isdigit())
    changed = page[:digit] + str((int(page[digit]) + 1) % 10) + page[digit + 1 :]
    assert make_tables.filled(changed) == page


def test_text_outside_the_markers_stays():
    page = "before\n<!-- events -->\nold\n<!-- /events -->\nafter\n"
    made = make_tables.filled(page)
    assert made.startswith("before\n<!-- events -->\n\n| keep")
    assert made.endswith("<!-- /events -->\nafter\n") and "old" not in made


@pytest.mark.parametrize("name", ["speed", "speed-length"])
def test_a_run_file_of_speed_stands_on_two_cuts_and_on_what_the_operations_say(name):
    """Seconds of the cuts within 1.25 of the operations' ratio, of a layer at two lengths 1.5."""
    if not make_tables.is_measured(name):
        assert "Not measured yet" in make_tables.measured()
        return
    document = make_tables.run_file(name)
    assert min(cut["layers"] for cut in document["cuts"]) >= 2 and len(document["cuts"]) == 2
    found = checks(document)
    assert found and [check for check in found if not check.holds] == []


def test_goals_that_do_not_hold_are_said_to_be_so():
    def figures(prefill_s, token_s):
        seconds = dict.fromkeys(("score", "select", "compact"), 0.2) | {"prefill": prefill_s}
        names = ("first_token_s", "kv_bytes", "kv_allocated_bytes", "peak_memory_bytes")
        run = {"n_tokens": 16384, "token_s": token_s, "seconds": seconds}
        return run | {"seconds": seconds | {"video in all": prefill_s}} | dict.fromkeys(names, 1)

    whole = {"full f16": figures(10.0, 1.0), "spread f16": figures(11.0, 0.5)}
    document = {
        "settings": {"kv_types": ["f16"], "policy": "spread"},
        "cuts": [{}, {}],
        "lengths": [{"whole": whole, "ratios": {}}],
    }
    table = goals_table(document)
    assert "no slower, 16384 tokens | 1.1: **does not hold** |" in table
    assert "of prefill, 16384 tokens | 0.0545: **does not hold** |" in table
    assert "32768" not in table and "extrapolated" in table
    whole["spread f16"] = figures(9.0, 0.5) | {"n_tokens": 32768}
    whole["full f16"]["n_tokens"] = 32768
    assert "1.3 times as fast, 32768 tokens | 2: holds |" in goals_table(document)


def test_commands_are_shown_without_folders():
    argv = ["/some/where/cli", "bench", "quality", "--out", "/some/where/run.json", "a b"]
    assert command_line(argv) == "retake-edge bench quality --out run.json 'a b'"


def test_a_document_that_is_no_run_file_is_refused():
    with pytest.raises(ConfigError, match="no run file"):
        run_tables({"what": "nonesuch"})
