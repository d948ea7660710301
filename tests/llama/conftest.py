"""Models with random weights, loaded once for all native tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import native_support as ns
import pytest
from random_models import write_model

from retake_edge.llama.model import Model


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Model]]:
    folder = tmp_path_factory.mktemp("random-models")
    loaded: dict[str, Model] = {}

    def get(kind: str) -> Model:
        if kind not in loaded:
            if kind == "golden on the CPU":  # the only backend with an abort callback
                loaded[kind] = Model(ns.GOLDEN_MODEL, n_gpu_layers=0)
            elif kind == "golden":
                loaded[kind] = Model(ns.GOLDEN_MODEL)
            else:
                loaded[kind] = Model(write_model(folder / f"{kind}.gguf", kind))
        return loaded[kind]

    yield get
    for model in loaded.values():
        model.close()
