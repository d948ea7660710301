"""The Python API as its page shows it, and what importing the package costs."""

import re
import subprocess
import sys
from pathlib import Path

import retake_edge
from retake_edge.bench.scenes.scene import make_scene, write_video

PAGE = Path(__file__).parents[1] / "docs" / "python-api.md"


def test_every_example_of_the_api_page_runs(tmp_path, monkeypatch, capsys):
    write_video(make_scene(0, 16.0), tmp_path / "talk.mp4", fps=4.0, size_px=112)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RETAKE_CACHE_DIR", str(tmp_path / "cache"))
    examples = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(examples) == 8
    names: dict[str, object] = {}
    for example in examples:
        exec(compile(example, str(PAGE), "exec"), names)
    out = capsys.readouterr().out
    assert "There is no file missing.mp4; check the path." in out
    assert names["document"]["question"] == "What happens?"


def test_all_public_names_are_there_and_nothing_else():
    for name in retake_edge.__all__:
        assert getattr(retake_edge, name) is not None
    assert not hasattr(retake_edge, "no_such_name")


def test_importing_the_package_loads_nothing_heavy():
    code = "import sys, retake_edge, retake_edge.cli; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(out.stdout.split())
    assert loaded.isdisjoint({"numpy", "cv2", "gguf", "jinja2"})
    assert loaded.isdisjoint({"retake_edge.session.session", "retake_edge._bindings"})
