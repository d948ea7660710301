"""The tree at the top of errors.py is the tree of the classes."""

import importlib
import pkgutil
import re

import retake_edge
from retake_edge import errors


def drawn(error, depth=0):
    """Return (depth, name, exit code, module) of a class and of all below it, sorted."""
    module = error.__module__.removeprefix("retake_edge.")
    own = (depth, error.__name__, error.exit_code, "" if module == "errors" else module)
    below = [drawn(other, depth + 1) for other in error.__subclasses__()]
    return sorted([own, *(line for lines in below for line in lines)])


def test_the_tree_of_error_classes_is_drawn_as_it_is():
    skipped = ("_bindings", "__main__", "golden.report")
    for module in pkgutil.walk_packages(retake_edge.__path__, "retake_edge."):
        if not any(part in module.name for part in skipped):
            importlib.import_module(module.name)
    pattern = r"^( *)(\w+Error) +(\d)  (?:\((.+?)\))?"
    lines = re.findall(pattern, errors.__doc__, re.MULTILINE)
    told = sorted((len(space) // 2, name, int(code), at) for space, name, code, at in lines)
    assert told == drawn(errors.RetakeError)
