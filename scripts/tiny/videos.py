"""Videos for the LM, put together from the feature bank, with positions, questions and targets.

Each video is described as a `Scene` on its own clock, so the questions and answers are those
of `retake_edge.bench.scenes.questions`. The layout is the engine's: per frame pair one clock token
and 16 vision tokens, time at four positions a second, rows and columns fixed.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tokens
import torch
from bank import N_CARDS, N_PLAIN, Bank
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from retake_edge.bench.scenes import questions as sq
from retake_edge.bench.scenes import scene as sc

STEPS_PER_S = 4
GRID, PER_PAIR = 4, 17
HEADER = "<|im_start|>user\n<|vision_start|>"
WEIGHTS = {
    "number": 4,
    "when_card": 4,
    "order": 6,
    "card_exists": 2,
    "number_at": 2,
    "exists": 2,
    "colour": 0.5,
    "shape": 0.5,
    "when_object": 5,
    "object_at": 2,
    "first_card": 2,
    "last_card": 3,
    "first_object": 1,
    "last_object": 1,
    "background": 0.7,
    "motion": 0.7,
    "count": 1,
}
NAMES = (tuple(sc.COLOURS), sc.SHAPES)
NAMED_WORDS = tuple([tokens.encode(" " + w)[0] for w in words] for words in NAMES)
_KINDS, _P = list(WEIGHTS), np.array(list(WEIGHTS.values())) / sum(WEIGHTS.values())


@dataclass
class Video:
    """One video as the LM sees it: features [n, 16, 256], clock times [n], and what it shows."""

    features: np.ndarray
    times_s: np.ndarray
    scene: sc.Scene


def _lengths(rng: np.random.Generator, n: int, shortest: int = 3) -> list[int]:
    """Split n pairs into segments of 3 pairs or more."""
    parts = int(rng.integers(1, max(2, min(n // shortest, 2 + n // 6) + 1)))
    cuts = np.sort(rng.integers(0, n - shortest * parts + 1, parts - 1))
    edges = np.concatenate([[0], cuts, [n - shortest * parts]])
    return [int(d) + shortest for d in np.diff(edges)]


def _times(rng: np.random.Generator, lengths: list[int]) -> np.ndarray:
    """Draw clock times of the pairs: even steps, from zero or later, some with jumps between."""
    step = float(rng.choice((0.5, 1.0, 2.0), p=(0.2, 0.6, 0.2)))
    gaps = np.full(sum(lengths), step)
    if rng.random() < 0.4:
        gaps[np.cumsum(lengths)[:-1]] += rng.integers(0, 40, len(lengths) - 1) * max(step, 1.0)
    gaps[0] = 0
    times = np.cumsum(gaps)
    late = rng.random() < 0.6
    return times + (int(rng.integers(0, max(1, 3590 - int(times[-1])))) if late else 0)


def draw_video(rng: np.random.Generator, bank: Bank, n: int) -> Video:
    """Put a video of n pairs together."""
    lengths = _lengths(rng, n)
    times = _times(rng, lengths)
    ends = np.append(times[1:], times[-1] + (times[-1] - times[-2]))
    rows: list[np.ndarray] = []
    segments, cards, used, at = [], [], set(), 0
    density = rng.choice((1.0, 2.0, 4.0)) * 3 / n
    for length in lengths:
        clip = int(rng.integers(len(bank.segments)))
        picks = rng.integers(0, N_PLAIN, length)
        i = int(rng.integers(0, 3))
        while i < length:
            number = int(rng.integers(N_CARDS))
            card = bank.cards[clip][number]
            if rng.random() < min(0.5, density) and card.colour not in used:
                base = N_PLAIN + 3 * number
                shown = ([0], [1], [0, 1], [2, 0], [2, 0, 2])[int(rng.integers(5))]
                if i + len(shown) <= length:
                    picks[i : i + len(shown)] = [base + k for k in shown]
                    last = at + i + len(shown) - 1
                    cards.append(replace(card, start_s=times[at + i], end_s=ends[last]))
                    used.add(card.colour)
                    i += len(shown)
            i += 1
        segments.append(
            replace(bank.segments[clip], start_s=times[at], end_s=ends[at + length - 1])
        )
        rows.append(bank.features[clip, picks])
        at += length
    seconds = float(ends[-1])
    return Video(np.concatenate(rows), times, sc.Scene(0, seconds, tuple(segments), tuple(cards)))


def prefix_positions(times_s: np.ndarray) -> tuple[np.ndarray, int]:
    """Return positions [4 + 17 n, 3] of header, clock and vision tokens, and the next position."""
    base = len(tokens.encode(HEADER))
    t = base + 1 + np.round(STEPS_PER_S * (times_s - times_s[0])).astype(int)
    cells = np.empty((len(t), PER_PAIR, 3), int)
    cells[:, 0] = (t - 1)[:, None]
    cells[:, 1:, 0] = t[:, None]
    row, column = np.divmod(np.arange(GRID * GRID), GRID)
    cells[:, 1:, 1], cells[:, 1:, 2] = base + row, base + column
    head = np.repeat(np.arange(base)[:, None], 3, 1)
    positions = np.concatenate([head, cells.reshape(-1, 3)])
    return positions, int(positions.max()) + 1


def draw_questions(rng: np.random.Generator, video: Video, n: int) -> list[sq.Question]:
    """Draw n questions, few alike; a clock time asked for is that of some pair."""
    found: list[sq.Question] = []
    tries = 0
    while len(found) < n:
        tries += 1
        kind = _KINDS[int(rng.choice(len(_KINDS), p=_P))]
        question = sq.draw_question(rng, video.scene, kind)
        if question is None:
            continue
        if tries < 5 * n and any((kind, question.time_s) == (q.kind, q.time_s) for q in found):
            continue
        if kind == "object_at":
            moment = float(video.times_s[int(rng.integers(len(video.times_s)))])
            segment = video.scene.segment_at(moment)
            text = sq._pick(rng, sq.TEMPLATES[kind]).format(clock=sq.clock(moment))
            question = sq.Question(kind, text, f"{segment.colour} {segment.shape}", moment)
        found.append(question)
    return found


def evidence(question: sq.Question, video: Video) -> np.ndarray:
    """Return which pairs hold the evidence, bool [n]; none where it is spread out.

    For a time it is the first pair alone, and where a time is given that of this clock.
    """
    times, kind = video.times_s, question.kind
    held = np.zeros(len(times), bool)
    if question.time_s is None:
        return held
    if kind.startswith("when") or kind.endswith("_at"):
        return np.asarray(np.floor(times) == np.floor(question.time_s))
    cards = kind in ("number", "order", "card_exists", "first_card", "last_card")
    for part in video.scene.cards if cards else video.scene.segments:
        if part.start_s <= question.time_s < part.end_s:
            held |= (times >= part.start_s) & (times < part.end_s)
    return held


def question_ids(text: str) -> list[int]:
    """Return the tokens from the end of the video to where the answer begins."""
    return tokens.encode(f"<|vision_end|>{text}<|im_end|>\n<|im_start|>assistant\n")


@dataclass
class Batch:
    """Everything one training step needs; B videos of n pairs with Q question tokens each."""

    features: Tensor  # [B, n, 16, 256]
    prefix_ids: Tensor  # [B, 4 + n]: header, then each pair's clock token
    prefix_positions: Tensor  # [B, 4 + 17 n, 3]
    ids: Tensor  # [B, Q]
    positions: Tensor  # [B, Q, 3]
    own: Tensor  # bool [B, Q, Q]
    targets: Tensor  # [B, Q], -1 where nothing is asked
    hints: Tensor  # [B, Q], the answer's first token at the question mark, else -1
    looks: list[tuple[int, int, np.ndarray]]  # video, question token, evidence pairs
    named: list[list[tuple[int, int, int]]]  # colours, shapes: video, question token, which
    kinds: list[list[tuple[str, int, int]]]  # per video: kind, first and last answer target


def make_batch(rng: np.random.Generator, bank: Bank, size: int, n: int, n_questions: int) -> Batch:
    """Draw videos and questions and lay them out."""
    videos = [draw_video(rng, bank, n) for _ in range(size)]
    asked = [draw_questions(rng, v, n_questions) for v in videos]
    head, mark = tokens.encode(HEADER), tokens.token_ids()["?"]
    rows: list[list[tuple[list[int], list[int]]]] = [
        [(question_ids(q.text), tokens.encode(q.answer + "<|im_end|>")) for q in qs] for qs in asked
    ]
    longest = max(sum(len(a) + len(b) - 1 for a, b in r) for r in rows)
    ids = torch.zeros(size, longest, dtype=torch.long)
    positions = torch.zeros(size, longest, 3, dtype=torch.long)
    own = torch.zeros(size, longest, longest, dtype=torch.bool)
    own |= torch.eye(longest, dtype=torch.bool)
    targets, hints = torch.full_like(ids, -1), torch.full_like(ids, -1)
    looks, prefix = [], []
    kinds: list[list[tuple[str, int, int]]] = []
    named: list[list[tuple[int, int, int]]] = [[], []]
    for b, (video, questions) in enumerate(zip(videos, asked, strict=True)):
        where, following = prefix_positions(video.times_s)
        prefix.append(where)
        kinds.append([])
        at = 0
        for question, (text, answer) in zip(questions, rows[b], strict=True):
            line = text + answer[:-1]
            end, last = at + len(line), at + len(text) - 1
            ids[b, at:end] = torch.tensor(line)
            positions[b, at:end] = (following + torch.arange(len(line)))[:, None]
            own[b, at:end, at:end] = torch.ones(len(line), len(line), dtype=torch.bool).tril()
            targets[b, last:end] = torch.tensor(answer)
            if mark in text:
                hints[b, at + text.index(mark)] = answer[0]
            held = evidence(question, video)
            if held.any():
                looks.append((b, last, held))
            kinds[b].append((question.kind, last, end))
            for words, where_named in zip(NAMES, named, strict=True):
                spoken = [i for i, w in enumerate(words) if f" {w}" in question.text]
                if len(spoken) == 1:
                    where_named.append((b, last, spoken[0]))
            at = end
    clocks = [[tokens.clock_base() + int(t) for t in v.times_s] for v in videos]
    return Batch(
        torch.from_numpy(np.stack([v.features for v in videos])),
        torch.tensor([head + c for c in clocks]),
        torch.from_numpy(np.stack(prefix)),
        ids,
        positions,
        own,
        targets,
        hints,
        looks,
        named,
        kinds,
    )
