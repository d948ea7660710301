"""Counting and wording for the golden checks, and reading their files."""

from __future__ import annotations

import json
import sys
import zipfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retake_edge.errors import ConfigError

Array = npt.NDArray[Any]


@dataclass
class Comparison:
    """The result of one case: the check it got, and a sentence for each thing that is off."""

    check: str
    problems: list[str] = field(default_factory=list)
    near_ties: list[str] = field(default_factory=list)
    worst: dict[str, float] = field(default_factory=dict)

    def exact(self, name: str, found: Array, expected: Array) -> None:
        """Compare integers or flags: all must be equal."""
        self._compare(name, found, expected, 0.0)
        self.worst.pop(name, None)  # it is 0, or the case fails

    def close(self, name: str, found: Array, expected: Array, limit: float) -> None:
        """Compare floats: no difference may exceed `limit`."""
        self._compare(name, found, expected, limit)

    def near_tie(self, name: str, gap: float, limit: float) -> None:
        """Note an index that differs, its values `gap` apart: a problem above `limit`."""
        text = f"{name} differs where values are {gap:.3g} apart"
        (self.near_ties if gap <= limit else self.problems).append(text)

    def require(self, ok: bool, problem: str) -> None:
        """Note a problem unless `ok`."""
        if not ok:
            self.problems.append(problem)

    def _compare(self, name: str, found: Array, expected: Array, limit: float) -> None:
        if found.shape != expected.shape:
            shapes = f"{list(found.shape)} instead of {list(expected.shape)}"
            self.problems.append(f"{name} has shape {shapes}")
            return
        difference = np.abs(found.astype(np.float64) - expected.astype(np.float64))
        if not difference.size:
            return
        # NaN compares false with any limit, and must fail.
        high = float(difference.max())
        self.worst[name] = max(self.worst.get(name, 0.0), high)
        if not high <= limit:
            mean = float(difference.mean())
            self.problems.append(f"{name} differs by max {high:.3g} mean {mean:.3g}")


class Report:
    """Collects comparisons and writes one line for each failed case."""

    def __init__(self, *, verbose: bool = False) -> None:
        self.n_passed = self.n_failed = self.n_near_ties = 0
        self._verbose = verbose
        self._checks: Counter[str] = Counter()
        self._worst: dict[str, dict[str, float]] = {}

    def add(self, name: str, result: Comparison) -> None:
        """Count one case; print it if it failed."""
        self._checks[result.check] += 1
        worst = self._worst.setdefault(result.check, {})
        for key, value in result.worst.items():
            worst[key] = max(worst.get(key, 0.0), value)
        if result.problems:
            self.n_failed += 1
            print(f"FAIL {name} ({result.check}): {'; '.join(result.problems)}")
        else:
            self.n_passed += 1
            if result.near_ties:
                self.n_near_ties += 1
                print(f"near {name} ({result.check}): {'; '.join(result.near_ties)}")
            elif self._verbose:
                print(f"ok   {name} ({result.check})")

    def note(self, text: str) -> None:
        """Print a remark that is no case."""
        print(text)

    def close(self) -> None:
        """Print what was checked, the worst differences, and the closing line."""
        for check, n in self._checks.items():
            worst = ", ".join(f"{k} {v:.3g}" for k, v in self._worst[check].items())
            print(f"{n} x {check}" + (f"; worst: {worst}" if worst else ""))
        if self.n_near_ties:
            print(f"{self.n_near_ties} end at a near-tie: what follows from it is not compared")
        sys.stdout.flush()
        print(f"{self.n_passed} passed, {self.n_failed} failed")


class GoldenSet:
    """One data set of a folder: NAME.json and NAME.npz.

    Raises:
        ConfigError: a file is missing or cannot be read.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        try:
            self.info: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
            self._arrays: Mapping[str, Array] = np.load(folder / f"{name}.npz")
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise ConfigError(f"{folder / name}.json and .npz cannot be read ({error}).") from error
        if not isinstance(self.info, dict) or not isinstance(self.info.get("cases"), list):
            raise ConfigError(f"{folder / name}.json holds no list of cases.")

    @property
    def cases(self) -> list[dict[str, Any]]:
        """The cases as the json describes them."""
        return list(self.info["cases"])

    def __contains__(self, key: str) -> bool:
        return key in self._arrays

    def __getitem__(self, key: str) -> Array:
        if key not in self._arrays:
            raise ConfigError(f"{self.name}.npz has no array {key}, which its json promises.")
        return self._arrays[key]
