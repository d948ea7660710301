"""The messages of a request as one conversation about one video."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from retake_edge.errors import ConfigError
from retake_edge.questions import check_text, checked_question
from retake_edge.server.errors import ApiError
from retake_edge.server.parts import VideoRef, refs_of, text_of

_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


@dataclass(frozen=True)
class Asked:
    """A question about a video, after `turns`: (question, answer), in order.

    `refs`: all that the messages refer to, each once: one video, or its frames.
    """

    refs: list[VideoRef]
    turns: list[tuple[str, str]]
    question: str


def asked_of(messages: Sequence[Mapping[str, Any]], max_turns: int) -> Asked:
    """Return what is asked.

    What a system message says goes before the first question: what the model reads before the
    video decides about the video's cells, and would have it read anew for each such message.

    Raises:
        ApiError: the messages are no conversation about a video that ends in a question.
    """
    refs: list[VideoRef] = []
    said: list[tuple[str, str]] = []
    for message in messages:
        role = _ROLES.get(str(message.get("role")))
        if role is None:
            raise _bad(f"The role {ascii(message.get('role'))[:40]} is not known.")
        text, found = _content(message.get("content"))
        if found and role == "assistant":
            raise _bad("An assistant's message has a video; only a user's may.")
        refs += found
        said.append((role, text))
    system = "\n".join(text for role, text in said if role == "system" and text)
    turns, question = _turns([(role, text) for role, text in said if role != "system"])
    if len(turns) >= max_turns:
        raise _bad(f"The conversation has more than {max_turns} questions; begin a new one.")
    if system and turns:
        turns[0] = (f"{system}\n\n{turns[0][0]}", turns[0][1])
    elif system:
        question = f"{system}\n\n{question}"
    for text in [question, *(text for turn in turns for text in turn)]:
        check_text("A message", text)
    if not refs:
        raise ApiError(
            400,
            "The messages have no video; add a part such as {'type': 'video_url', 'video_url': "
            "{'url': ...}}.",
            code="video_missing",
            param="messages",
        )
    return Asked(_distinct(refs), turns, checked_question(question))


def _content(content: Any) -> tuple[str, list[VideoRef]]:
    """The text of a message, its parts joined by line ends, and what it refers to."""
    if content is None or isinstance(content, str):
        return content or "", []
    if not isinstance(content, list):
        content = [content]
    texts, refs = [], []
    for part in content:
        if isinstance(part, str):
            texts.append(part)
            continue
        if not isinstance(part, Mapping):
            raise _bad("A part of a message is neither text nor an object.")
        text = text_of(part)
        if text is None:
            refs += refs_of(part)
        elif text.strip():
            texts.append(text)
    return "\n".join(texts), refs


def _turns(said: list[tuple[str, str]]) -> tuple[list[tuple[str, str]], str]:
    """Questions with their answers, and the last question; neighbours of one role are one."""
    joined: list[tuple[str, str]] = []
    for role, text in said:
        if joined and joined[-1][0] == role:
            both = [part for part in (joined[-1][1], text) if part.strip()]
            joined[-1] = (role, "\n".join(both))
        else:
            joined.append((role, text))
    if joined and joined[0][0] == "assistant":
        joined = joined[1:]  # a greeting that answers nothing
    if not joined or joined[-1][0] != "user":
        raise _bad("The last message is not a user's; end with a question.")
    if any(not text.strip() for _, text in joined):
        raise ConfigError("A message has no text; say what you want to know of the video.")
    pairs = zip(joined[:-1:2], joined[1::2], strict=True)
    return [(asked, answer) for (_, asked), (_, answer) in pairs], joined[-1][1]


def _distinct(refs: list[VideoRef]) -> list[VideoRef]:
    """Each video once; frames stay as they are, since two may be alike."""
    if all(ref.kind == "image" for ref in refs):
        return refs
    if any(ref.kind == "image" for ref in refs):
        raise _bad("The messages have images and a video; send one video, or its frames.")
    return list(dict.fromkeys(refs))


def _bad(message: str) -> ApiError:
    return ApiError(400, message, param="messages")
