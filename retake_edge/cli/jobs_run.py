"""Parts that `run` and `eval` share: one model for all videos, and a row for every question."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retake_edge.cli.opening import model_name, require_no_fit, source_of
from retake_edge.cli.options import CliRequest
from retake_edge.cli.streams import tell
from retake_edge.errors import MemoryBudgetError, RetakeError, VideoError

if TYPE_CHECKING:
    from retake_edge.config import RetakeConfig
    from retake_edge.evaluate.jobs import Group, Job
    from retake_edge.evaluate.opening import Opener
    from retake_edge.evaluate.rows import Row, RowFile
    from retake_edge.session.session import Session

_MOST_NAMED = 10


def opener_of(
    first: Path, request: CliRequest, configs: Mapping[str, RetakeConfig]
) -> tuple[Opener, dict[str, str]]:
    """Return what opens all videos, and the hashes of the model's files.

    The model is chosen once, by the first video where none is named.

    Raises:
        ConfigError: --fit is given, under which videos would be read with different settings.
    """
    require_no_fit(request)
    from retake_edge.evaluate.opening import Opener
    from retake_edge.files import file_sha256
    from retake_edge.session.saved_video import hash_cache
    from retake_edge.session.store.folder import SessionStore

    source = source_of(first, request).source
    sha256: Callable[[Path], str] = file_sha256
    if request.use_cache:
        sha256 = hash_cache(SessionStore(request.cache_dir)).sha256
    hashes = {"model": sha256(source.model), "mmproj": sha256(source.mmproj)}
    return Opener(source, configs, request.use_cache, request.cache_dir), hashes


def work(groups: Sequence[Group], rows: RowFile, opener: Opener) -> None:
    """Read and ask group after group; every row is on the disk before the next question."""
    from retake_edge.cli.progress import shown_progress
    from retake_edge.evaluate.asking import ask_group
    from retake_edge.evaluate.jobs import questions
    from retake_edge.evaluate.opening import LoadedOpener

    name = model_name(opener.source)
    with LoadedOpener(opener) as loaded:

        def open_session(group: Group) -> Session:
            with shown_progress(group.file.name, name) as progress:
                return loaded.open(group, progress)

        for n, group in enumerate(groups, 1):
            variant = f", {group.variant}" if group.variant else ""
            tell(f"{n} of {len(groups)}: {group.jobs[0].video}{variant}, {questions(group)}")
            for row in ask_group(group, open_session):
                rows.append(row)


def tell_failures(rows: Iterable[Row]) -> int:
    """Name what failed on stderr; return the exit code of the first failure, 0 for none."""
    failed = [row for row in rows if row["error"]]
    reasons = list(dict.fromkeys((row["video"], row["error"]["message"]) for row in failed))
    if failed:
        tell(f"not answered: {len(failed)} questions")
    for video, message in reasons[:_MOST_NAMED]:
        tell(f"error: {message if video in message else f'{video}: {message}'}")
    if len(reasons) > _MOST_NAMED:
        tell(f"and {len(reasons) - _MOST_NAMED} more; the rows have them all")
    return _exit_code(failed[0]["error"]["kind"]) if failed else 0


def _exit_code(kind: str) -> int:
    classes: tuple[type[RetakeError], ...] = (VideoError, MemoryBudgetError)
    return next((c.exit_code for c in classes if c.__name__ == kind), RetakeError.exit_code)


def first_file(jobs: Sequence[Job]) -> Path:
    """Return the first video that is there, by which a model is chosen."""
    return next((job.file for job in jobs if job.file.is_file()), jobs[0].file)


def leave(code: int) -> None:
    """End with an exit code, if it is one of a failure."""
    if code:
        sys.exit(code)


def model_facts(opener: Opener, hashes: Mapping[str, str]) -> dict[str, Any]:
    """Return what a run file says of the model."""
    files = {"model": opener.source.model, "mmproj": opener.source.mmproj}
    return {
        role: {"file": path.name, "bytes": path.stat().st_size, "sha256": hashes[role]}
        for role, path in files.items()
    }
