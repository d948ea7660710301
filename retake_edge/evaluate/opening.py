"""Open the videos of groups of jobs, with the settings of their variants and one loaded model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from retake_edge.config import RetakeConfig, with_values
from retake_edge.engine.trial import check_loadable
from retake_edge.evaluate.jobs import Group
from retake_edge.llama.model import Model
from retake_edge.models.manifest import ModelFiles, ModelManifest
from retake_edge.plan.cells import text_reserve
from retake_edge.plan.run import RunPlanner, require_room
from retake_edge.progress import ProgressCallback, in_percent, no_progress, with_more
from retake_edge.session.open import open_video
from retake_edge.session.session import Session
from retake_edge.session.store.folder import SessionStore
from retake_edge.video.read import probe_video


@dataclass(frozen=True)
class Opener:
    """A model, and settings by variant ('': the only one); may be sent to another process."""

    source: ModelManifest | ModelFiles
    configs: Mapping[str, RetakeConfig]
    use_cache: bool = True
    cache_dir: Path | None = None

    def open(
        self,
        group: Group,
        progress: ProgressCallback = no_progress,
        loaded: Model | None = None,
    ) -> Session:
        """Return the session of a group's video; raises what `open_video` raises.

        `loaded`: the language model, where it is in memory already; it stays there.
        """
        return open_video(
            group.file,
            self.source,
            self.config_of(group),
            use_cache=self.use_cache,
            cache_dir=self.cache_dir,
            progress=progress,
            loaded=loaded,
        )

    def config_of(self, group: Group) -> RetakeConfig:
        """Return the settings under which a group is read and asked."""
        stretch = {"start_s": group.start_s, "end_s": group.end_s}
        return with_values(self.configs[group.variant], sampling=stretch)


class LoadedOpener:
    """An opener that loads its language model once, for the first video that fits beside it.

    A variant with other layers on the GPU has it loaded anew. To be closed after use, and every
    session before it.
    """

    def __init__(self, opener: Opener) -> None:
        self._opener = opener
        self._model: Model | None = None
        self._n_gpu_layers: int | None = None

    def __enter__(self) -> LoadedOpener:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the model."""
        if self._model is not None:
            self._model.close()
            self._model = None

    def open(self, group: Group, progress: ProgressCallback = no_progress) -> Session:
        """Return the session of a group's video; raises what `open_video` raises."""
        config = self._opener.config_of(group)
        if self._model is None or config.runtime.n_gpu_layers != self._n_gpu_layers:
            self.close()
            self._check_room(group, config)
            self._n_gpu_layers = config.runtime.n_gpu_layers
            self._model = Model(
                self._opener.source.model,
                n_gpu_layers=self._n_gpu_layers,
                progress=in_percent(with_more(progress), "load"),
            )
        return self._opener.open(group, progress, self._model)

    def _check_room(self, group: Group, config: RetakeConfig) -> None:
        """Refuse a video beside which the model would not fit, before it is loaded."""
        opener = self._opener
        cache_dir = SessionStore(opener.cache_dir).cache_dir if opener.use_cache else None
        check_loadable(opener.source, cache_dir)
        with RunPlanner(opener.source, text_reserve(config), tried=True) as planner:
            require_room(planner.plan(probe_video(group.file), config).memory)
