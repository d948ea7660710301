"""A LLaVA tower in llama.cpp: the class token is the first, and features are those of its layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from retake_edge.llama.model import Model
from retake_edge.vision.encoder import VisionEncoder

GOLDEN = Path(__file__).parents[1] / "golden"
TOLERANCE, MEAN_TOLERANCE = 1e-2, 1e-3
"""In standard deviations of the features, as in test_families.py."""


def test_a_llava_towers_features_are_those_of_transformers():
    expected = np.load(GOLDEN / "llava" / "features.npz")
    language_model = GOLDEN / "families" / "smolvlm2" / "model.gguf"  # any of that width
    with (
        Model(language_model, n_gpu_layers=0) as loaded,
        VisionEncoder(
            loaded, GOLDEN / "llava" / "mmproj.gguf", offload=False, n_threads=1
        ) as encoder,
    ):
        found = encoder.encode(expected["pictures"], np.array([0.0, 1.0])).embeddings
    assert found.shape == expected["features"].shape
    off = np.abs(found - expected["features"]) / expected["features"].std()
    message = f"features differ by {off.max():.3g} at most, {off.mean():.3g} on average"
    print(message)
    assert off.max() <= TOLERANCE and off.mean() <= MEAN_TOLERANCE, message
