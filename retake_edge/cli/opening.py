"""Open a video as the options ask for it, with progress on stderr."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from retake_edge.cli.options import VideoRequest

if TYPE_CHECKING:
    from retake_edge.config import RetakeConfig
    from retake_edge.fingerprint import HashCache
    from retake_edge.models import ModelFiles, ModelManifest
    from retake_edge.progress import ProgressCallback
    from retake_edge.session import Session


def open_session(video: Path, request: VideoRequest, n_reserve: int | None = None) -> Session:
    """Return the session of a video; raises what `open_video` raises.

    A model named by -hf is downloaded before, unless it is there. With --fit the settings are
    changed so that the run fits, which is said on stderr.
    """
    from retake_edge.cli.progress import shown_progress
    from retake_edge.prefilled import QUESTION_RESERVE
    from retake_edge.session import open_video

    model = request.hub or Path(request.model or "").name
    with shown_progress(video.name, model) as progress:
        source, settings = source_of(video, request, progress), request.settings
        if request.fit:
            settings = _fitted(video, source, request, n_reserve or QUESTION_RESERVE)
        return open_video(
            video,
            source,
            settings,
            use_cache=request.use_cache,
            cache_dir=request.cache_dir,
            n_reserve=n_reserve or QUESTION_RESERVE,
            progress=progress,
        )


def source_of(
    video: Path, request: VideoRequest, progress: ProgressCallback
) -> ModelManifest | ModelFiles:
    """Return the model that the options name, its files checked or downloaded."""
    from retake_edge.models import resolve_model

    if request.hub:
        return _from_hub(video, request, progress)
    sha256 = _hashes(request).sha256 if request.use_cache else None
    return resolve_model(request.model, request.mmproj, sha256=sha256)


def _fitted(
    video: Path, source: ModelManifest | ModelFiles, request: VideoRequest, n_reserve: int
) -> RetakeConfig:
    """Settings under which the run fits; what they change is told."""
    from retake_edge.fitting import fitted
    from retake_edge.prefilled import cells_after
    from retake_edge.run_plan import RunPlanner
    from retake_edge.video import probe_video

    with RunPlanner(source, cells_after(request.settings, n_reserve)) as planner:
        found = fitted(planner, probe_video(video), request.settings)
    if found.flags:
        typer.echo(f"fit: {found.flags}", err=True)
    return found.plan.settings


def _hashes(request: VideoRequest) -> HashCache:
    from retake_edge.fingerprint import HashCache
    from retake_edge.store import SessionStore

    return HashCache(SessionStore(request.cache_dir).cache_dir / "hashes.json")


def _from_hub(video: Path, request: VideoRequest, progress: ProgressCallback) -> ModelFiles:
    """The files of the model of -hf, with the projector of --mmproj if there is one."""
    from retake_edge import hub
    from retake_edge.models import ModelFiles
    from retake_edge.video import check_path

    check_path(video)  # before anything is downloaded
    pair = hub.obtain(
        hub.parse_ref(request.hub or ""),
        with_mmproj=request.mmproj is None,
        offline=request.offline,
        sha256=_hashes(request).sha256,
        progress=progress,
    )
    mmproj = request.mmproj or pair.mmproj
    assert mmproj is not None  # a pair without was not asked for
    return ModelFiles(pair.parts[0], mmproj)
