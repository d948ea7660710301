"""Flash attention over quantized K and V in tiles on a CPU: closer to f32 than row by row."""

from __future__ import annotations

from collections.abc import Iterator

import native_support as ns
import numpy as np
import pytest
from random_models import write_model

from retake_edge.llama.model import Model

N, TILE, SEEDS = 256, 128, range(6)
ROW_BY_ROW = 32
"""Rows a ubatch that are below a tile's 64."""


@pytest.fixture(scope="module", params=["golden", "neox"])
def model(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Model]:
    path = ns.GOLDEN_MODEL
    if request.param != "golden":
        path = write_model(tmp_path_factory.mktemp("flash") / "neox.gguf", request.param)
    with Model(path) as model:
        yield model


def logits(model: Model, seed: int, type_k: str, type_v: str, n_ubatch: int) -> ns.Floats:
    """Logits of the last token of a chunk, read in ubatches of so many rows."""
    options = {"type_k": type_k, "type_v": type_v, "flash_attention": "on", "n_ubatch": n_ubatch}
    chunk = ns.make_chunk(model, 4, (8, 8), 0, seed)
    with ns.open_context(model, n_ctx=N + 64, **options) as (context, _):
        ns.decode(context, chunk)
        return context.logits().copy()


def distance(model: Model, type_k: str, type_v: str, n_ubatch: int) -> float:
    """Root mean square of the difference from an f32 cache, over all seeds."""
    gaps = [
        logits(model, seed, type_k, type_v, n_ubatch) - logits(model, seed, "f32", "f32", n_ubatch)
        for seed in SEEDS
    ]
    return float(np.sqrt(np.mean(np.square(gaps))))


@pytest.mark.parametrize(
    ("type_k", "type_v"),
    [("q8_0", "q8_0"), ("q4_0", "q4_0"), ("q8_0", "q4_0"), ("f16", "q8_0"), ("q4_0", "f16")],
)
def test_logits_are_no_farther_from_f32_than_row_by_row(
    model: Model, type_k: str, type_v: str
) -> None:
    tiled = distance(model, type_k, type_v, TILE)
    row_by_row = distance(model, type_k, type_v, ROW_BY_ROW)
    # What the cache itself loses outweighs the arithmetic below q8_0: only noise may be added.
    assert 0 < tiled <= 1.05 * row_by_row


def test_queries_are_not_quantized_in_tiles(model: Model) -> None:
    tiled = distance(model, "q8_0", "q8_0", TILE)
    row_by_row = distance(model, "q8_0", "q8_0", ROW_BY_ROW)
    # Only a CPU quantizes them, row by row; on a device both ways differ by rounding alone.
    assert tiled < ns.near(0.9, 1.05) * row_by_row
    assert not ns.ON_DEVICE or tiled > 0.9 * row_by_row
