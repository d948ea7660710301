"""Whole numbers in English words: some models are told the number of frames that way."""

from __future__ import annotations

_ONES = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]


def in_words(n: int) -> str:
    """Return n, 0 <= n < 1,000,000, as 'one thousand, two hundred and thirty-four'."""
    assert 0 <= n < 1_000_000, n
    if n < 20:
        return _ONES[n]
    if n < 100:
        tens = _TENS[n // 10 - 2]
        return f"{tens}-{_ONES[n % 10]}" if n % 10 else tens
    if n < 1000:
        return _joined(f"{_ONES[n // 100]} hundred", n % 100)
    return _joined(f"{in_words(n // 1000)} thousand", n % 1000)


def _joined(front: str, rest: int) -> str:
    """Put what is below a hundred, or a thousand, after what is above it."""
    if not rest:
        return front
    return f"{front}{' and' if rest < 100 else ','} {in_words(rest)}"
