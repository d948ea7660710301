"""The pictures of a run file show its figures."""

from pathlib import Path
from typing import Any

import numpy as np
import plot
import pytest

from retake_edge.bench.run_file import read_run_file

RUN_FILE = Path(__file__).parents[2] / "benchmarks" / "quality.json"


def test_a_quality_run_is_four_pictures(tmp_path):
    assert plot.main([str(RUN_FILE), str(tmp_path / "q.svg")]) is None
    names = ["q-depth.svg", "q-needle.svg", "q-when.svg", "q.svg"]
    assert sorted(file.name for file in tmp_path.iterdir()) == names
    assert "pivotkv-reference" in (tmp_path / "q-needle.svg").read_text()


def test_the_lines_are_the_shares_of_the_run_file():
    document = read_run_file(RUN_FILE)
    boxes: Any = plot.accuracy(document, "needle").axes[0].containers
    lines = {box.get_label(): box.lines[0].get_ydata() for box in boxes}
    keep_ratios = sorted(
        (c["keep_ratio"] for c in document["cells"] if c["policy"] == "spread"), reverse=True
    )
    for at, keep_ratio in enumerate(dict.fromkeys(keep_ratios), 1):
        of = [
            c for c in document["cells"] if (c["policy"], c["keep_ratio"]) == ("spread", keep_ratio)
        ]
        counts = [[c["groups"]["needle"][key] for key in ("right", "n")] for c in of]
        n_right, n = np.sum(counts, axis=0)
        assert lines["spread"][at] == pytest.approx(100 * n_right / n)


def test_an_empty_place_of_a_heat_map_has_no_number():
    figure = plot.heat_map("t", ["a"], ["b", "c"], np.array([[0.25, np.nan]]))
    assert [text.get_text() for text in figure.axes[0].texts] == ["25"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"what": "speed"}'])
def test_what_is_no_such_run_file_is_refused(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    assert "is no run file" in plot.main([str(tmp_path / "run.json"), str(tmp_path / "p.svg")])
    assert not (tmp_path / "p.svg").exists()


def test_a_picture_of_a_kind_that_is_not_drawn_is_refused(tmp_path):
    assert "cannot be written" in plot.main([str(RUN_FILE), str(tmp_path / "q.doc")])
