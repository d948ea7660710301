"""A small JSON object in the cache folder: worth remembering, and no loss where it is gone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from retake_edge.journal import write_atomically


class Remembered:
    """The newest `n_max` values by key; a file that cannot be read or written is done without.

    Without a path nothing is known nor kept.
    """

    def __init__(self, path: Path | None, n_max: int) -> None:
        self._path, self._n_max = path, n_max

    def get(self, key: str) -> Any:
        """Return a key's value, None if there is none."""
        return self._read().get(key)

    def put(self, key: str, value: Any) -> None:
        """Remember a value as the newest."""
        if self._path is None:
            return
        known = self._read()
        known.pop(key, None)
        newest = dict([*known.items(), (key, value)][-self._n_max :])
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._path, json.dumps(newest).encode())
        except OSError:
            pass

    def _read(self) -> dict[str, Any]:
        if self._path is None:
            return {}
        try:
            known = json.loads(self._path.read_bytes())
        except (OSError, ValueError):
            return {}
        return known if isinstance(known, dict) else {}
