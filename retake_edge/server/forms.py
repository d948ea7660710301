"""An answer in OpenAI's forms; what only this server knows stands in `retake`, and in `timings`."""

from __future__ import annotations

import secrets
import time
from dataclasses import asdict, replace
from typing import Any

from retake_edge.server.jobs import Done, Progress


def retake_facts(done: Done) -> dict[str, Any]:
    """Return where the answer looked, what of the video it saw, and what that took."""
    answer, video, again = done.answer, done.answer.video, done.answer.looked_again
    return {
        "evidence": [asdict(span) for span in answer.evidence],
        "looked_again": None if again is None else asdict(again),
        "probability": answer.probability,
        "video": {key: value for key, value in asdict(video).items() if key != "path"},
        "left_out": {
            "by": video.reduced_by,
            "keep_ratio": video.keep_ratio,
            "n_cells": video.n_cells_before - video.n_cells_kept,
            "n_grid_frames": video.n_grid_frames - video.n_frames_kept,
            "not_compressible": video.not_compressible,
        },
        "session": asdict(answer.session),
        "seconds": {**answer.seconds, "waited": done.waited_s},
    }


def usage(done: Done) -> dict[str, Any]:
    """Return the tokens of a request; cached ones were there before it."""
    n_answer = done.answer.n_tokens
    return {
        "prompt_tokens": done.n_prompt,
        "completion_tokens": n_answer,
        "total_tokens": done.n_prompt + n_answer,
        "prompt_tokens_details": {"cached_tokens": min(done.n_cached, done.n_prompt)},
    }


def timings(done: Done) -> dict[str, Any]:
    """Return llama-server's `timings`."""
    seconds, n = done.answer.seconds, done.answer.n_tokens
    first_s = seconds.get("first_token", seconds.get("generate", 0.0))
    predicted_s = max(0.0, seconds.get("generate", 0.0) - first_s)
    return {
        "cache_n": min(done.n_cached, done.n_prompt),
        "prompt_n": max(0, done.n_prompt - done.n_cached),
        "prompt_ms": 1000 * first_s,
        "predicted_n": n,
        "predicted_ms": 1000 * predicted_s,
        "predicted_per_second": (n - 1) / predicted_s if predicted_s > 0 and n > 1 else 0.0,
    }


def new_id(kind: str) -> str:
    """Return an id that no other answer has."""
    return f"{kind}-{secrets.token_hex(12)}"


def completion(answer_id: str, model: str, text: str, reason: str, done: Done) -> dict[str, Any]:
    """Return a chat.completion."""
    message = {"role": "assistant", "content": text, "refusal": None}
    choice = {"index": 0, "message": message, "finish_reason": reason, "logprobs": None}
    return {
        "id": answer_id,
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [choice],
        "usage": usage(done),
        "timings": timings(done),
        "retake": retake_facts(done),
    }


def chunk(
    answer_id: str, model: str, delta: dict[str, Any] | None, reason: str | None = None, **more: Any
) -> dict[str, Any]:
    """Return a chat.completion.chunk; without a delta it has no choices."""
    choice = {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}
    return {
        "id": answer_id,
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": model,
        "choices": [] if delta is None else [choice],
        **more,
    }


def progress_facts(event: Progress) -> dict[str, Any]:
    """Return llama-server's `prompt_progress`, with the reading's own figures."""
    reading = None if event.reading is None else asdict(replace(event.reading, pictures=()))
    if reading is not None:
        del reading["pictures"]
    return {
        "total": event.total,
        "cache": 0,
        "processed": event.done,
        "time_ms": 0,
        "stage": event.stage,
        "reading": reading,
    }


class Stops:
    """Cuts a streamed text where one of the client's stop words begins."""

    def __init__(self, words: str | list[str] | None) -> None:
        given = [words] if isinstance(words, str) else words or []
        self._words = [word for word in given if word]
        self._held = ""
        self.is_over = False

    def take(self, text: str) -> str:
        """Return what may be shown of the text so far; the rest may begin a stop word."""
        if self.is_over:
            return ""
        self._held += text
        found = [at for at in map(self._held.find, self._words) if at >= 0]
        if found:
            self.is_over = True
            return self._cut(min(found))
        return self._cut(len(self._held) - self._n_begun())

    def rest(self) -> str:
        """Return what was held back, at the end of the text."""
        return "" if self.is_over else self._cut(len(self._held))

    def _cut(self, n: int) -> str:
        shown, self._held = self._held[:n], self._held[n:]
        return shown

    def _n_begun(self) -> int:
        """The length of the longest end that begins a stop word."""
        longest = max(map(len, self._words), default=1) - 1
        for n in range(min(longest, len(self._held)), 0, -1):
            if any(word.startswith(self._held[-n:]) for word in self._words):
                return n
        return 0
