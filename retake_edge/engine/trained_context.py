"""The positions a model was trained for, and the way a run stays inside them.

Beyond them a rotary angle was never seen in training: the answer gets worse without a word.
"""

from __future__ import annotations

from dataclasses import dataclass

from retake_edge.errors import MemoryBudgetError
from retake_edge.llama.model import Model

_STRETCHING = ("linear", "yarn")
# Their files give the context after stretching, and the factor of some layers.
_STRETCHED_ALREADY = ("gemma3", "gemma3n", "gemma4")


@dataclass(frozen=True)
class PositionUse:
    """The positions of a run: `highest` on any axis, of the `limit` the model was trained for.

    `mode`: 'keep' (evicted tokens go on counting) or 'reforge' (what is kept moves together).
    Positions count from 0, so `highest` must be below `limit`.
    """

    mode: str
    highest: int
    limit: int

    @property
    def fits(self) -> bool:
        """True if the model was trained for all of them."""
        return self.highest < self.limit

    def __str__(self) -> str:
        """Both as people read them."""
        how = "re-forged" if self.mode == "reforge" else "kept"
        return f"{how}, 0 to {self.highest:,} of {self.limit:,} that the model was trained for"


def position_mode(setting: str, model: Model) -> str:
    """Return 'keep' or 'reforge'; 'auto' keeps positions where time has an axis of its own.

    With 1-D positions each evicted token would go on counting as one.
    """
    if setting == "auto":
        return "reforge" if model.n_pos_per_embd == 1 else "keep"
    return setting


def trained_positions(model: Model) -> int:
    """Return how many positions the model knows: its trained context, with RoPE scaling counted.

    Linear and YaRN scaling multiply the original context, which is the trained one where the file
    gives no other. A file may give the stretched context as the trained one: the larger counts.

    Source: llama.cpp, load_hparams (rope.scaling.* and the older rope.scale_linear).
    """
    arch = model.metadata("general.architecture") or ""

    def number(key: str) -> float:
        return float(model.metadata(f"{arch}.rope.{key}") or 0)

    factor = number("scaling.factor") or number("scale_linear")
    kind = model.metadata(f"{arch}.rope.scaling.type") or "linear"
    if factor <= 1 or kind not in _STRETCHING or arch in _STRETCHED_ALREADY:
        return model.n_ctx_train
    original = int(number("scaling.original_context_length")) or model.n_ctx_train
    return max(model.n_ctx_train, int(original * factor))


def require_trained(highest: int, model: Model, what: str, advice: str) -> None:
    """Refuse positions that the model was not trained for.

    Raises:
        MemoryBudgetError: with both numbers, `what` reaches them, and the `advice`.
    """
    limit = trained_positions(model)
    if highest >= limit:
        raise MemoryBudgetError(
            f"{what} needs {highest + 1:,} positions, but this model was trained for "
            f"{limit:,}; {advice}."
        )
