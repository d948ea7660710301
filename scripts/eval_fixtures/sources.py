"""Functions of other evaluations, taken out of their files and run as they are.

Their modules import torch, decord and whole toolkits that the functions themselves do not use.
"""

from __future__ import annotations

import ast
import copy
import os
import random
import re
import string
from pathlib import Path
from typing import Any

NO_GUESS = ""
"""What `random.choice` gives here: a guess is no answer."""


class _NoRandom:
    @staticmethod
    def choice(options: Any) -> str:
        return NO_GUESS


def functions_of(path: Path, *names: str, **given: Any) -> dict[str, Any]:
    """Return the top-level functions and values of a file by name; `given`: what else they see."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    wanted = [node for node in tree.body if _name(node) in names]
    missing = set(names) - {_name(node) for node in wanted}
    if missing:
        raise SystemExit(f"{path} has no {', '.join(sorted(missing))}")
    seen: dict[str, Any] = {
        **{"re": re, "os": os, "cp": copy, "string": string},
        **{"random": _NoRandom, "rd": random},
        **given,
    }
    exec(compile(ast.Module(wanted, []), str(path), "exec"), seen)
    return seen


def _name(node: ast.stmt) -> str:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return node.name
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        return node.targets[0].id
    return ""
