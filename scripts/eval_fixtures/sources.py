"""Import single modules of other evaluations, without what their packages import beside them.

Their packages import torch, decord and whole toolkits on the way to a function that needs none of
it. A package made bare runs no `__init__`; what is not installed stands in as an empty module.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock


class NoGuess:
    """In place of `random`: a guess is no answer."""

    @staticmethod
    def choice(options: Any) -> str:
        return ""


def make_bare(name: str) -> None:
    """Make a package's modules importable without running its `__init__`."""
    parent, _, last = name.rpartition(".")
    module = ModuleType(name)
    if parent:
        module.__path__ = [str(Path(path) / last) for path in sys.modules[parent].__path__]
        setattr(sys.modules[parent], last, module)
    else:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.submodule_search_locations is None:
            raise SystemExit(f"{name} is not installed here")
        module.__path__ = list(spec.submodule_search_locations)
    sys.modules[name] = module


def stand_in_for(names: Sequence[str]) -> None:
    """Let these modules, and those below them, be imported with nothing in them."""
    sys.meta_path.insert(0, _Absent(names))


class _Absent(MetaPathFinder, Loader):
    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if any(name == absent or name.startswith(f"{absent}.") for absent in self._names):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: Any) -> ModuleType:
        return _Empty(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


class _Empty(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return MagicMock()
