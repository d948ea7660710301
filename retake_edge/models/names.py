"""Names of models, however they are written, and ids of the hub.

`Qwen2.5-VL-3B`, `qwen2.5vl:3b` and `qwen2_5-vl-3b-instruct` all mean `qwen2.5-vl-3b`.
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path

from retake_edge.errors import ConfigError, ModelError
from retake_edge.models.hub.naming import HubRef, parse_ref
from retake_edge.models.manifest import model_names

_IGNORED_ENDS = ("gguf", "latest", "instruct", "chat", "video")
_N_NEAREST = 3
_NEAR = 0.5


def fold(name: str) -> str:
    """Return what is compared of a name: letters and digits, lower case, no common end."""
    folded = re.sub(r"[\W_]", "", name.casefold())
    for end in _IGNORED_ENDS:
        folded = folded.removesuffix(end)
    return folded


def known_name(text: str) -> str | None:
    """Return the manifest's name that a text means, None if it means none."""
    names = model_names()
    if text in names:
        return text
    return next((name for name in names if fold(text) and fold(name) == fold(text)), None)


def hub_id(text: str) -> HubRef | None:
    """Return the repository that a text names as user/repo[:quant]; None if it is no such id."""
    if Path(text).exists():
        return None
    try:
        return parse_ref(text)
    except ConfigError:
        return None


def nearest(text: str) -> list[str]:
    """Return the names that a text may have meant, the nearest first."""
    folded = fold(text.rpartition("/")[2])
    by_fold = {fold(name): name for name in model_names()}
    found = [name for key, name in by_fold.items() if folded and key.startswith(folded)]
    close = difflib.get_close_matches(folded, list(by_fold), n=_N_NEAREST, cutoff=_NEAR)
    found += [by_fold[key] for key in close]
    return list(dict.fromkeys(found))[:_N_NEAREST]


def unknown_model(text: str) -> ModelError:
    """Return the error that there is no model of that name, with the nearest ones."""
    if Path(text).is_dir():
        return ModelError(f"{text} is a folder; give the model's GGUF file in it.")
    near = nearest(text)
    hint = f"did you mean {' or '.join(near)}?" if near else "`retake-edge models` lists the names."
    return ModelError(
        f"There is no model named {text!r}; {hint} "
        "A GGUF file, or user/repo of the hub, can be given instead."
    )
