"""The videos that are loaded, each with the conversation that its cells hold just now.

The cells of all of them share one budget of memory; those not asked for longest go first. They
come back from the saved session in no time, so that a small budget costs little.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from retake_edge.errors import MemoryBudgetError
from retake_edge.llama.model import Model
from retake_edge.models.manifest import ModelFiles, ModelManifest
from retake_edge.progress import ProgressCallback
from retake_edge.server.jobs import Job
from retake_edge.session.conversation import Conversation
from retake_edge.session.open import open_video
from retake_edge.session.session import Session


@dataclass(frozen=True)
class Loaded:
    """A video in memory, and the conversation about it."""

    session: Session
    conversation: Conversation


class Pool:
    """Loaded sessions by the key of their jobs; for the worker's thread alone."""

    def __init__(
        self,
        source: ModelManifest | ModelFiles,
        model: Model,
        *,
        max_bytes: int | None,
        n_question_reserve: int,
        cache_dir: Path | None,
        use_cache: bool,
        on_read: Callable[[bool], None],
    ) -> None:
        self._source, self._model, self._max_bytes = source, model, max_bytes
        self._n_question_reserve, self._cache_dir, self._use_cache = (
            n_question_reserve,
            cache_dir,
            use_cache,
        )
        self._on_read = on_read
        self._loaded: OrderedDict[str, Loaded] = OrderedDict()

    def get(self, key: str) -> Loaded | None:
        """Return a loaded video, now the last used one."""
        found = self._loaded.get(key)
        if found is not None:
            self._loaded.move_to_end(key)
        return found

    def open(self, job: Job, progress: ProgressCallback) -> Loaded:
        """Load a job's video, from its saved session or by reading it.

        Raises:
            RetakeError: what `open_video` raises.
        """
        session = self._opened(job, progress)
        loaded = self._loaded[job.key] = Loaded(session, Conversation(session))
        while self._is_over() and len(self._loaded) > 1:
            self._drop_oldest()
        self._on_read(session.saved.is_reused)
        return loaded

    def _opened(self, job: Job, progress: ProgressCallback) -> Session:
        while True:
            try:
                return open_video(
                    job.video.path,
                    self._source,
                    job.config,
                    use_cache=self._use_cache,
                    cache_dir=self._cache_dir,
                    n_question_reserve=self._n_question_reserve,
                    progress=progress,
                    loaded=self._model,
                )
            except MemoryBudgetError:
                if not self._loaded:
                    raise
                self._drop_oldest()

    def n_bytes(self) -> int:
        """Return the bytes of all loaded cells."""
        return sum(loaded.session.video.kv_bytes for loaded in self._loaded.values())

    def __len__(self) -> int:
        return len(self._loaded)

    def _is_over(self) -> bool:
        return self._max_bytes is not None and self.n_bytes() > self._max_bytes

    def _drop_oldest(self) -> None:
        _, loaded = self._loaded.popitem(last=False)
        loaded.session.close()

    def close(self) -> None:
        """Free all cells."""
        while self._loaded:
            self._drop_oldest()
