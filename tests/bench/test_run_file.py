"""Run files: read as they were written, also those of the version before."""

import json

import pytest

from retake_edge.bench.run_file import layout, read_run_file
from retake_edge.errors import ConfigError


def test_a_run_file_is_read_as_it_was_written(tmp_path):
    document = {"what": "quality", "settings": {"keep_ratios": [1.0]}, "cells": [{"keep_ratio": 1}]}
    (tmp_path / "run.json").write_text(layout(document), encoding="utf-8")
    assert read_run_file(tmp_path / "run.json") == document


def test_a_run_file_of_the_version_before_is_read(tmp_path):
    path = tmp_path / "run.json"
    old = {"what": "speed", "settings": {"keeps": [1.0], "keep": 0.5, "seed": 1}, "cells": []}
    path.write_text(json.dumps(old | {"cells": [{"keep": 0.5, "right": 3}]}), encoding="utf-8")
    found = read_run_file(path)
    assert found["settings"] == {"keep_ratios": [1.0], "keep_ratio": 0.5, "seed": 1}
    assert found["cells"] == [{"keep_ratio": 0.5, "right": 3}]


@pytest.mark.parametrize("text", ["", "[]", "{"])
def test_what_is_no_run_file_is_refused(tmp_path, text):
    (tmp_path / "run.json").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match="run file"):
        read_run_file(tmp_path / "run.json")
