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
class Variant:
    """A policy under test: `policy` and `pivot` as in CompressionConfig, or a rule `frames` that
    drops whole frames before prefill: 'uniform', 'dpselect', 'different' (plan.choose).

    `share`: of the frames that stay, with the policy for the rest; None: as many as have all the
    cells that are kept, with nothing evicted.
    `is_guided`: whether the video is read anew for each question; `budgets`: as in
    CompressionConfig.
    """

    name: str
    policy: str
    pivot: str = "protect"
    frames: str | None = None
    share: float | None = None
    is_guided: bool = False
    budgets: str = "even"

    def keep_ratio(self, keep: float) -> float:
        """Return the share of cells kept of the frames that stay, for a share `keep` of all."""
        if not self.frames:
            return keep
        return 1.0 if self.share is None else min(1.0, keep / self.share)


_SPECIAL = (
    Variant("pivotkv-reference", "pivotkv", "reference"),
    Variant("pivotkv-nopivot", "pivotkv", "none"),
    Variant("frames", "none", frames="different"),
    Variant("uniform-frames", "none", frames="uniform"),
    Variant("dpselect-frames", "none", frames="dpselect"),
    Variant("dpselect-spread", "spread", frames="dpselect", share=0.5),
    *(Variant(f"{name}-guided", name, is_guided=True) for name in config.GUIDED_POLICIES),
    *(Variant(f"{name}-novelty", name, budgets="novelty") for name in ("spread", "coverage")),
    Variant("dpselect-spread-guided", "spread", frames="dpselect", share=0.5, is_guided=True),
)

VARIANTS = {name: Variant(name, name) for name in config.POLICIES} | {
    variant.name: variant for variant in _SPECIAL
}
"""Every variant by name; `none` is the full cache."""


def parse_variants(names: str) -> list[Variant]:
    """Return the variants of a comma-separated list, in its order.

    Raises:
        ConfigError: a name is unknown.
    """
    found = []
    for name in (part.strip() for part in names.split(",")):
        if name not in VARIANTS:
            raise ConfigError(
                f"There is no policy {name!r} to measure; there are {', '.join(VARIANTS)}."
            )
        found.append(VARIANTS[name])
    return found


def cells(variants: Sequence[Variant], keep_ratios: Sequence[float]) -> list[tuple[Variant, float]]:
    """Return what is run: the full cache once, and every other variant at each ratio below 1."""
    full = [(VARIANTS["none"], 1.0)]
    ratios = sorted({keep_ratio for keep_ratio in keep_ratios if keep_ratio < 1}, reverse=True)
    others = [c for c in variants if c.name != "none"]
    return full + [(variant, keep_ratio) for keep_ratio in ratios for variant in others]


def require_ratios(keep_ratios: Sequence[float]) -> None:
    """Check keep ratios.

    Raises:
        ConfigError: one is not in (0, 1].
    """
    if min(keep_ratios) <= 0 or max(keep_ratios) > 1:
        raise ConfigError(f"--keep-ratio is {keep_ratios}, but all must be in (0, 1].")


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
