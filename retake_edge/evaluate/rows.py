"""A file of rows, one JSON document a line, that any kill leaves whole.

A row is written and flushed to the disk before the next question is asked. The only line that a
kill can leave torn is the last one, and it is cut off when the file is opened again.
"""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from retake_edge.errors import ConfigError
from retake_edge.files import locked, write_atomically

Row = dict[str, Any]
_BEGIN = b'{"key": '
"""The first bytes of a row: an unfinished last line is one of ours only if it begins so."""


class RowFile:
    """The rows of a run, held by one process at a time; to be closed after use.

    `run`: what the answers depend on besides the question (`jobs.run_digest`); rows of another one
    are refused.

    Raises:
        ConfigError: the file cannot be used, is held by another process, or is of another run.
    """

    def __init__(self, path: Path, run: str, *, drop_failed: bool = False) -> None:
        self.path, self.run = path, run
        with ExitStack() as held:
            try:
                held.enter_context(locked(path.with_name(f".{path.name}.lock")))
                self._file: BinaryIO = held.enter_context(open(path, "a+b"))
            except BlockingIOError:
                raise ConfigError(
                    f"{path} is being written by another process; wait for it, or choose another "
                    "file."
                ) from None
            except OSError as error:
                raise ConfigError(f"Cannot write {path} ({error.strerror}).") from None
            self.rows = self._read()
            if drop_failed:
                self._drop_failed()
            self._held = held.pop_all()

    def __enter__(self) -> RowFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        if error is not None and not self.rows:
            self.path.unlink(missing_ok=True)  # nothing was answered
        self._held.close()

    @property
    def done(self) -> frozenset[str]:
        """The keys of the rows that are there."""
        return frozenset(row["key"] for row in self.rows)

    def append(self, row: Row) -> None:
        """Add a row; it is on the disk when this returns.

        Raises:
            ConfigError: the disk is full.
        """
        line = json.dumps(row | {"run": self.run}, ensure_ascii=False) + "\n"
        end = self._file.seek(0, os.SEEK_END)
        try:
            self._file.write(line.encode("utf-8"))
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            self._file.truncate(end)
            raise ConfigError(f"Cannot write {self.path} ({error.strerror}).") from None
        self.rows.append(json.loads(line))

    def _read(self) -> list[Row]:
        self._file.seek(0)
        data = self._file.read()
        whole = data.rfind(b"\n") + 1
        rows = [self._row(line, n) for n, line in enumerate(data[:whole].splitlines(), 1)]
        torn = data[whole:]
        if torn and not torn.startswith(_BEGIN[: len(torn)]):
            self._row(torn, len(rows) + 1)
        self._file.truncate(whole)
        return rows

    def _row(self, line: bytes, n: int) -> Row:
        try:
            row = json.loads(line)
            run, _ = row["run"], row["key"]
        except (ValueError, KeyError, TypeError):
            raise ConfigError(
                f"Line {n} of {self.path} is no row of a run; choose another file."
            ) from None
        if run != self.run:
            raise ConfigError(
                f"{self.path} has rows made with another model or other settings; "
                "choose another file."
            )
        return dict(row)

    def _drop_failed(self) -> None:
        self.rows = [row for row in self.rows if not row.get("error")]
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in self.rows)
        write_atomically(self.path, text.encode())
        self._file.close()
        self._file = open(self.path, "a+b")  # noqa: SIM115
