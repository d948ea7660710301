"""Bodies of requests: OpenAI's fields, and those that other servers' clients add."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

_Stop = Annotated[str, Field(max_length=1000)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="allow", allow_inf_nan=False, protected_namespaces=())


class ChatBody(_Body):
    """The body of /v1/chat/completions; any `model` is answered by the one that is loaded.

    Also taken: fps, max_frames, num_frames, long_side, start, end, keep_ratio, kv_budget.
    """

    messages: list[dict[str, Any]] = Field(min_length=1, max_length=2000)
    model: str | None = None
    stream: bool | None = False
    stream_options: dict[str, Any] | None = None
    return_progress: bool | None = False
    n: int | None = None
    stop: _Stop | Annotated[list[_Stop], Field(max_length=64)] | None = None
    seed: int | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repeat_penalty: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    response_format: dict[str, Any] | None = None
    grammar: str | None = None
    media_io_kwargs: dict[str, Any] | None = None
    mm_processor_kwargs: dict[str, Any] | None = None


class ResponsesBody(_Body):
    """The body of /v1/responses, as far as questions about a video need it."""

    input: str | list[dict[str, Any]]
    model: str | None = None
    instructions: str | None = None
    stream: bool | None = False
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    text: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    previous_response_id: str | None = None
