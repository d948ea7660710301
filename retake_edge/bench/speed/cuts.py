"""From two cuts of a model to the whole: what a layer costs, and what does not depend on layers.

The last layer of a cut does less than the others (see flops.py), and so does the whole model's. Two
cuts of the same model differ by whole layers only: their difference is what a layer costs, what is
left of the smaller one is fixed. The whole model's figures are extrapolated on that line.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from retake_edge.errors import ConfigError
from retake_edge.models.shapes import check_layers

Figures = dict[str, Any]
_COSTS = (
    "seconds",
    "chunk_s",
    "first_token_s",
    "token_s",
    "kv_bytes",
    "kv_allocated_bytes",
    "peak_memory_bytes",
    "device_memory_bytes",
)


def parse_cuts(text: str) -> tuple[int, int]:
    """Return the two numbers of layers that `--layers` names.

    Raises:
        ConfigError: they are not two, not numbers, or too small.
    """
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"--layers is {text!r}, but must be two numbers, as 2,4.") from None
    check_layers(min(numbers), f"--layers {text}")
    if len(numbers) != 2 or numbers[0] == numbers[1]:
        raise ConfigError(
            f"--layers is {text}, but a layer's cost is the difference of two cuts; "
            f"give two numbers, as {min(numbers)},{2 * min(numbers)}."
        )
    return min(numbers), max(numbers)


def costs_at(low: tuple[int, Figures], high: tuple[int, Figures], n_layer: float) -> Figures:
    """Return the costs at `n_layer` layers on the line through two measured cuts.

    `low`, `high`: numbers of layers, and the figures. At 0 layers stands what is fixed; that is
    less than nothing for prefill, since the last layer's feed-forward network is not computed.
    """
    (n_low, few), (n_high, many) = low, high
    share = (n_layer - n_low) / (n_high - n_low)
    return {
        key: _each(lambda a, b: a + (b - a) * share, few[key], many[key])
        for key in _COSTS
        if key in few
    }


def layer_costs(low: tuple[int, Figures], high: tuple[int, Figures]) -> Figures:
    """Return what one layer costs: the difference of two cuts, for each layer between them."""
    first, second = costs_at(low, high, 0), costs_at(low, high, 1)
    return {key: _each(lambda a, b: b - a, first[key], second[key]) for key in first}


def extrapolated(
    low: tuple[int, Figures], high: tuple[int, Figures], n_layer: int
) -> dict[str, Figures]:
    """Return 'layer', 'fixed' and 'whole': a layer's cost, the rest, the figures of all layers."""
    whole = high[1] | costs_at(low, high, n_layer)
    return {"layer": layer_costs(low, high), "fixed": costs_at(low, high, 0), "whole": whole}


def ratios(full: Figures, ours: Figures) -> dict[str, float | None]:
    """Return ours against the full cache; above 1 is more time, memory or speed.

    None: a figure is not above zero, so that two cuts lie closer together than noise.
    """
    seconds, base = ours["seconds"], full["seconds"]
    extra = seconds["score"] + seconds["select"] + seconds["compact"]
    pairs = {
        "video time": (seconds["video in all"], base["video in all"]),
        "prefill time": (seconds["prefill"], base["prefill"]),
        "compression share of prefill": (extra, seconds["prefill"]),
        "selection share of prefill": (seconds["select"], seconds["prefill"]),
        "first token time": (ours["first_token_s"], full["first_token_s"]),
        "decode speed": (full["token_s"], ours["token_s"]),
        "kv bytes": (ours["kv_bytes"], full["kv_bytes"]),
        "kv bytes allocated": (ours["kv_allocated_bytes"], full["kv_allocated_bytes"]),
        "peak memory": (ours["peak_memory_bytes"], full["peak_memory_bytes"]),
    }
    return {name: round(a / b, 4) if a >= 0 and b > 0 else None for name, (a, b) in pairs.items()}


def _each(rule: Callable[[float, float], float], a: Any, b: Any) -> Any:
    """The rule on every number of two alike structures."""
    if isinstance(a, dict):
        return {key: _each(rule, a[key], b[key]) for key in a}
    if isinstance(a, list):
        return [_each(rule, x, y) for x, y in zip(a, b, strict=True)]
    return rule(a, b)
