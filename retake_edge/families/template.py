"""The text around a video and a question, as the model's own chat template writes it."""

from __future__ import annotations

from typing import Any

from retake_edge.errors import ModelError
from retake_edge.families.family import Family
from retake_edge.models import Prompt

_QUESTION_MARK = "\x00question\x00"
_ANSWER_MARK = "\x00answer\x00"
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{{ '<|im_start|>assistant\n' }}"  # Jinja drops a line break at the end of a template
)
"""The chat template of a file without one; no system message."""


def video_prompt(template: str | None, family: Family) -> Prompt:
    """Split a chat template (Jinja; None: ChatML) around the video and the question.

    A template that takes a message's parts writes the video in its own way; one that knows text
    only gets the family's.

    Raises:
        ModelError: the template fails, or drops the video or the question.
    """
    parts = [{"type": "video"}, {"type": "text", "text": _QUESTION_MARK}]
    for content in (parts, family.video + _QUESTION_MARK):
        try:
            prompt = _split(template, content, family.slot)
        except Exception as error:  # whatever a template of someone else's making raises
            failure = str(error)
            continue
        if prompt is not None:
            last = family.layout.after_frame
            return Prompt(prompt.before, last + prompt.after, prompt.follow_up)
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


def _split(template: str | None, content: Any, slot: str) -> Prompt | None:
    before, found, after = _rendered(template, content).partition(slot)
    both = _rendered(template, content, _ANSWER_MARK, _QUESTION_MARK)
    follow_up = both.partition(_ANSWER_MARK)[2]
    if not found or _QUESTION_MARK not in after or _QUESTION_MARK not in follow_up:
        return None
    return Prompt(
        before,
        after.replace(_QUESTION_MARK, "{question}"),
        follow_up.replace(_QUESTION_MARK, "{question}"),
    )


def _rendered(template: str | None, *contents: Any) -> str:
    """Render a conversation of user and assistant in turns."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = _refuse
    roles = "user", "assistant"
    messages = [{"role": roles[i % 2], "content": content} for i, content in enumerate(contents)]
    return environment.from_string(template or CHATML).render(
        messages=messages, add_generation_prompt=True, bos_token="", eos_token=""
    )


def _refuse(message: str) -> None:
    """What templates call where they cannot go on."""
    raise ValueError(message)
