"""Open a video: from the cache where it was read before, else by reading it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from retake_edge.config import RetakeConfig, with_values
from retake_edge.engine.trial import check_loadable
from retake_edge.errors import ConfigError
from retake_edge.formats import seconds_of
from retake_edge.llama.model import Model
from retake_edge.models.manifest import ModelFiles, ModelManifest
from retake_edge.models.resolve import resolve_model
from retake_edge.plan.cells import text_reserve
from retake_edge.plan.frames import QUESTION_RESERVE
from retake_edge.plan.seconds import Calibration
from retake_edge.progress import ProgressCallback, no_progress, with_more
from retake_edge.session.answer import SavedState
from retake_edge.session.ingest import plan_of, read_video
from retake_edge.session.prefilled import OpenRequest
from retake_edge.session.saved_video import (
    SavedVideo,
    hash_cache,
    known_hashes,
    open_saved,
    recorded,
    reopen,
)
from retake_edge.session.second_look import SecondLook
from retake_edge.session.session import Session
from retake_edge.session.store.features import saved_features
from retake_edge.session.store.folder import SessionStore
from retake_edge.session.store.looks import SavedLooks
from retake_edge.stages import StageTimes


def open_video(
    path: str | Path,
    model: str | ModelManifest | ModelFiles | None = None,
    config: RetakeConfig | None = None,
    *,
    fps: float | None = None,
    max_frames: int | None = None,
    sampling: str | None = None,
    start: float | str | None = None,
    end: float | str | None = None,
    keep_ratio: float | None = None,
    system: str | None = None,
    max_tokens: int | None = None,
    look_again: int | None = None,
    keep_features: bool | None = None,
    guide: str | None = None,
    temperature: float | None = None,
    n_ctx: int | None = None,
    n_gpu_layers: int | None = None,
    mmproj: Path | None = None,
    use_cache: bool = True,
    cache_dir: str | Path | None = None,
    n_question_reserve: int = QUESTION_RESERVE,
    progress: ProgressCallback = no_progress,
    on_note: Callable[[str], None] = lambda _: None,
    loaded: Model | None = None,
) -> Session:
    """Read a video into a compressed KV cache, or find it there from an earlier time.

    >>> with retake_edge.open_video("talk.mp4", fps=1, start="0:02", end=12) as session:
    ...     print(session.ask("What happens?"))

    `model` is a name, a GGUF path (with `mmproj`, or the one projector beside it), a repository of
    the hub as user/repo[:quant], or what `resolve_model` returns; None: `RETAKE_MODEL`, the user's
    configuration, or the best one that is downloaded and fits (`Answer.model` names it, and says
    why).

    From `fps` to `n_gpu_layers`: single settings, in place of those in `config` (None: as there).
    `start` and `end` are seconds, or times such as "1:30" and "1:02:00".
    `guide`: the one question that the video is read for; the session then answers no other.

    The session is kept below `cache_dir` (None: the user's cache folder) unless `use_cache` is off.
    `n_question_reserve`: KV cells kept free for a question, or a conversation, besides an answer's.

    `progress` is called with (stage, done, total), and with a `Reading` as a fourth if it takes
    four; `retake_edge.progress` has the stages.

    >>> def show(stage, done, total):
    ...     print(f"{stage}: {done} of {total}")
    >>> retake_edge.open_video("talk.mp4", progress=show).close()

    `on_note` is called with a sentence about each other saved session of this video, before it is
    read, and about what was removed to make room for this one.

    `loaded`: the language model of `model`, where several videos share it; it stays loaded.

    Warns:
        SessionWarning: a saved session is damaged and made again, or cannot be saved.

    Raises:
        VideoError, ModelError, MemoryBudgetError, NativeError: the video cannot be read, there is
        no model for it or it cannot be loaded, the cells do not fit, or the native libraries are
        missing. ConfigError: a setting is out of range.
    """
    times = StageTimes().start()
    config = with_values(
        config or RetakeConfig(),
        sampling={
            "fps": fps,
            "max_frames": max_frames,
            "sampling": sampling,
            "start_s": seconds_of("start", start),
            "end_s": seconds_of("end", end),
        },
        compression={"keep_ratio": keep_ratio, "guide": guide},
        prompt={"system": system},
        generation={"max_tokens": max_tokens, "temperature": temperature},
        runtime={"n_ctx": n_ctx, "n_gpu_layers": n_gpu_layers},
        look={"frames": look_again, "keep_features": keep_features},
    )
    store = SessionStore(cache_dir) if use_cache else None
    sha256 = hash_cache(store).sha256 if store else None
    if model is None:
        if mmproj is not None:
            raise ConfigError(f"mmproj {mmproj} goes with a model; name it, too.")
        from retake_edge.catalog.choice import choose_model

        chosen = choose_model(
            path, config, n_question_reserve=n_question_reserve, sha256=sha256, progress=progress
        )
        source, why = chosen.source, chosen.why
    else:
        source = resolve_model(model, mmproj, sha256=sha256) if isinstance(model, str) else model
        why = "asked for"
    with times.measure("check"):
        check_loadable(source, store.cache_dir if store else None)
    request = OpenRequest(
        path,
        source,
        config,
        text_reserve(config, n_question_reserve),
        with_more(progress),
        Calibration(store.cache_dir if store else None),
        loaded=loaded,
        times=times,
    )
    if store is None:
        prefilled = read_video(request, plan_of(request))
        session = Session(prefilled, config, known_hashes(source), SavedState())
    else:
        opened = open_saved(request, store, on_note)
        looks = _looks(opened, config, store)
        session = Session(opened.prefilled, config, opened.hashes, opened.saved, looks)
        session.calibrate(request.calibration)
    session.chosen_by = why
    times.stop()
    return session


def open_session(
    key: str,
    config: RetakeConfig | None = None,
    *,
    cache_dir: str | Path | None = None,
    n_question_reserve: int = QUESTION_RESERVE,
    progress: ProgressCallback = no_progress,
) -> Session:
    """Return the saved session whose key begins with `key`; one that is unfinished is gone on with.

    >>> with retake_edge.open_session("3f2a91c0") as session:
    ...     print(session.ask("What happens?"))

    How the video is looked at was decided when it was read; of `config` only how answers are
    drawn and how the machine is used counts. `n_question_reserve`, `progress`: as in `open_video`.

    Raises:
        SessionError: no one session begins with `key`, or it cannot be used. VideoError: it is
        unfinished, and the video is gone. ModelError: its model is gone, or has changed.
        MemoryBudgetError: this machine has no room for it.
    """
    times, store = StageTimes().start(), SessionStore(cache_dir)
    found = recorded(store, key, config or RetakeConfig())
    request = OpenRequest(
        found.path,
        found.source,
        found.config,
        text_reserve(found.config, n_question_reserve),
        with_more(progress),
        Calibration(store.cache_dir),
        found.facts,
        times=times,
    )
    with times.measure("check"):
        check_loadable(found.source, store.cache_dir)
    if found.is_complete:
        opened = reopen(request, store, found.key)
    else:
        opened = open_saved(request, store, lambda _: None)
    looks = _looks(opened, found.config, store, found.facts.get("video"))
    session = Session(opened.prefilled, found.config, opened.hashes, opened.saved, looks)
    session.calibrate(request.calibration)
    times.stop()
    return session


def _looks(
    opened: SavedVideo, settings: RetakeConfig, store: SessionStore, sha256: str | None = None
) -> SecondLook:
    """The second looks at a video, kept beside its session; `sha256`: the file's if not known."""
    path, key = Path(opened.prefilled.video.path), opened.saved.key
    return SecondLook(
        opened.prefilled,
        settings,
        SavedLooks(store.looks(key) if key else None),
        lambda: saved_features(store.features(key), key) if key else None,
        lambda: sha256 is None or hash_cache(store).sha256(path) == sha256,
    )
