"""The page's scripts, joined into one."""

import re

import pytest

from retake_edge.page.assets import FOLDER, joined_script, text_of

MODULES = sorted(path.name for path in FOLDER.glob("*.js"))


@pytest.mark.parametrize("entry", ["report.js", "app.js"])
def test_a_joined_script_has_each_module_once_and_before_its_use(entry):
    script = joined_script(entry)
    assert not re.search(r"^(import|export)\b", script, re.MULTILINE)
    firsts = [text_of(name).splitlines()[0] for name in MODULES]
    assert all(script.count(line) <= 1 for line in firsts)
    assert script.index("export function el".removeprefix("export ")) < script.index("class Player")
    assert script.rstrip().endswith(text_of(entry).rstrip()[-40:])


def test_a_name_stands_for_one_thing_in_all_modules():
    """What is joined shares one scope."""
    names: dict[str, str] = {}
    for module in MODULES:
        found = re.findall(
            r"^(?:export )?(?:async )?(?:function\*?|class|const|let) (\w+)",
            text_of(module),
            re.MULTILINE,
        )
        for name in found:
            assert name not in names, f"{name} is in {names.get(name)} and {module}"
            names[name] = module


def test_the_page_names_nothing_that_lies_elsewhere():
    for path in FOLDER.iterdir():
        found = re.findall(r"(?:https?:)?//[\w.]+\.\w+", path.read_text(encoding="utf-8"))
        assert set(found) <= {"http://www.w3.org"}, path.name
    page = text_of("index.html")
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=", page)
