"""The folder of saved sessions: names, locks, and what a person may want to do with them.

A session that is complete is never changed, so that readers need no lock. Only one process at a
time may make one: it holds a lock that the system lets go of when the process ends, however.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retake_edge.errors import SessionError
from retake_edge.files import default_cache_dir, locked
from retake_edge.session.store.journal import Journal

_SUFFIXES = (".session", ".part", ".resume", ".looks", ".features", ".lock")


@dataclass(frozen=True)
class SavedSession:
    """A session in the store.

    `n_bytes`: of all its files. `head` and `end` are what its first and last record say ({} where
    it is damaged or, for `end`, unfinished); `problem`: why it cannot be used, '' if it can.
    """

    key: str
    n_bytes: int
    used_at_s: float
    is_complete: bool
    head: dict[str, Any]
    end: dict[str, Any]
    problem: str = ""

    @property
    def facts(self) -> dict[str, Any]:
        """Facts that decided about its cells; {} for one of an old version, or a damaged one."""
        return dict(self.head.get("facts", {}))


class SessionStore:
    """The sessions below a cache folder (None: the default one)."""

    def __init__(self, cache_dir: str | Path | None = None) -> None:
        self.cache_dir = default_cache_dir() if cache_dir is None else Path(cache_dir)
        self.folder = self.cache_dir / "sessions"

    def complete(self, key: str) -> Path:
        """Return the path of a finished session."""
        return self.folder / f"{key}.session"

    def part(self, key: str) -> Path:
        """Return the path of a session while it is made."""
        return self.folder / f"{key}.part"

    def resume(self, key: str) -> Path:
        """Return the path of the file that tells how to go on with an unfinished session."""
        return self.folder / f"{key}.resume"

    def looks(self, key: str) -> Path:
        """Return the path at which second looks at a session's video are kept."""
        return self.folder / f"{key}.looks"

    def features(self, key: str) -> Path:
        """Return the path at which the vision features of a session's video are kept."""
        return self.folder / f"{key}.features"

    def finish(self, key: str) -> None:
        """Give a finished session its final name."""
        self.part(key).replace(self.complete(key))
        self.resume(key).unlink(missing_ok=True)
        self._sync_folder()

    def discard(self, key: str) -> None:
        """Remove an unfinished session, whose lock must be held."""
        for file in (self.part(key), self.resume(key), self.features(key)):
            file.unlink(missing_ok=True)

    def n_bytes(self, key: str) -> int:
        """Return the size of a session, all its files together (0 if it is gone)."""
        return sum(self._sizes(key).values())

    def _sizes(self, key: str) -> dict[Path, int]:
        """The bytes of each file of a session, but for its lock."""
        sizes = {}
        for suffix in _SUFFIXES[:-1]:
            with suppress(FileNotFoundError):
                file = self.folder / f"{key}{suffix}"
                sizes[file] = file.stat().st_size
        return sizes

    def _sync_folder(self) -> None:
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def touch(self, key: str) -> None:
        """Note that a session was used, for `prune`."""
        with suppress(OSError):
            os.utime(self.complete(key))

    @contextmanager
    def lock(self, key: str, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Hold the right to make a session; waits while another process has it.

        Raises:
            SessionError: the folder cannot be written.
        """
        with ExitStack() as held:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                held.enter_context(locked(self._lock_file(key), on_wait))
            except OSError as error:
                raise SessionError(
                    f"Sessions cannot be saved in {self.folder} ({error.strerror}); choose another "
                    "--cache-dir, or use --no-cache."
                ) from None
            yield

    def _lock_file(self, key: str) -> Path:
        return self.folder / f"{key}.lock"

    def keys(self) -> list[str]:
        """Return the keys of all sessions, finished or not."""
        if not self.folder.is_dir():
            return []
        files = [file for file in self.folder.iterdir() if file.suffix in (".session", ".part")]
        return sorted({file.stem for file in files})

    def find(self, prefix: str) -> str:
        """Return the one key that begins with `prefix`.

        Raises:
            SessionError: there is none, or more than one.
        """
        found = [key for key in self.keys() if key.startswith(prefix)] if prefix else []
        if len(found) != 1:
            raise SessionError(
                f"{len(found) or 'No'} saved sessions begin with {prefix!r}; "
                "'retake-edge sessions list' shows their keys."
            )
        return found[0]

    def head(self, key: str) -> dict[str, Any]:
        """Return what the first record of a finished session says.

        Raises:
            SessionError: it is damaged. FileNotFoundError: there is none.
        """
        return Journal(self.complete(key)).head()

    def info(self, key: str) -> SavedSession:
        """Return what is known of a session, without loading it."""
        file = self.complete(key)
        is_complete = file.is_file()
        file = file if is_complete else self.part(key)
        head: dict[str, Any] = {}
        end: dict[str, Any] = {}
        problem = ""
        try:
            stat = file.stat()
            journal = Journal(file)
            head = journal.head()
            end = journal.last() if is_complete else {}
        except SessionError as error:
            problem = str(error) if is_complete else ""
        except FileNotFoundError:
            raise SessionError(f"The session {key} is gone.") from None
        return SavedSession(key, self.n_bytes(key), stat.st_mtime, is_complete, head, end, problem)

    def sessions(self) -> list[SavedSession]:
        """Return all sessions, the last used one first."""
        found = []
        for key in self.keys():
            try:
                found.append(self.info(key))
            except SessionError:
                continue  # removed meanwhile
        return sorted(found, key=lambda session: -session.used_at_s)

    def remove(self, key: str) -> int:
        """Remove a session and return the bytes freed; a process that reads it can go on.

        Raises:
            SessionError: a process is just making it.
        """
        try:
            with locked(self._lock_file(key)):
                sizes = self._sizes(key)
                for file in sizes:
                    file.unlink()
        except BlockingIOError:
            raise SessionError(
                f"The session {key} is being made by another process; try later."
            ) from None
        return sum(sizes.values())

    def prune(self, max_bytes: int, spared: str = "") -> list[SavedSession]:
        """Remove the sessions that were not used for longest until at most `max_bytes` are left.

        Sessions that are being made stay, and so does the one with the key `spared`. Returns what
        was removed.
        """
        sessions = self.sessions()
        total = sum(session.n_bytes for session in sessions)
        removed = []
        for session in reversed(sessions):
            if total <= max_bytes:
                break
            if session.key == spared:
                continue
            try:
                self.remove(session.key)
            except SessionError:
                continue
            total -= session.n_bytes
            removed.append(session)
        return removed
