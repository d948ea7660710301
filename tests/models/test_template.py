"""Chat templates render as transformers renders them, or are refused with the reason.

What transformers 5 makes of each template was recorded by hand from its `_compile_jinja_template`.
"""

from datetime import datetime
from pathlib import Path

import pytest

from retake_edge.errors import ConfigError, ModelError
from retake_edge.llama.gguf import GgufFile
from retake_edge.models.families import infer_manifest, manifest_of
from retake_edge.models.families.template import _environment
from retake_edge.models.manifest import load_manifest

MESSAGES = (
    "{% for m in messages %}<{{ m.role }}>{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for c in m.content %}{% if c.type == 'video' %}<|video_pad|>{% else %}{{ c.text }}"
    "{% endif %}{% endfor %}{% endif %}{% endfor %}"
)


def pair(template):
    vision = {"general.architecture": "clip", "clip.projector_type": "qwen2vl_merger"}
    language = {"general.architecture": "qwen2vl", "tokenizer.chat_template": template}
    language["qwen2vl.rope.dimension_sections"] = [4, 6, 6, 0]
    return (
        GgufFile(Path("model.gguf"), language, {}, {}),
        GgufFile(Path("mmproj.gguf"), vision, {}, {}),
    )


@pytest.mark.parametrize(
    ("template", "text"),
    [
        (
            "{% for i in [1, 2, 3, 4] %}{% if i == 2 %}{% continue %}{% endif %}{{ i }}"
            "{% if i == 3 %}{% break %}{% endif %}{% endfor %}",
            "13",
        ),
        ("{% generation %}  a\n{% endgeneration %}b", "  a\nb"),
        ("a\n  {% generation %}\n  hi\n  {% endgeneration %}\nb", "a\n  hi\nb"),
        (
            "{% for m in [1, 2] %}{% generation %}{{ m }}{% set y = m %}{% endgeneration %}{{ y }}"
            "{% endfor %}",
            "12",
        ),
        ("{{ {'b': 1, 'a': '<é&'} | tojson }}", '{"b": 1, "a": "<é&"}'),
        ("{{ {'b': 1, 'a': 2} | tojson(sort_keys=true) }}", '{"a": 2, "b": 1}'),
        ("{{ [1, 2] | tojson(indent=1) }}", "[\n 1,\n 2\n]"),
        ("{{ [1, 2] | tojson(separators=(',', ':')) }}", "[1,2]"),
        ("{{ 'é' | tojson(ensure_ascii=true) }}", '"\\u00e9"'),
        ("{% set ns = namespace(a=1) %}{% set ns.a = 2 %}{{ ns.a }}", "2"),
        ("{% if tools %}no{% endif %}yes", "yes"),
    ],
)
def test_a_template_renders_as_transformers_renders_it(template, text):
    assert _environment().from_string(template).render() == text


def test_the_date_is_todays():
    before = datetime.now().strftime("%d %b %Y")
    text = _environment().from_string("{{ strftime_now('%d %b %Y') }}").render()
    assert text in (before, datetime.now().strftime("%d %b %Y"))


@pytest.mark.parametrize(
    "start",
    [
        "{{ strftime_now('%Y') }}",
        "{% for i in [1] %}{% break %}{% endfor %}",
        "{% generation %}{% endgeneration %}",
        "{{ tools | tojson if tools else '' }}",
        "",
    ],
)
def test_what_hub_templates_use_works_in_a_models_template(start):
    prompt = infer_manifest(*pair(start + MESSAGES)).prompt
    assert prompt.before.endswith("<user>") and prompt.question("Why?").endswith("Why?")


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ raise_exception('Only one turn, please.') }}", "Only one turn, please."),
        ("{% if %}", "Expected an expression"),
        ("{{ messages | nonesuch }}", "nonesuch"),
        ("{{ ''.__class__.__mro__[1] }}", "unsafe"),
        ("hello", "drops the video or the question"),
    ],
)
def test_a_template_that_cannot_be_used_is_named_with_the_reason(template, reason):
    with pytest.raises(ModelError, match="chat template") as refused:
        infer_manifest(*pair(template))
    assert reason in str(refused.value)


def test_a_system_prompt_stands_before_the_video():
    model, mmproj = pair(MESSAGES)
    prompt = infer_manifest(model, mmproj, "Be brief.").prompt
    assert prompt.before == "<system>Be brief.<user>"


def test_a_template_that_drops_the_system_prompt_is_refused():
    template = MESSAGES.replace("{% for m in messages %}", "{% for m in messages[1:] %}")
    model, mmproj = pair(template)
    with pytest.raises(ModelError, match="drops the system prompt"):
        infer_manifest(model, mmproj, "Be brief.")


def test_a_model_with_a_prompt_of_its_own_takes_no_system_prompt():
    with pytest.raises(ConfigError, match="tiny takes no system prompt"):
        manifest_of(load_manifest("tiny"), "Be brief.")
