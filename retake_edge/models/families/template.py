"""The text around a video and a question, as the model's own chat template writes it."""

from __future__ import annotations

import json
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NoReturn

from retake_edge.errors import ModelError
from retake_edge.models.families.family import Family
from retake_edge.models.manifest import Prompt

if TYPE_CHECKING:
    from jinja2 import Environment

_QUESTION_MARK = "\x00question\x00"
_ANSWER_MARK = "\x00answer\x00"
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{{ '<|im_start|>assistant\n' }}"  # Jinja drops a line break at the end of a template
)
"""The chat template of a file without one; no system message."""


def video_prompt(template: str | None, family: Family, system: str = "") -> Prompt:
    """Split a chat template (Jinja; None: ChatML) around the video and the question.

    `system`: a system message before the user's ('': none, or what the template says itself).

    A template that takes a message's parts writes the video in its own way; one that knows text
    only gets the family's.

    Raises:
        ModelError: the template fails, or drops the video or the question.
    """
    parts = [{"type": "video"}, {"type": "text", "text": _QUESTION_MARK}]
    for content in (parts, family.video + _QUESTION_MARK):
        try:
            prompt = _split(template, content, family.slot, system)
        except Exception as error:  # whatever a template of someone else's making raises
            failure = str(error)
            continue
        if prompt is not None:
            after, closing = family.positions.after_frame + prompt.after, ""
            if family.tells_video:
                closing, question, rest = after.partition("{question}")
                after = question + rest
            return Prompt(prompt.before, after, prompt.follow_up, closing)
        failure = "it drops the video or the question"
    raise ModelError(
        f"The chat template of the model cannot be used for video ({failure}); use a GGUF made "
        "from the original model."
    )


def text_prompt(template: str | None) -> Prompt:
    """Split a chat template around a text, given as `before` TEXT `after`, and the question."""
    mark = "\x00text\x00"
    prompt = _split(template, mark + _QUESTION_MARK, mark)
    assert prompt is not None, "a template writes what it is given"
    return prompt


def _split(template: str | None, content: Any, slot: str, system: str = "") -> Prompt | None:
    before, found, after = _rendered(template, system, content).partition(slot)
    both = _rendered(template, system, content, _ANSWER_MARK, _QUESTION_MARK)
    if system not in before:
        raise ValueError("it drops the system prompt")
    follow_up = both.partition(_ANSWER_MARK)[2]
    if not found or _QUESTION_MARK not in after or _QUESTION_MARK not in follow_up:
        return None
    return Prompt(
        before,
        after.replace(_QUESTION_MARK, "{question}"),
        follow_up.replace(_QUESTION_MARK, "{question}"),
    )


def _rendered(template: str | None, system: str, *contents: Any) -> str:
    """Render a conversation of user and assistant in turns, after a system message if any."""
    roles = "user", "assistant"
    messages = [{"role": "system", "content": system}] if system else []
    messages += [{"role": roles[i % 2], "content": content} for i, content in enumerate(contents)]
    return (
        _environment()
        .from_string(template or CHATML)
        .render(messages=messages, add_generation_prompt=True, bos_token="", eos_token="")
    )


@lru_cache(maxsize=1)
def _environment() -> Environment:
    """Jinja as transformers sets it up for chat templates (utils/chat_template_utils.py)."""
    from jinja2 import nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %}` marks what an assistant wrote; it renders as what is within."""

        tags = {"generation"}  # noqa: RUF012 (Jinja reads it off the class)

        def parse(self, parser: Parser) -> nodes.Scope:
            next(parser.stream)
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.globals |= {"raise_exception": _refuse, "strftime_now": _now}
    environment.filters["tojson"] = _to_json
    return environment


def _refuse(message: str) -> NoReturn:
    """Raise ValueError: templates call this where they cannot go on."""
    raise ValueError(message)


def _now(form: str) -> str:
    return datetime.now().strftime(form)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as it is; Jinja's own filter escapes it for HTML."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )
