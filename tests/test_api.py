"""The Python API as its page shows it, and what importing the package costs."""

import doctest
import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import retake_edge
from retake_edge.bench.scenes.render import write_video
from retake_edge.bench.scenes.scene import make_scene

PAGE = Path(__file__).parents[1] / "docs" / "python-api.md"


def test_every_example_of_the_api_page_runs(tmp_path, monkeypatch, capsys):
    write_video(make_scene(0, 16.0), tmp_path / "talk.mp4", fps=4.0, size_px=112)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RETAKE_CACHE_DIR", str(tmp_path / "cache"))
    examples = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(examples) == 10
    names: dict[str, Any] = {}
    for example in examples:
        exec(compile(example, str(PAGE), "exec"), names)
    out = capsys.readouterr().out
    assert re.search(r"\w+: \d+ of \d+\n", out), "a progress= callback is called"
    assert "There is no file missing.mp4; check the path." in out
    assert names["document"]["question"] == "What happens?"


def test_every_example_of_a_docstring_runs(tmp_path, monkeypatch, capsys):
    write_video(make_scene(0, 16.0), tmp_path / "talk.mp4", fps=4.0, size_px=112)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RETAKE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("RETAKE_MODEL", "tiny")
    with retake_edge.open_video("talk.mp4") as session:
        key = session.saved.key
    documented = (retake_edge.open_video, retake_edge.open_session, retake_edge.Session)
    for thing in documented:
        examples = doctest.DocTestParser().get_examples(inspect.getdoc(thing) or "")
        assert examples, thing
        names: dict[str, object] = {"retake_edge": retake_edge}
        for example in examples:
            source = example.source.replace("3f2a91c0", key[:8])
            exec(compile(source, thing.__name__, "exec"), names)
    assert re.search(r"load: \d+ of \d+", capsys.readouterr().out), "progress= is called"


def test_all_public_names_are_there_and_nothing_else():
    for name in retake_edge.__all__:
        assert getattr(retake_edge, name) is not None
    assert not hasattr(retake_edge, "no_such_name")


@pytest.mark.process
def test_importing_the_package_loads_nothing_heavy():
    code = "import sys, retake_edge, retake_edge.cli; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(out.stdout.split())
    assert loaded.isdisjoint({"numpy", "cv2", "gguf", "jinja2"})
    assert loaded.isdisjoint({"retake_edge.session.session", "retake_edge._bindings"})
