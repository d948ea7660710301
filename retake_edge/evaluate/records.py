"""Records of a table as it is published: parquet, json or jsonl."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from retake_edge.errors import ConfigError

SUFFIXES = (".parquet", ".jsonl", ".json")

Record = dict[str, Any]


def read_records(path: Path) -> list[Record]:
    """Return a file's records, one dictionary a row.

    Raises:
        ConfigError: the file cannot be read, or holds no records.
    """
    try:
        found = _READERS[path.suffix.lower()](path)
    except OSError as error:
        raise ConfigError(f"Cannot read {path} ({error.strerror or error}).") from None
    except ValueError as error:
        raise ConfigError(
            f"{path} is damaged ({error}); correct it, or download it again."
        ) from None
    if not isinstance(found, list) or not all(isinstance(record, dict) for record in found):
        raise ConfigError(f"{path} holds no list of records; check that it is the set's own file.")
    return found


def _parquet(path: Path) -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        raise ConfigError(
            f"{path.name} is a parquet file, and pyarrow, which reads it, is not installed; "
            "install retake-edge[eval]."
        ) from None
    return pyarrow.parquet.read_table(path).to_pylist()


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _jsonl(path: Path) -> Any:
    """Return a record a line; a line that is none is told with its number."""
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), 1):
        if line.strip():
            try:
                found.append(json.loads(line))
            except ValueError as error:
                raise ConfigError(
                    f"Line {number} of {path} is damaged: it is no JSON ({error}); correct it."
                ) from None
    return found


_READERS = {".parquet": _parquet, ".json": _json, ".jsonl": _jsonl}
