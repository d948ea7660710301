"""Tell from names alone which files of a repository make a model, as llama.cpp does.

    user/repo[:quant]  ->  the language model's parts, and the projector that goes with them

Source: llama.cpp, common/download.cpp (find_best_model, find_best_sibling, get_gguf_split_info).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from retake_edge.errors import ConfigError

DEFAULT_QUANTS = ("Q4_K_M", "Q8_0")
"""Tried in this order where no quant is named; then the first model there is."""

_REPO = re.compile(r"\w+(?:[.-]\w+)*/\w+(?:[.-]\w+)*", re.ASCII)
_QUANT = re.compile(r"[\w.-]+", re.ASCII)
_SPLIT = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf", re.IGNORECASE)
_TAG = re.compile(r"[-.](\w+)$", re.ASCII)
_NO_MODELS = ("mmproj", "imatrix", "mtp-", "eagle3-", "dflash-", "dspark-")


@dataclass(frozen=True)
class HubRef:
    """A repository of the hub, and a quantization (None: the usual one)."""

    repo: str
    quant: str | None = None

    def __str__(self) -> str:
        return f"{self.repo}:{self.quant}" if self.quant else self.repo


def parse_ref(text: str) -> HubRef:
    """Read user/repo[:quant].

    Raises:
        ConfigError: it is none.
    """
    repo, colon, quant = text.partition(":")
    if not _REPO.fullmatch(repo) or (colon and not _QUANT.fullmatch(quant)):
        raise ConfigError(
            f"{text!r} is no model of the hub; write it as user/repo or user/repo:quant, such as "
            "ggml-org/Qwen2.5-VL-3B-Instruct-GGUF:Q4_K_M, or see `retake-edge models` for names."
        )
    return HubRef(repo, quant or None)


def split_names(name: str) -> list[str]:
    """Return the names of all parts of a GGUF whose first part is `name`; [name] if it is whole."""
    match = _SPLIT.fullmatch(name)
    if match is None:
        return [name]
    return [f"{match[1]}-{part:05d}-of-{match[3]}.gguf" for part in range(1, int(match[3]) + 1)]


def split_files(first: Path) -> list[Path]:
    """Return the files of a GGUF whose first part is `first`."""
    return [first.with_name(name) for name in split_names(first.name)]


def model_names(paths: Sequence[str]) -> list[str]:
    """Return the paths in a repository that are language models, one a model (its first part)."""
    return [path for path in paths if _is_model(path)]


def model_parts(paths: Sequence[str], quant: str | None = None) -> list[str]:
    """Return all parts of the model of a quant; [] if there is none.

    Parts are listed whether they are among `paths` or not.
    """
    models = model_names(paths)
    for tag in (quant,) if quant else DEFAULT_QUANTS:
        pattern = re.compile(rf"(?<![A-Za-z0-9]){re.escape(tag)}[.-]", re.IGNORECASE)
        for path in models:
            if pattern.search(path):
                return split_names(path)
    return split_names(models[0]) if models and quant is None else []


def projector_of(paths: Sequence[str], model: str) -> str | None:
    """Return the projector for a model: in the nearest folder, then the nearest in bits."""
    folder, bits = PurePosixPath(model).parent, quant_bits(model)

    def distance(path: str) -> tuple[int, int]:
        return -len(PurePosixPath(path).parent.parts), abs(quant_bits(path) - bits)

    projectors = [
        path
        for path in paths
        if path.endswith(".gguf")
        and "mmproj" in path
        and folder.is_relative_to(PurePosixPath(path).parent)
    ]
    return min(projectors, key=distance, default=None)


def quant_of(path: str) -> str:
    """Return the quantization that a file's name ends in, such as 'Q4_K_M'; '' without."""
    match = _SPLIT.fullmatch(path)
    tag = _TAG.search(match[1] if match else path.removesuffix(".gguf"))
    return tag[1].upper() if tag else ""


def quants(paths: Sequence[str]) -> list[str]:
    """Return the quantizations of the models there are, sorted."""
    return sorted({quant_of(path) for path in model_names(paths)} - {""})


def _is_model(path: str) -> bool:
    name = PurePosixPath(path).name
    split = _SPLIT.fullmatch(name)
    return (
        name.endswith(".gguf")
        and not any(mark in name for mark in _NO_MODELS)
        and (split is None or int(split[2]) == 1)
    )


def quant_bits(path: str) -> int:
    """Return the bits of a weight, roughly: 4 for Q4_0, 16 for F16, 0 for a name without number."""
    digits = re.search(r"\d+", quant_of(path))
    return int(digits[0]) if digits else 0
