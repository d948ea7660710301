"""The settings of one request: how the video is looked at, and how the answer is drawn."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from retake_edge.config import GenerationConfig, RetakeConfig, all_settings, with_values
from retake_edge.formats import parse_time
from retake_edge.server.errors import ApiError
from retake_edge.server.parts import VideoRef
from retake_edge.server.schemas import ChatBody

_MOST = 2**31 - 1


def _number(name: str, value: Any) -> float | None:
    """A number; None where it is at most 0, by which clients mean 'no limit'."""
    number = value
    if isinstance(value, str):
        with suppress(ValueError):
            number = float(value)
    if isinstance(number, bool) or not isinstance(number, int | float) or not abs(number) <= _MOST:
        raise ApiError(
            400,
            f"{name} is {ascii(value)[:40]}, but it must be a number of at most {_MOST}.",
            param=name,
        )
    return number if number > 0 else None


def _count(name: str, value: Any) -> int | None:
    number = _number(name, value)
    if number is not None and number != int(number):
        raise ApiError(400, f"{name} is {number}, but it must be a whole number.", param=name)
    return None if number is None else int(number)


def _look_again(name: str, value: Any) -> int | None:
    """Frames of a second look; 0: none."""
    return 0 if value in (0, "0") and value is not False else _count(name, value)


def _seconds(name: str, value: Any) -> float | None:
    return parse_time(value, name) if isinstance(value, str) else _number(name, value)


_KNOBS = {
    "fps": "sampling.fps",
    "max_frames": "sampling.max_frames",
    "num_frames": "sampling.max_frames",
    "nframes": "sampling.max_frames",
    "long_side": "sampling.long_side_px",
    "start": "sampling.start_s",
    "end": "sampling.end_s",
    "video_start": "sampling.start_s",
    "video_end": "sampling.end_s",
    "keep_ratio": "compression.keep_ratio",
    "kv_budget": "compression.kv_budget",
    "still": "sampling.still",
    "look_again": "look.frames",
}
"""Settings that a request may change, by the names that clients use."""


def _read(name: str, path: str, value: Any) -> float | int | None:
    """The value of a setting, as clients write it."""
    one = all_settings()[path]
    if one.is_time:
        return _seconds(name, value)
    if path == "look.frames":
        return _look_again(name, value)
    return _count(name, value) if one.kind is int else _number(name, value)


def _sources(body: ChatBody, refs: Sequence[VideoRef]) -> Iterator[Mapping[str, Any]]:
    """Where settings of a request stand, the last one counting most."""
    extra, media = body.model_extra or {}, body.media_io_kwargs or {}
    sources = [body.mm_processor_kwargs, media.get("video"), extra, extra.get("retake")]
    for source in [*sources, *(ref.knobs for ref in refs)]:
        if isinstance(source, Mapping):
            yield source


def is_guided(body: ChatBody, refs: Sequence[VideoRef]) -> bool:
    """Return whether the video shall be read for the question alone.

    Raises:
        ApiError: the setting is neither true nor false.
    """
    wanted = False
    for source in _sources(body, refs):
        value = source.get("guided")
        if value is not None and not isinstance(value, bool):
            raise ApiError(
                400, f"guided is {ascii(value)[:40]}, but must be true or false.", param="guided"
            )
        wanted = wanted if value is None else value
    return wanted


def video_config(base: RetakeConfig, body: ChatBody, refs: Sequence[VideoRef]) -> RetakeConfig:
    """Return how the video is looked at; the part goes before `extra_body`, that before kwargs.

    Raises:
        ConfigError: a value is out of range.
    """
    found: dict[str, dict[str, Any]] = {}
    for source in _sources(body, refs):
        for name, path in _KNOBS.items():
            if source.get(name) is not None:
                section, _, field = path.partition(".")
                found.setdefault(section, {})[field] = _read(name, path, source[name])
    return with_values(base, **found)


def generation_config(base: GenerationConfig, body: ChatBody) -> GenerationConfig:
    """Return how the answer is drawn.

    Raises:
        ConfigError: a value is out of range. ApiError: something is asked for that is not there.
    """
    _refuse_unknown(body)
    tokens = body.max_completion_tokens or body.max_tokens or body.max_output_tokens
    values: dict[str, Any] = {
        "max_tokens": min(tokens, _MOST) if tokens is not None and tokens > 0 else None,
        "temperature": body.temperature,
        "seed": None if body.seed is None else body.seed % 2**32,
        "top_k": body.top_k if body.top_k is None else max(0, body.top_k),
        "top_p": body.top_p,
        "min_p": body.min_p,
        "repeat_penalty": body.repeat_penalty or body.repetition_penalty,
        "presence_penalty": body.presence_penalty,
        "grammar": _grammar(body),
    }
    return replace(base, **{name: value for name, value in values.items() if value is not None})


def _refuse_unknown(body: ChatBody) -> None:
    extra = body.model_extra or {}
    asked = {
        "n": body.n not in (None, 1),
        "frequency_penalty": bool(body.frequency_penalty),
        "tools": bool(extra.get("tools")),
        "functions": bool(extra.get("functions")),
        "logprobs": bool(extra.get("logprobs")),
        "logit_bias": bool(extra.get("logit_bias")),
    }
    for name, is_asked in asked.items():
        if is_asked:
            raise ApiError(400, f"{name} is not supported here; leave it out.", param=name)


def _grammar(body: ChatBody) -> str | None:
    from retake_edge.llama.grammar import grammar_of_schema

    wanted = body.response_format or {}
    kind = wanted.get("type")
    if kind in (None, "text"):
        return body.grammar
    schema: Any = {"type": "object"}
    if kind == "json_schema":
        schema = wanted.get("json_schema", wanted)
        schema = schema.get("schema") if isinstance(schema, Mapping) else None
    elif kind == "json_object":
        schema = wanted.get("schema", schema)
    if kind not in ("json_schema", "json_object") or not isinstance(schema, Mapping):
        raise ApiError(400, "The response_format is not known.", param="response_format")
    return grammar_of_schema(json.dumps(schema))
