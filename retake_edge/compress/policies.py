"""Policies choose the KV cells of a chunk that stay: one small function each, per layer.

The engine measures (attention scores, value vectors), DPSelect marks pivots, and a policy turns
both into kept sets. A policy never touches the cache. `pivotkv` is the method of the paper; the
others are its rivals and successors, kept side by side so that every benchmark runs them all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retake_edge.compress.coverage import (
    evenly_spaced,
    farthest_points,
    layers_joined,
    likeness,
    nearest_counts,
    nearest_sums,
)
from retake_edge.config import (
    PIVOT_MODES,
    WHOLE_POLICIES,
)
from retake_edge.errors import ConfigError

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]
Bools = npt.NDArray[np.bool_]

SEED_SHARE = 0.25
"""Most of a coverage policy's budget, forced tokens apart, that pivots may take: more would spend
it on transitions."""

ATTENTION_SHARE = 0.5
"""The share of `hybrid`'s budget, forced tokens apart, for the highest attention scores."""

QUERY_WINDOWS = 16
"""Parts of a chunk whose queries vote apart in `spread` and `hybrid`: about a grid frame each."""

MOST_TOKENS = 8
"""Most tokens that a kept cell of `spread` weighs."""

_LEAST_SCORE = np.float32(1e-6)


@dataclass(frozen=True)
class ChunkSignals:
    """Facts known of a chunk of n tokens when its cells are selected.

    `pivots`: bool [n], DPSelect pivots. `changes`: f32 [n], the DPSelect distance of each token's
    patch. `frame_index`: int [n]. `forced`: bool [n], text inside the chunk (timestamps): always
    kept. `scores`: f32 [L, n], attention received; `values`: f32 [L, n, d], value vectors or a
    projection of them; `memory`: f32 [L, m, d], the values that earlier chunks kept; `features`:
    f32 [n, c], vision features, which stand in for `values` where those are None.
    """

    n_layer: int
    pivots: Bools
    changes: Floats
    frame_index: Ints
    forced: Bools
    scores: Floats | None = None
    values: Floats | None = None
    memory: Floats | None = None
    features: Floats | None = None

    def __post_init__(self) -> None:
        shapes = {
            "changes": (self.changes, (self.n,)),
            "frame_index": (self.frame_index, (self.n,)),
            "forced": (self.forced, (self.n,)),
            "scores": (self.scores, (self.n_layer, self.n)),
        }
        for name, (array, shape) in shapes.items():
            assert array is None or array.shape == shape, f"{name}: {array.shape}, not {shape}"
        assert self.values is None or self.values.shape[:2] == (self.n_layer, self.n)
        assert self.features is None or len(self.features) == self.n

    @property
    def n(self) -> int:
        """Tokens in the chunk."""
        return len(self.pivots)


@dataclass(frozen=True)
class Policy:
    """A selection rule and what the engine must measure for it.

    `query_windows`: in how many equal parts the chunk's queries are summed for the scores, the
    part that attends most being the one that counts (1: one sum over all, as in the paper).
    `value_dim`: width of the projection of the values that it needs; `remembers`: whether it needs
    those that earlier chunks kept, too.
    `weighs`: whether a kept cell weighs as much as the tokens it stands for (see `cell_weights`).

    `select(signals, n_keep, rng, pivot)` returns distinct indices, int [L, n_keep], in any
    order, with all forced tokens among them; 1 <= forced <= n_keep < n holds when it is called.
    """

    select: Callable[[ChunkSignals, int, np.random.Generator, str], Ints]
    needs_scores: bool = False
    needs_values: bool = False
    query_windows: int = 1
    value_dim: int = 16
    remembers: bool = False
    weighs: bool = False


def select_cells(
    policy: str,
    signals: ChunkSignals,
    n_keep: int,
    rng: np.random.Generator,
    *,
    pivot: str = "protect",
) -> Ints:
    """Return each layer's kept set, int32 [n_layer, k], ascending, all layers equally many.

    k is `n_keep`, but at least 1 and at least the number of forced tokens, and at most n.
    `pivot` says what DPSelect pivots mean to `pivotkv`: `protect` keeps them before all others
    (the paper's intent), `reference` gives them score 1.0 (what the research code does: the mean),
    `none` ignores them. Ties go to the lowest index. Scores that are NaN or infinite rank last.

    Raises:
        ConfigError: there is no such policy or pivot mode.
    Source: ReTaKe section 3.3 for pivotkv.
    """
    if policy not in POLICIES:
        raise ConfigError(f"There is no policy {policy!r}; there are {', '.join(POLICIES)}.")
    if pivot not in PIVOT_MODES:
        raise ConfigError(f"There is no pivot mode {pivot!r}; there are {', '.join(PIVOT_MODES)}.")
    rule = POLICIES[policy]
    n_keep = max(n_keep, 1, int(signals.forced.sum()))
    if n_keep >= signals.n or policy in WHOLE_POLICIES:
        return np.tile(np.arange(signals.n, dtype=np.int32), (signals.n_layer, 1))
    assert not rule.needs_scores or signals.scores is not None, f"{policy} needs scores"
    kept = rule.select(signals, n_keep, rng, pivot)
    assert kept.shape == (signals.n_layer, n_keep)
    return np.sort(kept, axis=1).astype(np.int32)


def cell_weights(
    policy: str, signals: ChunkSignals, kept: Ints, counts: Floats | None = None
) -> Floats | None:
    """Return how many tokens each kept cell weighs, f32 [k] from 1 to MOST_TOKENS; None: all 1.

    `kept`: as `select_cells` returns it, the same in all layers. `counts` f32 [n]: how many tokens
    each stands for by itself (None: 1), where frames that looked alike were left out. A dropped
    token counts for the kept one that it is most like; forced tokens weigh 1. Attention then falls
    on what is left as it fell on the whole chunk: without it, an event of which many cells are
    left outweighs one of which few are.
    Source: Bolya et al. 2023 (ToMe, proportional attention), here without merging.
    """
    if not POLICIES[policy].weighs:
        return None
    seen, is_seen = np.flatnonzero(~signals.forced), ~signals.forced[kept[0]]
    vectors = layers_joined(_vectors(signals)[:, seen])[0]
    weights = np.ones(kept.shape[1], np.float32)
    places = np.searchsorted(seen, kept[0][is_seen])
    if counts is None:
        weights[is_seen] = nearest_counts(vectors, places)
    else:
        weights[is_seen] = nearest_sums(vectors, places, limited(counts[seen]))
    return limited(weights)


def limited(weights: Floats) -> Floats:
    """Return weights of at most MOST_TOKENS."""
    return np.minimum(weights, np.float32(MOST_TOKENS))


def masked_scores(scores: Floats, pivots: Bools, pivot: str) -> tuple[Floats, Ints]:
    """Return (scores f32 [L, n], tier int [n]) by which `pivotkv` ranks: tier first, then score."""
    if pivot == "reference":
        return np.where(pivots, np.float32(1), scores), np.zeros(len(pivots), np.int32)
    protected = pivots if pivot == "protect" else np.zeros_like(pivots)
    return scores, protected.astype(np.int32)


def _pivotkv(e: ChunkSignals, n_keep: int, rng: np.random.Generator, pivot: str) -> Ints:
    assert e.scores is not None
    scores, tier = masked_scores(e.scores, e.pivots, pivot)
    return _highest(scores, tier, e.forced, n_keep)


def _coverage(e: ChunkSignals, n_keep: int, rng: np.random.Generator, pivot: str) -> Ints:
    return farthest_points(_vectors(e), n_keep, _pivot_seeds(e, n_keep), e.memory)


def _hybrid(e: ChunkSignals, n_keep: int, rng: np.random.Generator, pivot: str) -> Ints:
    assert e.scores is not None
    seeds = _pivot_seeds(e, n_keep)
    n_free = n_keep - int(e.forced.sum())
    n_seeds = seeds.shape[1] + int(n_free * ATTENTION_SHARE)
    seeded = np.zeros(e.n, np.bool_)
    seeded[seeds[0]] = True
    seeds = _highest(e.scores, np.zeros(e.n, np.int32), seeded, n_seeds)
    return farthest_points(_vectors(e), n_keep, seeds, e.memory)


def _spread(e: ChunkSignals, n_keep: int, rng: np.random.Generator, pivot: str) -> Ints:
    """One set for all layers, far apart in any of them; attention's root weighs the distances."""
    assert e.scores is not None
    scores = np.where(np.isfinite(e.scores), e.scores, 0).mean(axis=0, keepdims=True)
    weights = np.sqrt(np.clip(scores, _LEAST_SCORE, np.finfo(np.float32).max))
    memory = None if e.memory is None else layers_joined(e.memory)
    seeds = _pivot_seeds(e, n_keep)[:1]
    kept = farthest_points(layers_joined(_vectors(e)), n_keep, seeds, memory, weights)
    return np.repeat(kept, e.n_layer, axis=0)


def _distinct(e: ChunkSignals, n_keep: int, rng: np.random.Generator, pivot: str) -> Ints:
    """One set for all layers: the tokens whose values are least like the chunk's others."""
    alone = -likeness(_vectors(e)).mean(axis=0, keepdims=True)
    kept = _highest(alone, np.zeros(e.n, np.int32), e.forced, n_keep)
    return np.repeat(kept, e.n_layer, axis=0)


def _uniform(e: ChunkSignals, n_keep: int, rng: np.random.Generator, pivot: str) -> Ints:
    forced, free = np.flatnonzero(e.forced), np.flatnonzero(~e.forced)
    kept = np.concatenate([forced, free[evenly_spaced(len(free), n_keep - len(forced))]])
    return np.tile(kept, (e.n_layer, 1)).astype(np.int32)


def _random(e: ChunkSignals, n_keep: int, rng: np.random.Generator, pivot: str) -> Ints:
    return _highest(_noise(e, rng), np.zeros(e.n, np.int32), e.forced, n_keep)


def _random_stratified(e: ChunkSignals, n_keep: int, rng: np.random.Generator, pivot: str) -> Ints:
    """A random order within each frame; then everyone's first, everyone's second, and so on."""
    noise = _noise(e, rng)
    # Forced tokens are kept anyway and must not use up their frame's turn.
    frames = np.broadcast_to(np.where(e.forced, -1, e.frame_index), noise.shape)
    order = np.lexsort((noise, frames))
    sorted_frames = np.take_along_axis(frames, order, axis=1)
    starts = np.diff(sorted_frames, axis=1, prepend=sorted_frames[:, :1] - 1) != 0
    index = np.arange(e.n)
    turn_in_order = index - np.maximum.accumulate(np.where(starts, index, 0), axis=1)
    turn = np.empty_like(turn_in_order)
    np.put_along_axis(turn, order, turn_in_order, axis=1)
    return _highest(noise - turn, np.zeros(e.n, np.int32), e.forced, n_keep)


def _recent(e: ChunkSignals, n_keep: int, rng: np.random.Generator, pivot: str) -> Ints:
    age = np.tile(np.arange(e.n, dtype=np.float32), (e.n_layer, 1))
    return _highest(age, np.zeros(e.n, np.int32), e.forced, n_keep)


def _none(e: ChunkSignals, n_keep: int, rng: np.random.Generator, pivot: str) -> Ints:
    raise AssertionError("select_cells keeps everything without asking")


POLICIES: dict[str, Policy] = {
    "spread": Policy(
        _spread,
        needs_scores=True,
        needs_values=True,
        remembers=True,
        query_windows=QUERY_WINDOWS,
        weighs=True,
    ),
    "pivotkv": Policy(_pivotkv, needs_scores=True),
    "hybrid": Policy(
        _hybrid,
        needs_scores=True,
        needs_values=True,
        remembers=True,
        query_windows=QUERY_WINDOWS,
    ),
    "coverage": Policy(_coverage, needs_values=True, remembers=True),
    "distinct": Policy(_distinct, needs_values=True, value_dim=64),
    "uniform": Policy(_uniform),
    "random": Policy(_random),
    "random-stratified": Policy(_random_stratified),
    "recent": Policy(_recent),
    "frames": Policy(_none),
    "none": Policy(_none),
}
"""Every policy by the name that the command line uses."""


def _highest(scores: Floats, tier: Ints, forced: Bools, n_keep: int) -> Ints:
    """The n_keep indices of each layer that rank first by forced, tier, score, low index."""
    usable = np.where(np.isfinite(scores), scores, -np.inf)
    rank = np.broadcast_to(np.where(forced, np.iinfo(np.int32).max, tier), scores.shape)
    # lexsort is stable and its last key leads.
    return np.lexsort((-usable, -rank.astype(np.int64)))[:, :n_keep].astype(np.int32)


def _pivot_seeds(e: ChunkSignals, n_keep: int) -> Ints:
    """Forced tokens, then pivots by largest change up to their share: int [L, s]."""
    n_forced = int(e.forced.sum())
    n_pivots = min(int((n_keep - n_forced) * SEED_SHARE), int((e.pivots & ~e.forced).sum()))
    one = _highest(e.changes[None], e.pivots.astype(np.int32), e.forced, n_forced + n_pivots)
    return np.repeat(one, e.n_layer, axis=0)


def _vectors(e: ChunkSignals) -> Floats:
    if e.values is not None:
        return e.values
    assert e.features is not None, "coverage needs values or features"
    return np.broadcast_to(e.features, (e.n_layer, *e.features.shape))


def _noise(e: ChunkSignals, rng: np.random.Generator) -> Floats:
    return rng.random((e.n_layer, e.n), dtype=np.float32)


def kept_vision(n_vision: int, keep_ratio: float) -> int:
    """Return how many of a chunk's vision tokens stay: truncated, but at least 1 (reference)."""
    return max(1, int(keep_ratio * n_vision))
