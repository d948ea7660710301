"""Find what makes a run fit: each setting that can give memory back, with the value that does.

A value is looked for by halving: the mildest that fits. The plan itself says whether one does, so
a proposal is what the run will do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from retake_edge.config import WHOLE_POLICIES, RetakeConfig, all_settings, with_values
from retake_edge.errors import ConfigError, MemoryBudgetError
from retake_edge.plan.frames import FramePlan, plan_frames
from retake_edge.plan.run import RunPlan, RunPlanner, require_room
from retake_edge.video.read import VideoInfo

_NARROW_TYPES = ("q8_0", "q4_0")
_CHUNK_FRAMES = (16, 8)
_SIDE_STEP_PX = 28
_MIN_LONG_SIDE_PX = 56
# How far --fit goes with one setting before it changes the next one, too.
_FIT_KEEP_PERCENT = 12
_FIT_LONG_SIDE_PX = 224


@dataclass(frozen=True)
class Proposal:
    """A change after which the run fits. `flags`: as on the command line; `plan`: of that run."""

    flags: str
    plan: RunPlan

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        needed = {use.device: use.needed for use in self.plan.memory}
        return {"flags": self.flags, "needed": needed, "cells": self.plan.cells.memory.n_kept_cells}


@dataclass(frozen=True)
class _State:
    """The state of a search: `plan` is None where the cells do not even fit into `-c`."""

    config: RetakeConfig
    frames: FramePlan
    plan: RunPlan | None


class _Move:
    """One setting, or two that go together, each by its path.

    `values`: what it can be, the mildest first, sensible ones only if asked.
    """

    def __init__(self, values: Callable[[_State, bool], Sequence[Any]], *paths: str) -> None:
        self.values, self._paths = values, paths

    def apply(self, config: RetakeConfig, value: Any) -> RetakeConfig:
        """Return the configuration with this value."""
        names = [path.partition(".") for path in self._paths]
        return with_values(config, **{names[0][0]: {name: value for *_, name in names}})

    def flags(self, value: Any) -> str:
        """Return the change as on the command line."""
        return " ".join(all_settings()[path].written(value) for path in self._paths)


_Change = tuple[_Move, Any]


class _Search:
    """Plans of one video under changed settings."""

    def __init__(self, planner: RunPlanner, video: VideoInfo, config: RetakeConfig) -> None:
        self.planner, self.video, self.config = planner, video, config

    def state(self, changes: Sequence[_Change] = ()) -> _State:
        config = self.config
        for move, value in changes:
            config = move.apply(config, value)
        try:
            plan = self.planner.plan(self.video, config)
        except (MemoryBudgetError, ConfigError):
            plan = None
        frames = plan.frames if plan else plan_frames(self.planner.manifest, config, self.video)
        return _State(config, frames, plan)

    def fit(self, changes: Sequence[_Change]) -> Proposal | None:
        """The plan with these changes, if it fits."""
        plan = self.state(changes).plan
        flags = " ".join(move.flags(value) for move, value in changes)
        return Proposal(flags, plan) if plan is not None and plan.fits else None

    def mildest(
        self, before: Sequence[_Change], move: _Move, values: Sequence[Any]
    ) -> _Change | None:
        """The first value of a move that fits, by halving; None if not even the last one does."""
        low, high = 0, len(values) - 1
        if high < 0 or self.fit([*before, (move, values[high])]) is None:
            return None
        while low < high:
            middle = (low + high) // 2
            fits = self.fit([*before, (move, values[middle])]) is not None
            low, high = (low, middle) if fits else (middle + 1, high)
        return move, values[high]


def proposals(planner: RunPlanner, video: VideoInfo, config: RetakeConfig) -> list[Proposal]:
    """Return the single changes that make the run fit, each as small as it can be."""
    search = _Search(planner, video, config)
    start = search.state()
    changes = [search.mildest((), move, move.values(start, False)) for move in _MOVES]
    found = [search.fit([change]) for change in changes if change is not None]
    return [proposal for proposal in found if proposal is not None]


def fitted(planner: RunPlanner, video: VideoInfo, config: RetakeConfig) -> Proposal:
    """Return a plan that fits: of the settings given, or of ones changed in order of least loss.

    Narrower cells come first, then less at once, less on the GPU, fewer cells, smaller frames and
    fewer of them; one setting is changed as far as it sensibly goes before the next. A change that
    turns out not to be needed is taken back.

    Raises:
        MemoryBudgetError: nothing makes it fit.
    """
    search, changes = _Search(planner, video, config), list[_Change]()
    found = search.fit(changes)
    for move in _MOVES if found is None else ():
        values = move.values(search.state(changes), True)
        last = search.mildest(changes, move, values)
        if last is not None:
            return _without_needless(search, [*changes, last])
        changes += [(move, values[-1])] if values else []
    if found is not None:
        return found
    tried = " ".join(move.flags(value) for move, value in changes)
    require_room(
        planner.plan(video, search.state(changes).config).memory, f"not even {tried} makes it fit"
    )
    raise AssertionError("a plan that fits was not found")


def _without_needless(search: _Search, changes: list[_Change]) -> Proposal:
    for change in changes[:-1]:
        fewer = [other for other in changes if other is not change]
        if search.fit(fewer) is not None:
            changes = fewer
    found = search.fit(changes)
    assert found is not None
    return found


def _ctx_values(state: _State, _is_fit: bool) -> Sequence[int]:
    """As many cells as are needed, where -c asks for more."""
    if state.plan is None or state.config.runtime.n_ctx is None:
        return ()
    needed = state.plan.cells.memory.n_needed
    return (needed,) if needed < state.config.runtime.n_ctx else ()


def _type_values(state: _State, is_fit: bool) -> Sequence[str]:
    """Narrower K and V; --fit takes only the one that is next to lossless."""
    types = {state.config.runtime.type_k, state.config.runtime.type_v}
    if not types <= set(_NARROW_TYPES):
        return _NARROW_TYPES[:1] if is_fit else _NARROW_TYPES
    return () if is_fit or types == {"q4_0"} else ("q4_0",)


def _chunk_values(state: _State, _is_fit: bool) -> Sequence[int]:
    """Fewer frames between two compressions."""
    return [n for n in _CHUNK_FRAMES if n < state.config.compression.prefill_chunk_frames]


def _layer_values(state: _State, _is_fit: bool) -> Sequence[int]:
    """Fewer layers on the GPU, where that is what is too small."""
    if not _is_device_short(state):
        return ()
    assert state.plan is not None
    n = state.config.runtime.n_gpu_layers
    return range((n if n >= 0 else state.plan.n_layer + 1) - 1, -1, -1)


def _tower_values(state: _State, _is_fit: bool) -> Sequence[bool]:
    """The vision tower in this machine's memory, where the GPU's is too small."""
    return (False,) if state.config.runtime.mmproj_offload and _is_device_short(state) else ()


def _position_values(state: _State, _is_fit: bool) -> Sequence[str]:
    """Kept cells moved together, where evicted ones would go on taking positions."""
    compression = state.config.compression
    is_apart = compression.positions != "reforge" and compression.policy not in WHOLE_POLICIES
    return ("reforge",) if state.plan is None and is_apart else ()


def _keep_values(state: _State, is_fit: bool) -> Sequence[float]:
    """Fewer cells of the video."""
    compression = state.config.compression
    if compression.policy == "none" or (state.plan is None and compression.kv_budget):
        return ()  # nothing is evicted, or as much as can be is already
    ratio = state.config.compression.keep_ratio or 1.0
    ratio = ratio if state.plan is None else state.plan.cells.memory.keep_ratio
    least = _FIT_KEEP_PERCENT if is_fit else 1
    return [percent / 100 for percent in range(int(100 * ratio) - 1, least - 1, -1)]


def _side_values(state: _State, is_fit: bool) -> Sequence[int]:
    """Smaller frames."""
    longest = max(state.frames.width_px, state.frames.height_px)
    least = _FIT_LONG_SIDE_PX if is_fit else _MIN_LONG_SIDE_PX
    first = (longest - 1) // _SIDE_STEP_PX * _SIDE_STEP_PX
    return range(first, least - 1, -_SIDE_STEP_PX)


def _frame_values(state: _State, _is_fit: bool) -> Sequence[int]:
    """Fewer frames."""
    return range(state.frames.n - 1, 0, -1)


def _is_device_short(state: _State) -> bool:
    plan = state.plan
    return plan is not None and any(use.device and not use.fits for use in plan.memory)


_MOVES = (
    _Move(_ctx_values, "runtime.n_ctx"),
    _Move(_type_values, "runtime.type_k", "runtime.type_v"),
    _Move(_chunk_values, "compression.prefill_chunk_frames"),
    _Move(_tower_values, "runtime.mmproj_offload"),
    _Move(_layer_values, "runtime.n_gpu_layers"),
    _Move(_position_values, "compression.positions"),
    _Move(_keep_values, "compression.keep_ratio"),
    _Move(_side_values, "sampling.long_side_px"),
    _Move(_frame_values, "sampling.max_frames"),
)
