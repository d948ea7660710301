"""The policies that are measured against each other, by name.

Most are selection policies of `compress.policies`; the paper's has three readings of what a
pivot means; three spend the same number of cells on fewer frames instead, with nothing evicted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from retake_edge import config
from retake_edge.errors import ConfigError


@dataclass(frozen=True)
class Contender:
    """A policy under test: `policy` and `pivot` as in PivotKVConfig, or a rule `frames` that
    drops whole frames before prefill: 'uniform', 'dpselect', 'different' (plan.choose).
    """

    name: str
    policy: str
    pivot: str = "protect"
    frames: str | None = None


_SPECIAL = (
    Contender("pivotkv-reference", "pivotkv", "reference"),
    Contender("pivotkv-nopivot", "pivotkv", "none"),
    Contender("frames", "none", frames="different"),
    Contender("uniform-frames", "none", frames="uniform"),
    Contender("dpselect-frames", "none", frames="dpselect"),
)

CONTENDERS = {name: Contender(name, name) for name in config.POLICIES} | {
    contender.name: contender for contender in _SPECIAL
}
"""Every contender by name; `none` is the full cache."""


def parse_contenders(names: str) -> list[Contender]:
    """Return the contenders of a comma-separated list, in its order.

    Raises:
        ConfigError: a name is unknown.
    """
    found = []
    for name in (part.strip() for part in names.split(",")):
        if name not in CONTENDERS:
            raise ConfigError(
                f"There is no policy {name!r} to measure; there are {', '.join(CONTENDERS)}."
            )
        found.append(CONTENDERS[name])
    return found


def cells(contenders: Sequence[Contender], keeps: Sequence[float]) -> list[tuple[Contender, float]]:
    """Return what is run: the full cache once, and every other contender at each ratio below 1."""
    full = [(CONTENDERS["none"], 1.0)]
    ratios = sorted({keep for keep in keeps if keep < 1}, reverse=True)
    others = [c for c in contenders if c.name != "none"]
    return full + [(contender, keep) for keep in ratios for contender in others]


def parse_numbers(text: str, option: str, kind: type[int] | type[float]) -> list[float]:
    """Return the numbers of a comma-separated list.

    Raises:
        ConfigError: one is no number of that kind, or not above 0.
    """
    try:
        numbers = [kind(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) <= 0:
        raise ConfigError(f"{option} is {text!r}, but must be numbers above 0 between commas.")
    return [float(number) for number in numbers]
