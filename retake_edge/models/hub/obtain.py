"""A model of the hub, by user/repo[:quant]: from the cache, or else from the network."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from retake_edge.files import file_sha256, write_atomically
from retake_edge.models.hub.cache import (
    SHA256,
    GgufPair,
    Sha256,
    cache_dir,
    check,
    find_pair,
    is_intact,
    repo_dir,
)
from retake_edge.models.hub.errors import HubError, HubWarning, translate_errors
from retake_edge.models.hub.naming import HubRef, model_parts, projector_of, quants
from retake_edge.models.hub.transfer import RemoteFile, download, with_retries
from retake_edge.progress import ProgressCallback, no_progress
from retake_edge.version import __version__

_MIB = 1 << 20


def obtain(
    ref: HubRef,
    *,
    with_mmproj: bool = True,
    offline: bool = False,
    sha256: Sha256 = file_sha256,
    progress: ProgressCallback = no_progress,
) -> GgufPair:
    """Return a model's files; the network is used only if one is missing or damaged.

    Warns:
        HubWarning: a file of the cache is damaged and fetched again.

    Raises:
        HubError: the files are not there and cannot be had.
    """
    offline = offline or is_offline()
    pair = find_pair(ref, with_mmproj=with_mmproj)
    if pair is None and offline:
        raise HubError(
            f"{ref} is not in {cache_dir()}; run `retake-edge pull {ref}` with a network first."
        )
    if pair is None:
        return pull(ref, with_mmproj=with_mmproj, sha256=sha256, progress=progress)[0]
    if offline:
        check(pair, str(ref), sha256)
        return pair
    damaged = [file for file in pair.files if not is_intact(file, sha256)]
    if not damaged:
        return pair
    warnings.warn(
        f"{damaged[0]} is damaged (its SHA-256 is not the hub's), and is fetched again.",
        HubWarning,
        stacklevel=2,
    )
    return pull(ref, with_mmproj=with_mmproj, sha256=sha256, progress=progress)[0]


def pull(
    ref: HubRef,
    *,
    with_mmproj: bool = True,
    sha256: Sha256 = file_sha256,
    progress: ProgressCallback = no_progress,
) -> tuple[GgufPair, int]:
    """Ask the hub for its record of a model, and fetch what is not there.

    Returns the files, and how many bytes were fetched. `progress` is called with ("pull FILE",
    done, total) in MiB.

    Raises:
        HubError: no such repository, quant or projector; no access; no connection; content that
        differs from the record; a full disk.
    """
    if is_offline():
        raise HubError("HF_HUB_OFFLINE is set, so nothing is pulled; unset it.")
    folder, n_fetched = repo_dir(ref.repo), 0
    with translate_errors(ref.repo, _endpoint()), _quiet():
        commit, files = with_retries(lambda: _record(ref.repo))
        parts, mmproj = _chosen(ref, files, with_mmproj=with_mmproj)
        for path in [*parts, mmproj] if mmproj else parts:
            stage = f"pull {PurePosixPath(path).name} (MiB)"
            total = files[path].n_bytes // _MIB

            def tell(done: int, stage: str = stage, total: int = total) -> None:
                progress(stage, done // _MIB, total)

            n_fetched += download(
                files[path], folder, commit, headers=_headers(), sha256=sha256, progress=tell
            )
        _remember(folder, commit)
    snapshot = folder / "snapshots" / commit
    pair = GgufPair(tuple(snapshot / path for path in parts), snapshot / mmproj if mmproj else None)
    return pair, n_fetched


def download_bytes(ref: HubRef) -> int:
    """Ask the hub how large a model's files are.

    Raises:
        HubError: no such repository, quant or projector; no access; no connection.
    """
    with translate_errors(ref.repo, _endpoint()), _quiet():
        _, files = with_retries(lambda: _record(ref.repo))
        parts, mmproj = _chosen(ref, files, with_mmproj=True)
    return sum(files[path].n_bytes for path in [*parts, *([mmproj] if mmproj else [])])


def is_offline() -> bool:
    """Return whether the environment forbids the network (HF_HUB_OFFLINE)."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def _endpoint() -> str:
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def _headers() -> dict[str, str]:
    from huggingface_hub.utils import build_hf_headers

    headers: dict[str, str] = build_hf_headers(
        library_name="retake-edge", library_version=__version__
    )
    return {**headers, "Accept-Encoding": "identity"}


def _record(repo: str) -> tuple[str, dict[str, RemoteFile]]:
    """The commit of the main branch, and its GGUF files by path."""
    from huggingface_hub import HfApi, constants, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    endpoint = _endpoint()
    api = HfApi(endpoint=endpoint, library_name="retake-edge", library_version=__version__)
    foreign = HubError(f"{endpoint} does not answer as a hub does; check HF_ENDPOINT.")
    try:
        info = api.model_info(repo, files_metadata=True, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except (HfHubHTTPError, HFValidationError):
        raise
    except (ValueError, TypeError, KeyError, AttributeError):
        raise foreign from None
    commit = info.sha or ""
    if not commit.isalnum():
        raise foreign
    files = {}
    for sibling in info.siblings or []:
        path = sibling.rfilename
        if not path.endswith(".gguf") or not _is_below(path):
            continue
        size, sha256 = (sibling.lfs.size, sibling.lfs.sha256) if sibling.lfs else (0, "")
        url = hf_hub_url(repo, path, revision=commit, endpoint=endpoint)
        files[path] = RemoteFile(path, size, sha256, url)
    return commit, files


def _is_below(path: str) -> bool:
    pure = PurePosixPath(path)
    return not pure.is_absolute() and ".." not in pure.parts and "\\" not in path


def _chosen(
    ref: HubRef, files: Mapping[str, RemoteFile], *, with_mmproj: bool
) -> tuple[list[str], str | None]:
    """The paths of a model's parts and of its projector."""
    paths = sorted(files)
    there = ", ".join(quants(paths)) or "none"
    parts = model_parts(paths, ref.quant)
    if not parts:
        what = f"no {ref.quant} model" if ref.quant else "no GGUF model"
        raise HubError(f"There is {what} in {ref.repo}; there is {there}.")
    missing = [part for part in parts if part not in files]
    if missing:
        raise HubError(f"{ref.repo} lacks {missing[0]}, a part of the model; choose another quant.")
    mmproj = projector_of(paths, parts[0]) if with_mmproj else None
    if with_mmproj and mmproj is None:
        raise HubError(
            f"There is no mmproj*.gguf in {ref.repo} (quants: {there}), so it cannot see; "
            "name a projector with --mmproj, or choose another repository."
        )
    chosen = [*parts, mmproj] if mmproj else parts
    unknown = [path for path in chosen if not SHA256.fullmatch(files[path].sha256)]
    if unknown:
        raise HubError(f"The hub has no SHA-256 of {unknown[0]} in {ref.repo}; choose another.")
    return parts, mmproj


def _remember(folder: Path, commit: str) -> None:
    """Note the commit as the last one pulled."""
    ref = folder / "refs" / "main"
    if not ref.is_file() or ref.read_text() != commit:
        ref.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(ref, commit.encode())


@contextmanager
def _quiet() -> Iterator[None]:
    """Without huggingface_hub's own bars and warnings: `progress` tells, and the errors do."""
    from huggingface_hub import utils
    from huggingface_hub.utils import logging

    level, had_bars = logging.get_verbosity(), not utils.are_progress_bars_disabled()
    logging.set_verbosity(logging.ERROR)
    utils.disable_progress_bars()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if had_bars:
            utils.enable_progress_bars()
