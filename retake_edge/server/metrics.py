"""The server's figures in Prometheus' form."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from retake_edge.server.jobs import Done


class Metrics:
    """Counters of one server, in a registry of its own."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        self._answers = Counter("retake_answers", "Questions answered.", registry=registry)
        self._tokens = Counter("retake_answer_tokens", "Tokens of answers.", registry=registry)
        self._read = Counter("retake_videos_read", "Videos read.", registry=registry)
        self._reused = Counter(
            "retake_videos_reused", "Videos loaded from saved sessions.", registry=registry
        )
        self._loaded = Gauge("retake_videos_loaded", "Videos in memory.", registry=registry)
        self._cells = Gauge("retake_loaded_bytes", "Bytes of their KV cells.", registry=registry)
        self._waiting = Gauge("retake_requests_waiting", "Requests that wait.", registry=registry)
        self._first = Histogram(
            "retake_first_token_seconds",
            "From a turn's begin to its first token.",
            registry=registry,
        )
        self._wait = Histogram(
            "retake_wait_seconds", "In the queue and while the video is read.", registry=registry
        )

    def opened(self, is_reused: bool) -> None:
        """Count a video that was loaded."""
        (self._reused if is_reused else self._read).inc()

    def loaded(self, n_videos: int, n_bytes: int) -> None:
        """Note what is in memory."""
        self._loaded.set(n_videos)
        self._cells.set(n_bytes)

    def answered(self, done: Done) -> None:
        """Count an answer."""
        self._answers.inc()
        self._tokens.inc(done.answer.n_tokens)
        self._wait.observe(done.waited_s)
        self._first.observe(done.answer.seconds.get("first_token", 0.0))

    def text(self, n_waiting: int) -> bytes:
        """Return all figures."""
        self._waiting.set(n_waiting)
        return generate_latest(self._registry)
