"""Open a video as the options ask for it, with progress on stderr."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from retake_edge.cli.asking import pulled_at_terminal
from retake_edge.cli.options import CliRequest
from retake_edge.cli.streams import tell
from retake_edge.errors import ConfigError

if TYPE_CHECKING:
    from retake_edge.catalog.choice import ChosenModel
    from retake_edge.config import RetakeConfig
    from retake_edge.models.manifest import ModelFiles, ModelManifest
    from retake_edge.progress import ProgressCallback
    from retake_edge.session.session import Session
    from retake_edge.session.store.key import HashCache


def open_session(
    video: Path, request: CliRequest, n_question_reserve: int | None = None, *, asks: bool = True
) -> Session:
    """Return the session of a video; raises what `open_video` raises.

    In place of a video's path the key of a saved one may stand.
    A model named by -hf is downloaded before, unless it is there; one named by -m if the person at
    the terminal says so. With --fit the settings are changed so that the run fits, which is said on
    stderr, as are options that change nothing. `asks`: whether any question will be answered.
    """
    from retake_edge.cli.no_effect import warn_of_no_effect
    from retake_edge.cli.progress import shown_progress
    from retake_edge.cli.saved import opened_by_key, saved_key
    from retake_edge.plan.frames import QUESTION_RESERVE
    from retake_edge.session.open import open_video

    if key := saved_key(video, request):
        session = opened_by_key(key, request, n_question_reserve or QUESTION_RESERVE)
        warn_of_no_effect(request, session, asks=asks)
        return session
    chosen = source_of(video, request, n_question_reserve)
    with shown_progress(video.name, model_name(chosen.source)) as progress:
        config = request.config
        if request.fit:
            config = _fitted(video, chosen.source, request, n_question_reserve or QUESTION_RESERVE)
        session = open_video(
            video,
            chosen.source,
            config,
            use_cache=request.use_cache,
            cache_dir=request.cache_dir,
            n_question_reserve=n_question_reserve or QUESTION_RESERVE,
            progress=progress,
            on_note=progress.say,
        )
    session.chosen_by = chosen.why
    warn_of_no_effect(request, session, asks=asks)
    return session


def source_of(
    video: Path, request: CliRequest, n_question_reserve: int | None = None
) -> ChosenModel:
    """Return the model that the options name, or the one for this video; checked, downloaded."""
    from retake_edge.cli.progress import shown_progress
    from retake_edge.models.resolve import NotDownloadedError

    name = request.hub or Path(request.model or "").name
    try:
        with shown_progress(video.name, name) as progress:
            return _source(video, request, n_question_reserve, progress)
    except NotDownloadedError as missing:
        if not pulled_at_terminal(missing, request):
            raise
        with shown_progress(video.name, name) as progress:
            return _source(video, request, n_question_reserve, progress)


def resolved(video: Path | None, request: CliRequest) -> ModelManifest | ModelFiles:
    """Return the model as `source_of` does, but ask nothing; without a video the named one.

    Raises:
        NotDownloadedError: it is not here.
    """
    from retake_edge.cli.progress import shown_progress

    with shown_progress(
        video.name if video else "", request.hub or request.model or ""
    ) as progress:
        return _source(video, request, None, progress).source


def _source(
    video: Path | None,
    request: CliRequest,
    n_question_reserve: int | None,
    progress: ProgressCallback,
) -> ChosenModel:
    from retake_edge.catalog.choice import ASKED, ChosenModel, choose_model
    from retake_edge.catalog.user_config import default_model
    from retake_edge.models.resolve import resolve_model
    from retake_edge.plan.frames import QUESTION_RESERVE
    from retake_edge.video.path import check_path

    if video is not None:
        check_path(video)  # before anything is asked, measured or downloaded
    if request.hub:
        return ChosenModel(_from_hub(request, progress), ASKED)
    sha256 = _hashes(request).sha256 if request.use_cache else None
    name, why = (request.model, ASKED) if request.model else (default_model() or (None, ""))
    if name:
        return ChosenModel(resolve_model(name, request.mmproj, sha256=sha256), why)
    if request.mmproj:
        raise ConfigError(f"--mmproj {request.mmproj} goes with a model; name it with -m.")
    assert video is not None
    return choose_model(
        video,
        request.config,
        n_question_reserve=n_question_reserve or QUESTION_RESERVE,
        sha256=sha256,
        progress=progress,
    )


def require_no_fit(request: CliRequest) -> None:
    """Refuse --fit where one model reads many videos.

    Raises:
        ConfigError: it is given.
    """
    if request.fit:
        raise ConfigError(
            "--fit changes settings by video, and all videos need the same ones here; take those "
            "that `retake-edge plan --fit` tells."
        )


def model_name(source: ModelManifest | ModelFiles) -> str:
    """Return what a model is called on the screen."""
    from retake_edge.models.manifest import ModelManifest

    return source.name if isinstance(source, ModelManifest) else source.model.name


def _fitted(
    video: Path, source: ModelManifest | ModelFiles, request: CliRequest, n_question_reserve: int
) -> RetakeConfig:
    """Settings under which the run fits; what they change is told."""
    from retake_edge.plan.cells import text_reserve
    from retake_edge.plan.fit import fitted
    from retake_edge.plan.run import RunPlanner
    from retake_edge.video.read import probe_video

    with RunPlanner(source, text_reserve(request.config, n_question_reserve)) as planner:
        found = fitted(planner, probe_video(video), request.config)
    if found.flags:
        tell(f"fit: {found.flags}")
    return found.plan.config


def _hashes(request: CliRequest) -> HashCache:
    from retake_edge.session.store.folder import SessionStore
    from retake_edge.session.store.key import HashCache

    return HashCache.beside(SessionStore(request.cache_dir).cache_dir)


def _from_hub(request: CliRequest, progress: ProgressCallback) -> ModelFiles:
    """The files of the model of -hf, with the projector of --mmproj if there is one."""
    from retake_edge.models import hub
    from retake_edge.models.manifest import ModelFiles

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
