"""A question to the person at the terminal: shall a model that is missing be downloaded?"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from retake_edge.cli.streams import tell

if TYPE_CHECKING:
    from retake_edge.cli.options import CliRequest
    from retake_edge.models.resolve import NotDownloadedError


def pulled_at_terminal(missing: NotDownloadedError, request: CliRequest) -> bool:
    """Ask whether to download a model, and do it; False where nobody can be asked, or says no."""
    from retake_edge.models import hub

    is_terminal = sys.stdin.isatty() and sys.stderr.isatty()
    if not is_terminal or request.offline or hub.is_offline():
        return False
    from retake_edge.catalog.catalog import free_disk_bytes
    from retake_edge.cli.progress import shown_progress
    from retake_edge.session.store.folder import SessionStore
    from retake_edge.session.store.key import HashCache

    size, free = _download_bytes(missing), free_disk_bytes()
    text = (
        f"{missing.name} is not downloaded: {size / 1e9:.1f} GB, {free / 1e9:.1f} GB of disk free."
    )
    if size > free:
        tell(f"{text} There is no room for it.")
        return False
    if not agreed(f"{text}\nDownload it now? [Y/n] "):
        return False
    sha256 = HashCache.beside(SessionStore(request.cache_dir).cache_dir).sha256
    with shown_progress() as progress:
        hub.pull(missing.ref, with_mmproj=request.mmproj is None, sha256=sha256, progress=progress)
    return True


def agreed(question: str, *, default: bool = True) -> bool:
    """Ask a question at the terminal; `default`: what Enter alone means."""
    from retake_edge.cli.interrupts import at_prompt

    with at_prompt():
        typer.echo(question, nl=False, err=True)
        line = sys.stdin.readline()
    if not line:
        typer.echo(err=True)
    said = line.strip().lower()
    return said in ("y", "yes") or (default and said == "" and line != "")


def _download_bytes(missing: NotDownloadedError) -> int:
    """The size of its files: its manifest's word, or the hub's."""
    from retake_edge.models import hub
    from retake_edge.models.manifest import model_names
    from retake_edge.models.published import published

    named = published(missing.name) if missing.name in model_names() else None
    return (named.n_bytes if named else None) or hub.download_bytes(missing.ref)
