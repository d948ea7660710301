"""Find the files beside a GGUF: the other parts of a split model, and its projector.

A path given by hand is followed by what the files say of themselves, and then by their names.
"""

from __future__ import annotations

import re
from pathlib import Path

from retake_edge.errors import ModelError
from retake_edge.llama.gguf import GgufFile, read_gguf
from retake_edge.models.hub.naming import quant_bits, split_files

_PART = re.compile(r".+-(\d{5})-of-(\d{5})\.gguf", re.IGNORECASE)
_MARK = re.compile(r"mm-?proj(?:ector)?", re.IGNORECASE)
_QUANT = re.compile(r"(?<![a-z0-9])(?:i?q\d\w*|[bf]*f\d+|fp\d+|ud)(?![a-z0-9])", re.IGNORECASE)


def check_parts(path: Path) -> GgufFile:
    """Check that a language model's file is whole, or the first of all parts; return its header.

    Raises:
        ModelError: it is no GGUF, or a projector, or a part is missing, misnamed, or not the first.
    """
    header = read_gguf(path)
    if header.get("general.architecture") == "clip":
        raise ModelError(
            f"{path} is a projector, not a language model; give it after --mmproj, and the model "
            "after -m."
        )
    count = int(header.get("split.count", 0) or 0)
    named = _PART.fullmatch(path.name)
    if count <= 1 and named is None:
        return header
    if named is None:
        number = int(header.get("split.no", 0)) + 1
        raise ModelError(
            f"{path} is part {number} of {count} of a split model, but its name does not say so; "
            f"rename it to NAME-{number:05d}-of-{count:05d}.gguf, and give the first part."
        )
    if count and int(named[2]) != count:
        raise ModelError(
            f"{path} says in itself that it has {count} parts, and in its name {int(named[2])}; "
            "download the model again."
        )
    _check_number(path, header, int(named[1]))
    parts = split_files(_first(path))
    if int(named[1]) != 1:
        raise ModelError(
            f"{path} is part {int(named[1])} of {len(parts)}; give the first part, {parts[0]}."
        )
    for number, part in enumerate(parts[1:], start=2):
        if not part.is_file():
            raise ModelError(
                f"Part {number} of {len(parts)} of the model is missing: there is no file {part}; "
                "download it, too."
            )
        _check_number(part, read_gguf(part), number)
    return header


def _check_number(path: Path, header: GgufFile, number: int) -> None:
    found = header.get("split.no")
    if found is not None and int(found) + 1 != number:
        raise ModelError(
            f"{path} is part {int(found) + 1} of the model, but its name says {number}; "
            "give it its own name back."
        )


def _first(path: Path) -> Path:
    return path.with_name(re.sub(r"-\d{5}(-of-\d{5}\.gguf)$", r"-00001\1", path.name, flags=re.I))


def projector_beside(path: Path, header: GgufFile) -> Path:
    """Return the projector in a model's folder that belongs to it.

    That is one made for embeddings of the model's width, and named like the model rather than in
    general, and both rather than after another model; of equals, the nearest in bits.

    Raises:
        ModelError: there is none, or several belong to it equally well.
    """
    found = [
        other
        for other in sorted(path.parent.iterdir())
        if other.suffix.lower() == ".gguf" and other != path and _MARK.search(other.name)
    ]
    if not found:
        raise ModelError(
            f"There is no projector (a GGUF with mmproj in its name) beside {path}; "
            "name one with --mmproj."
        )
    ranks = {other: _rank(path, header, other) for other in found}
    best = min(ranks.values())
    equals = [other for other in found if ranks[other] == best]
    if len(equals) > 1 and len({_model_name(other) for other in equals}) > 1:
        names = ", ".join(other.name for other in equals)
        raise ModelError(
            f"Several projectors beside {path} may belong to it ({names}); name one with --mmproj."
        )
    return equals[0]


def _rank(path: Path, header: GgufFile, other: Path) -> tuple[bool, int, int]:
    """Return how badly a projector fits a model; smaller is better."""
    own, name = _model_name(path), _model_name(other)
    named = 0 if name == own else 1 if not name else 2
    return (
        not _fits(header, other),
        named,
        abs(quant_bits(other.name) - quant_bits(path.name)),
    )


def _fits(header: GgufFile, other: Path) -> bool:
    """Return whether a projector's header gives the model's width (True where it tells none)."""
    try:
        width = read_gguf(other).get("clip.vision.projection_dim")
    except ModelError:
        return False
    own = header.get(".embedding_length")
    return width is None or own is None or int(width) == int(own)


def _model_name(path: Path) -> str:
    """The model that a file is named after, without quantization, part and 'mmproj'."""
    name = re.sub(r"-\d{5}-of-\d{5}$", "", path.stem)
    name = _QUANT.sub("", _MARK.sub("", name))
    return re.sub(r"[-_.\s]+", "-", name).strip("-").lower()
