"""A field's own account of itself: its range in words, its value from a text, its help line."""

import math

import pytest

from retake_edge.errors import ConfigError
from retake_edge.setting import Range, Setting


@pytest.mark.parametrize(
    ("one", "words", "inside", "outside"),
    [
        (Range(), "finite", [-1e9, 0], [math.inf, math.nan]),
        (Range(1), "at least 1", [1, 2.5], [0.999, -1]),
        (Range(0, is_open=True), "above 0", [1e-9], [0, -1]),
        (Range(0, 1), "from 0 to 1", [0, 1], [1.001, -0.001]),
        (Range(0, 1, is_open=True), "above 0 and at most 1", [0.5, 1], [0, 1.001]),
    ],
)
def test_a_range_is_what_its_words_say(one, words, inside, outside):
    assert str(one) == words
    assert all(value in one for value in inside)
    assert not any(value in one for value in outside)


def test_a_text_becomes_a_value_of_the_fields_kind():
    number = Setting("", ("-n",), kind=int, default=7, llama_defaults=("-1",))
    assert [number.parsed(text) for text in ("5", "-1")] == [5, 7]
    assert Setting("", ("--start",), kind=float, is_time=True).parsed("1:30") == 90
    assert Setting("", ("--fps",), kind=float).parsed("0.5") == 0.5
    with pytest.raises(ConfigError, match="-n is 'x', but it must be a whole number"):
        number.parsed("x")


def test_a_value_of_another_kind_or_choice_is_refused():
    one = Setting("", ("-fa",), choices=("on", "off"), is_optional=True)
    one.check(None)
    one.check("on")
    with pytest.raises(ConfigError, match="one of on, off"):
        one.check("yes")
    with pytest.raises(ConfigError, match="a whole number"):
        Setting("", ("-n",), kind=int).check(True)


def test_the_help_line_tells_choices_and_what_none_stands_for():
    one = Setting("Flash attention.", ("-fa",), choices=("on", "off"), unset="the model's")
    assert one.help_line == "Flash attention: on, off.  [default: the model's]"
