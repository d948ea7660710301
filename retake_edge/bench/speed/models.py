"""The models of the speed benchmark: one as it is, or two cuts of a published shape."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from retake_edge.bench.speed.cuts import parse_cuts
from retake_edge.errors import ConfigError
from retake_edge.llama.gguf import read_gguf
from retake_edge.models.random_gguf import random_pair
from retake_edge.models.resolve import resolve_model
from retake_edge.models.shapes import check_layers, shape_of


@dataclass(frozen=True)
class Cut:
    """A model that is measured, cut or whole. `model`, `mmproj`: as on the command line."""

    model: str
    mmproj: Path | None
    n_layer: int
    n_vision_layer: int


def speed_models(
    model: str,
    mmproj: Path | None,
    shape: str | None,
    layers: str | None,
    quant: str,
    cache_dir: Path | None,
) -> tuple[list[Cut], dict[str, Any]]:
    """Return what is measured, and what the run file says of it.

    `shape`: random weights in place of `model`, kept in `cache_dir`; `layers`: its two cuts.

    Raises:
        ConfigError: the cuts are not two of at least two layers, or the model has one layer only.
        ModelError: there is no such model.
    """
    if shape is None:
        if layers is not None:
            raise ConfigError("--layers cuts a shape with random weights; name it with --shape.")
        return _given(model, mmproj)
    whole = shape_of(shape, None)
    numbers = (whole.n_layer,) if layers is None else parse_cuts(layers)
    if max(numbers) > whole.n_layer:
        raise ConfigError(f"--layers is {layers}, but {shape} has {whole.n_layer} layers.")
    folder, cuts = cache_dir or user_cache_path("retake-edge") / "shapes", []
    for n in numbers:
        made = whole if n == whole.n_layer else shape_of(shape, n)
        files = random_pair(made, quant, folder)
        cuts.append(Cut(str(files[0]), files[1], made.n_layer, made.vision.n_layer))
    return cuts, {
        "name": f"{shape}, random {quant} weights",
        "shape": shape,
        "layers": whole.n_layer,
        "vision_layers": whole.vision.n_layer,
    }


def _given(model: str, mmproj: Path | None) -> tuple[list[Cut], dict[str, Any]]:
    """A model's files as they are."""
    source = resolve_model(model, mmproj)
    n_layer = int(read_gguf(source.model).get(".block_count", 1))
    n_vision = int(read_gguf(source.mmproj).get("clip.vision.block_count", 0))
    check_layers(n_layer, f"{source.model.name} has {n_layer}")
    name = source.model.name if Path(model).suffix else model
    described = {"name": name, "layers": n_layer, "vision_layers": n_vision}
    return [Cut(model, mmproj, n_layer, n_vision)], described
