"""The saved session of a video: found by what shapes its cells, gone on with, or made.

What shapes the cells takes a plan of the run to know. So the key that a request led to is
remembered, and the next question finds its session without a look at the video's packets.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from retake_edge.catalog.user_config import most_saved_bytes
from retake_edge.config import RetakeConfig
from retake_edge.errors import ModelError, SessionError
from retake_edge.files import JsonCache
from retake_edge.formats import shown_bytes
from retake_edge.models.hub.naming import split_files
from retake_edge.models.manifest import ModelFiles, ModelManifest
from retake_edge.models.resolve import resolve_model
from retake_edge.plan.run import RunPlan
from retake_edge.session.answer import SavedState
from retake_edge.session.ingest import plan_of, read_video
from retake_edge.session.loading import read_session
from retake_edge.session.others import notes_of_others
from retake_edge.session.prefilled import (
    OpenRequest,
    PrefilledVideo,
    SessionWarning,
    kept_features,
)
from retake_edge.session.store.folder import SessionStore
from retake_edge.session.store.key import (
    HashCache,
    engine_facts,
    file_identity,
    rotation_switch,
    session_facts,
    session_key,
)
from retake_edge.session.store.looks import SavedLooks
from retake_edge.video.path import check_path

_MAX_REMEMBERED = 1000
_MACHINE_SETTINGS = (
    *("n_gpu_layers", "n_threads", "n_batch", "n_ubatch"),
    *("mmproj_offload", "encode_batch_frames"),
)


@dataclass(frozen=True)
class SavedVideo:
    """A video ready for questions, its saved session, and the SHA-256 of the model's files."""

    prefilled: PrefilledVideo
    saved: SavedState
    hashes: dict[str, str]


def hash_cache(store: SessionStore) -> HashCache:
    """Return the hashes of files that are remembered beside the sessions."""
    return HashCache.beside(store.cache_dir)


def known_hashes(source: ModelManifest | ModelFiles) -> dict[str, str]:
    """Return the SHA-256 of a model's files by role, as far as its manifest tells them."""
    given = source.sha256 if isinstance(source, ModelManifest) else {}
    return {role: digest for role, digest in given.items() if digest}


def open_saved(
    request: OpenRequest, store: SessionStore, on_note: Callable[[str], None]
) -> SavedVideo:
    """Load the session of a video, or make it; `on_note` is told of others of the same video.

    Raises:
        VideoError, ModelError, MemoryBudgetError, NativeError: as `read_video`.
    """
    with request.times.measure("check"):
        file, hashes = check_path(request.path), _model_hashes(request.source, store)
        identity, video = file_identity(file), hash_cache(store).sha256(file)
    keys = JsonCache(store.cache_dir / "keys.json", _MAX_REMEMBERED)
    asked = _asked(request, video, hashes)
    key = keys.get(asked)
    prefilled = _found(request, store, key) if isinstance(key, str) else None
    is_reused = prefilled is not None
    if prefilled is None:
        plan = plan_of(request)
        request = replace(request, facts=session_facts(plan, video, hashes))
        key = session_key(request.facts)
        keys.put(asked, key)
        prefilled, is_reused = _made(
            request, plan, store, key, lambda: file_identity(file) == identity, on_note
        )
    if not prefilled.is_saved:
        return SavedVideo(prefilled, SavedState(), hashes)
    if prefilled.glanced is not None:
        SavedLooks(store.looks(key)).keep_glanced(prefilled.glanced)
    return SavedVideo(prefilled, SavedState(key, is_reused, store.n_bytes(key)), hashes)


@dataclass(frozen=True)
class Recorded:
    """A saved session as its file tells of it: what was read, with which model and settings."""

    key: str
    is_complete: bool
    path: Path
    source: ModelManifest | ModelFiles
    config: RetakeConfig
    facts: Mapping[str, Any]


def recorded(store: SessionStore, prefix: str, config: RetakeConfig) -> Recorded:
    """Return what a session was made of; answers and machine as `config` say.

    Raises:
        SessionError: no one session begins with `prefix`, or it is damaged or of another version.
        ModelError: its model cannot be found.
    """
    key = store.find(prefix)
    info = store.info(key)
    if info.problem:
        raise SessionError(info.problem)
    if info.facts.get("engine") != dict(engine_facts()):
        raise SessionError(
            f"The saved video {key} was made by another version of retake-edge, and this one "
            f"cannot use it; ask the video itself, or remove it with 'retake-edge sessions rm "
            f"{key[:8]}'."
        )
    head, was = info.head, RetakeConfig.from_dict(info.head["config"])
    runtime = replace(
        config.runtime,
        type_k=was.runtime.type_k,
        type_v=was.runtime.type_v,
        flash_attention=was.runtime.flash_attention,
    )
    guide = info.facts["kept"].get("guide", "")  # none where nothing was left out
    compression = replace(was.compression, guide=guide)
    named = head["source"]
    source: ModelManifest | ModelFiles = ModelFiles(Path(named["model"]), Path(named["mmproj"]))
    if named["name"]:
        source = resolve_model(named["name"], sha256=hash_cache(store).sha256)
    return Recorded(
        key,
        info.is_complete,
        Path(head["path"]),
        source,
        replace(
            was,
            compression=compression,
            runtime=runtime,
            generation=config.generation,
            look=config.look,
        ),
        info.facts,
    )


def reopen(request: OpenRequest, store: SessionStore, key: str) -> SavedVideo:
    """Load a finished session by its key, and its request's facts.

    Raises:
        SessionError: it cannot be used. ModelError: the model has changed since.
        MemoryBudgetError: this machine has no room for it.
    """
    hashes = request.facts["model"]
    if hash_cache(store).sha256(request.source.model) != hashes["model"]:
        raise ModelError(
            f"{request.source.model} has changed since the video was read with it; ask the video "
            "itself, which reads it again."
        )
    try:
        prefilled = read_session(request, store.complete(key), key)
    except FileNotFoundError:
        raise SessionError(f"The session {key} is gone.") from None
    store.touch(key)
    return SavedVideo(prefilled, SavedState(key, True, store.n_bytes(key)), dict(hashes))


def _model_hashes(source: ModelManifest | ModelFiles, store: SessionStore) -> dict[str, str]:
    hashes, known = known_hashes(source), hash_cache(store)
    more_parts = [(part.name, part) for part in split_files(source.model)[1:]]
    for role, file in [("model", source.model), ("mmproj", source.mmproj), *more_parts]:
        if role not in hashes and file.is_file():
            hashes[role] = known.sha256(file)
    return hashes


def _asked(request: OpenRequest, video: str, hashes: Mapping[str, str]) -> str:
    """A name for what is asked for: as `session_facts`, but of settings as they were given."""
    config, source = request.config.to_dict(), request.source
    del config["generation"], config["look"]
    for name in _MACHINE_SETTINGS:
        del config["runtime"][name]
    use = {}
    if isinstance(source, ModelManifest):
        rules = {name: asdict(getattr(source, name)) for name in ("frames", "positions", "prompt")}
        use = {**rules, "fps": source.fps, "max_frames": source.max_frames}
    return session_key(
        {
            "video": video,
            "model": dict(hashes),
            "settings": config,
            "use": use,
            "n_after": request.n_text_reserve,
            "engine": dict(engine_facts()),
            "rotation": rotation_switch(),
        }
    )


def _found(request: OpenRequest, store: SessionStore, key: str) -> PrefilledVideo | None:
    """Load the session if there is a good one; one that cannot be used is removed.

    Where features are asked for that its reading was not asked to keep, there is none.
    """
    try:
        if request.config.look.keep_features and not kept_features(store.head(key)):
            return None
        prefilled = read_session(request, store.complete(key), key)
    except FileNotFoundError:
        return None
    except SessionError as error:
        _warn(f"{error} It is made again.")
        with suppress(OSError):
            store.complete(key).unlink()
        return None
    store.touch(key)
    return prefilled


def _made(
    request: OpenRequest,
    plan: RunPlan,
    store: SessionStore,
    key: str,
    is_unchanged: Callable[[], bool],
    on_note: Callable[[str], None],
) -> tuple[PrefilledVideo, bool]:
    """Make the session, or load it if it is there by now (then True)."""
    with ExitStack() as held:
        waiting = partial(request.progress, "waiting for another process", 0, 1)
        try:
            with request.times.measure("wait"):
                held.enter_context(store.lock(key, waiting))
        except SessionError as error:
            _warn(str(error))
            return read_video(request, plan), False
        found = _found(request, store, key)
        if found is not None:
            return found, True
        if store.complete(key).exists():
            on_note("note: this video was read without --keep-features, so it is read again")
        elif not store.part(key).exists():
            for note in notes_of_others(store, key, request.facts):
                on_note(note)
        made = read_video(
            request,
            plan,
            part=store.part(key),
            resume=store.resume(key),
            features=store.features(key),
            key=key,
        )
        if made.is_saved and not is_unchanged():
            _warn(f"{request.path} was changed while it was read, so no session of it is saved.")
            store.discard(key)
            made = replace(made, is_saved=False)
        if made.is_saved:
            store.finish(key)
            _make_room(store, key, on_note)
        return made, False


def _make_room(store: SessionStore, key: str, on_note: Callable[[str], None]) -> None:
    """Remove the sessions not used for longest where the user has set a limit."""
    most = most_saved_bytes()
    if most is None:
        return
    removed = store.prune(most, spared=key)
    if removed:
        freed = shown_bytes(sum(session.n_bytes for session in removed))
        what = (
            "video, not used for longest, was"
            if len(removed) == 1
            else ("videos, not used for longest, were")
        )
        on_note(
            f"note: {len(removed)} saved {what} removed ({freed}): no more than "
            f"{shown_bytes(most)} shall be kept"
        )


def _warn(text: str) -> None:
    warnings.warn(text, SessionWarning, stacklevel=5)
