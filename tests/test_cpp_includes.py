"""Each C++ file includes what it uses of the standard library: compilers differ in the rest."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

SOURCES = Path(__file__).resolve().parents[1] / "cpp_patches" / "src"
HEADERS = {
    "algorithm": "all_of any_of copy equal fill find is_sorted make_heap max min none_of pop_heap "
    "push_heap remove_if sort",
    "cmath": "isfinite isnan",
    "cstring": "memcpy memset",
    "exception": "current_exception exception exception_ptr rethrow_exception",
    "functional": "function greater",
    "initializer_list": "initializer_list",
    "iterator": "next",
    "limits": "numeric_limits",
    "map": "map",
    "memory": "make_shared make_unique shared_ptr unique_ptr",
    "mutex": "lock_guard mutex",
    "new": "bad_alloc nothrow",
    "string": "string to_string",
    "system_error": "system_error",
    "thread": "thread",
    "utility": "move pair",
    "vector": "vector",
}
HEADER_OF = {name: header for header, names in HEADERS.items() for name in names.split()}


def used(text: str) -> set[str]:
    """Return the headers of the names in std that a source uses; unknown names stand for theirs."""
    code = re.sub(r"//.*", "", text)
    return {HEADER_OF.get(name, f"of std::{name}") for name in re.findall(r"\bstd::(\w+)", code)}


def included(path: Path) -> set[str]:
    """Return the headers that a source includes, and those that this project's headers do."""
    text = path.read_text(encoding="utf-8")
    found = set(re.findall(r"#include <(\w+)>", text))
    for name in re.findall(r'#include "(retake-[\w-]+\.h)"', text):
        found |= included(SOURCES / name)
    return found


@pytest.mark.parametrize("path", sorted(SOURCES.iterdir()), ids=lambda path: path.name)
def test_what_a_source_uses_of_the_standard_library_it_includes(path: Path) -> None:
    assert used(path.read_text(encoding="utf-8")) - included(path) == set()


def test_a_name_whose_header_is_missing_is_found() -> None:
    assert used("catch (const std::system_error &) {}  // std::thread") == {"system_error"}
    assert used("std::jthread worker;") == {"of std::jthread"}
