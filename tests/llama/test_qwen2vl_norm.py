"""The patch qwen2vl-read-norm-eps: a model's own norm epsilon is used."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import native_support as ns
import numpy as np
import pytest
from native_support import ask, open_context

from retake_edge.llama.model import Model


def test_qwen2vl_models_use_their_own_norm_epsilon(models: Any, tmp_path: Path) -> None:
    key, value = b"layer_norm_rms_epsilon", struct.Struct("<If")
    data = bytearray(ns.GOLDEN_MODEL.read_bytes())
    at = data.index(key) + len(key)
    kind, epsilon = value.unpack_from(data, at)
    assert epsilon == pytest.approx(1e-6)
    value.pack_into(data, at, kind, 0.1)
    (tmp_path / "other.gguf").write_bytes(data)
    logits = []
    with Model(tmp_path / "other.gguf") as other:
        for model in (models("golden"), other):
            with open_context(model) as (context, _):
                logits.append(ask(context, 0))
    assert np.abs(logits[0] - logits[1]).max() > 1e-3
