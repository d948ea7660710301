"""The one thread that owns llama.cpp: it takes one job after another, and reads each video once.

While a video is read, questions about loaded ones are answered between two chunks. A reading goes
on as long as someone waits for it, and a little longer: a client that ran into its time limit asks
again at once, and joins.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path

from retake_edge import stopping
from retake_edge.llama.buffers import available_memory_bytes
from retake_edge.llama.model import Model
from retake_edge.models.manifest import ModelFiles, ModelManifest
from retake_edge.page.facts import session_facts
from retake_edge.progress import Reading
from retake_edge.server.answering import answer
from retake_edge.server.errors import ApiError, api_error
from retake_edge.server.jobs import Failed, Job, Progress, Ready
from retake_edge.server.metrics import Metrics
from retake_edge.server.pool import Loaded, Pool
from retake_edge.video.read import probe_video

GRACE_S = 15.0
"""Seconds that a reading goes on when no one waits for it."""
QUESTION_RESERVE = 4096
"""Cells of a conversation, besides an answer's."""
_MEMORY_SHARE = 0.5
_JOIN_S = 30.0


class AbandonedError(Exception):
    """No one waits for this any more."""


class Worker:
    """A thread with a loaded model, and the jobs that wait for it."""

    def __init__(
        self,
        source: ModelManifest | ModelFiles,
        *,
        n_gpu_layers: int,
        n_queue: int,
        max_video_s: float,
        cache_dir: Path | None,
        use_cache: bool,
        max_loaded_bytes: int | None,
        metrics: Metrics,
        grace_s: float = GRACE_S,
    ) -> None:
        self._source, self._n_gpu_layers, self._n_queue = source, n_gpu_layers, n_queue
        self._max_video_s, self._max_loaded_bytes = max_video_s, max_loaded_bytes
        self._cache_dir, self._use_cache, self._grace_s = cache_dir, use_cache, grace_s
        self._metrics = metrics
        self._changed = threading.Condition()
        self._waiting: list[Job] = []
        self._is_closed = False
        self._reading: Job | None = None
        self._current: Job | None = None
        self._is_ready: Future[str] = Future()
        self._pool: Pool | None = None
        self._seconds_each = 5.0
        self._thread = threading.Thread(target=self._run, name="llama", daemon=True)

    def start(self) -> str:
        """Load the model, and return what it is; raises what loading raises."""
        self._thread.start()
        return self._is_ready.result()

    @property
    def model_path(self) -> Path:
        """The file of the language model."""
        return self._source.model

    @property
    def n_waiting(self) -> int:
        """Number of waiting jobs."""
        return len(self._waiting)

    @property
    def is_alive(self) -> bool:
        """True while jobs are taken."""
        return self._thread.is_alive() and not self._is_closed

    def submit(self, job: Job) -> None:
        """Let a job wait for its turn.

        Raises:
            ApiError: too many wait (429), or the server is about to end (503).
        """
        with self._changed:
            if self._is_closed:
                raise _ended()
            if len(self._waiting) >= self._n_queue:
                after_s = min(600, max(1, round(self._seconds_each * len(self._waiting))))
                raise ApiError(
                    429,
                    f"{len(self._waiting)} requests wait already; ask again in {after_s} s.",
                    code="queue_full",
                    headers={"Retry-After": str(after_s)},
                )
            job.on_leave = self._left
            self._waiting.append(job)
            self._changed.notify_all()

    def _left(self, job: Job) -> None:
        """Give a job's turn to the next, and end a reading that no one wants any more."""
        with self._changed:
            if job in self._waiting:
                self._waiting.remove(job)
                job.video.held.close()
            reading = self._reading
        if reading is not None and reading.key == job.key:
            timer = threading.Timer(self._grace_s, self._stop_unwanted, [reading])
            timer.daemon = True
            timer.start()

    def _stop_unwanted(self, reading: Job) -> None:
        with self._changed:
            if self._current is reading is self._reading and not self._is_wanted(reading):
                stopping.request()

    def _is_wanted(self, job: Job) -> bool:
        same = [other for other in self._waiting if other.key == job.key and not other.is_gone]
        if not job.is_gone or same:
            return True
        return time.monotonic() - (job.left_at_s or 0.0) < self._grace_s

    def close(self) -> None:
        """Stop what is done, refuse what waits, and free the model."""
        with self._changed:
            self._is_closed = True
            waiting, self._waiting = self._waiting, []
            stopping.request()
            self._changed.notify_all()
        for job in waiting:
            job.video.held.close()
            job.tell(Failed(_ended()))
        self._thread.join(_JOIN_S)
        if not self._thread.is_alive():
            stopping.clear()  # what stops the whole process must not stop the next server in it

    def _run(self) -> None:
        try:
            with Model(self._source.model, n_gpu_layers=self._n_gpu_layers) as model:
                self._pool = self._new_pool(model)
                self._is_ready.set_result(model.description)
                try:
                    while (job := self._next()) is not None:
                        self._do(job)
                finally:
                    self._pool.close()
        except BaseException as error:
            if self._is_ready.done():
                raise
            self._is_ready.set_exception(error)

    def _new_pool(self, model: Model) -> Pool:
        most = self._max_loaded_bytes
        if most is None:
            available = available_memory_bytes()
            most = None if available is None else int(_MEMORY_SHARE * available)
        return Pool(
            self._source,
            model,
            max_bytes=most,
            n_question_reserve=QUESTION_RESERVE,
            cache_dir=self._cache_dir,
            use_cache=self._use_cache,
            on_read=self._metrics.opened,
        )

    def _next(self) -> Job | None:
        """The job that came first; None when the server ends."""
        with self._changed:
            while not self._waiting and not self._is_closed:
                self._changed.wait()
            return None if self._is_closed else self._waiting.pop(0)

    def _do(self, job: Job) -> None:
        """Answer a job, or say why not; no error ends the thread."""
        started = time.monotonic()
        before, self._current = self._current, job
        try:
            with job.video.held:
                self._answer(job)
        except (AbandonedError, KeyboardInterrupt):
            job.tell(Failed(_ended() if self._is_closed else ApiError(499, "The client left.")))
        except Exception as error:
            job.tell(Failed(api_error(error, job.video.path, job.video.name)))
        finally:
            with self._changed:
                self._current = before
                if not self._is_closed:
                    stopping.clear()
            spent_s = time.monotonic() - started
            self._seconds_each = 0.8 * self._seconds_each + 0.2 * spent_s

    def _answer(self, job: Job) -> None:
        assert self._pool is not None
        if job.is_gone:
            return
        loaded = self._pool.get(job.key) or self._opened(job, self._pool)
        if job.question is None:
            job.tell(Ready(session_facts(loaded.session, job.video.name)))
            return
        done = answer(job, job.question, loaded)
        self._metrics.loaded(len(self._pool), self._pool.n_bytes())
        if done is not None:
            self._metrics.answered(done)
            job.tell(done)

    def _opened(self, job: Job, pool: Pool) -> Loaded:
        self._check_length(job)
        self._reading = job
        try:
            return pool.open(job, partial(self._progress, job))
        finally:
            with self._changed:
                self._reading = None

    def _check_length(self, job: Job) -> None:
        duration_s = probe_video(job.video.path).duration_s
        if duration_s > self._max_video_s:
            raise ApiError(
                413,
                f"The video is {duration_s:.0f} s long, and {self._max_video_s:.0f} s are "
                "allowed; send a shorter one.",
                code="too_long",
            )

    def _progress(
        self, job: Job, stage: str, done: int, total: int, more: Reading | None = None
    ) -> None:
        """Tell everyone who waits for this video how far it is, and answer others meanwhile."""
        with self._changed:
            alike = [other for other in self._waiting if other.key == job.key]
            is_wanted = self._is_wanted(job) and not self._is_closed
        for one in [job, *alike]:
            one.tell(Progress(stage, done, total, more))
        if stage not in ("decode", "encode", "prefill"):
            return  # within a native callback nothing may be raised
        if not is_wanted:
            raise AbandonedError
        if stage == "prefill":
            while (other := self._next_loaded()) is not None:
                self._do(other)

    def _next_loaded(self) -> Job | None:
        """The first job whose video is loaded."""
        assert self._pool is not None
        is_loaded: Callable[[str], object] = self._pool.get
        with self._changed:
            for job in self._waiting:
                if is_loaded(job.key):
                    self._waiting.remove(job)
                    return job
        return None


def _ended() -> ApiError:
    return ApiError(503, "The server is about to end; ask again later.", code="unavailable")
