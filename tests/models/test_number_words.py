"""Numbers in words, as the num2words package writes them for SmolVLM2's processor."""

import pytest

from retake_edge.models.number_words import in_words


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "zero"),
        (1, "one"),
        (13, "thirteen"),
        (20, "twenty"),
        (64, "sixty-four"),
        (100, "one hundred"),
        (101, "one hundred and one"),
        (999, "nine hundred and ninety-nine"),
        (1000, "one thousand"),
        (1024, "one thousand and twenty-four"),
        (2048, "two thousand and forty-eight"),
        (3600, "three thousand, six hundred"),
        (12_345, "twelve thousand, three hundred and forty-five"),
        (100_001, "one hundred thousand and one"),
    ],
)
def test_a_number_is_written_as_the_processor_writes_it(number, words):
    assert in_words(number) == words
