"""The tiny model's vocabulary: bytes, BPE merges for the question words, specials, clock times.

It is a GPT-2 style byte-level BPE with Qwen2's splitting, so that llama.cpp reads it as
pre-tokenizer "qwen2". Every word that questions use is one token, and so is every clock time
from 0:00 to 59:59, which video, questions and answers share.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from functools import cache, lru_cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import itertools

from retake_edge.bench.scenes.questions import TEMPLATES
from retake_edge.bench.scenes.scene import BACKGROUNDS, COLOURS, MOTIONS, SHAPES

SPECIALS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
N_CLOCK = 3600
_CLOCK = r"[1-5]\d:[0-5]\d|\d:[0-5]\d"
_SPLIT = re.compile(
    r"[^\r\nA-Za-z0-9]?[A-Za-z]+|[0-9]| ?[^\sA-Za-z0-9]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CONTROL = re.compile("(" + "|".join(re.escape(s) for s in SPECIALS) + "|" + _CLOCK + ")")


def byte_letters() -> list[str]:
    """Return GPT-2's printable letter for each byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(b) if b in plain else chr(next(others)) for b in range(256)]


_LETTERS = byte_letters()


def _letters(text: str) -> str:
    return "".join(_LETTERS[b] for b in text.encode())


def _pieces() -> list[str]:
    """Return the words of all questions and answers, with and without a leading space."""
    words = {
        w
        for lines in TEMPLATES.values()
        for line in lines
        for w in re.findall(r"[A-Za-z]+", re.sub(r"\{\w+\}", "", line))
    }
    words |= {"user", "assistant", "system", "yes", "no", "object", "video"}
    words |= {*COLOURS, *SHAPES, *BACKGROUNDS, *MOTIONS}
    return sorted({_letters(p + w) for w in words for p in ("", " ")})


def _merge(symbols: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    out: list[str] = []
    for symbol in symbols:
        if out and (out[-1], symbol) == pair:
            out[-1] += symbol
        else:
            out.append(symbol)
    return tuple(out)


@lru_cache(maxsize=1)
def merges() -> list[tuple[str, str]]:
    """Train merges until every piece is one token; the most frequent pair first."""
    pieces = [tuple(p) for p in _pieces()]
    found: list[tuple[str, str]] = []
    while True:
        counts = Counter(pair for p in pieces for pair in itertools.pairwise(p))
        if not counts:
            return found
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        found.append(best)
        pieces = [_merge(p, best) for p in pieces]


@lru_cache(maxsize=1)
def vocabulary() -> list[str]:
    """Return the text of every token in order: bytes, merges, specials, clock times."""
    clocks = [f"{m}:{s:02d}" for m in range(60) for s in range(60)]
    return [*_LETTERS, *dict.fromkeys(a + b for a, b in merges()), *SPECIALS, *clocks]


@lru_cache(maxsize=1)
def token_ids() -> dict[str, int]:
    """Return the number of every token's text."""
    return {text: i for i, text in enumerate(vocabulary())}


def clock_base() -> int:
    """Return the number of the token 0:00; those of later seconds follow."""
    return len(vocabulary()) - N_CLOCK


@cache
def _encode_piece(piece: str) -> tuple[int, ...]:
    ranks = {pair: i for i, pair in enumerate(merges())}
    symbols = tuple(_letters(piece))
    while len(symbols) > 1:
        best = min(itertools.pairwise(symbols), key=lambda p: ranks.get(p, 10**9))
        if best not in ranks:
            break
        symbols = _merge(symbols, best)
    return tuple(token_ids()[s] for s in symbols)


def encode(text: str) -> list[int]:
    """Encode text, special tokens and clock times included."""
    ids: list[int] = []
    for part in _CONTROL.split(text):
        if part in token_ids() and _CONTROL.fullmatch(part):
            ids.append(token_ids()[part])
        else:
            for piece in _SPLIT.findall(part):
                ids.extend(_encode_piece(piece))
    return ids


def decode(ids: list[int]) -> str:
    """Return the text of tokens; special tokens are left out."""
    back = {letter: b for b, letter in enumerate(_LETTERS)}
    parts = []
    for i in ids:
        text = vocabulary()[i]
        if i >= clock_base():
            parts.append(text.encode())
        elif text not in SPECIALS:
            parts.append(bytes(back[c] for c in text))
    return b"".join(parts).decode(errors="replace")
