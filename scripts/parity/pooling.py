"""What torch makes of pooling a frame's features, which retake_edge.models.pooling must equal.

PYTHONPATH=scripts python -m parity.pooling tests/golden/pooling.npz
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import parity.torchvision_stub  # noqa: F401 (before torchvision)

# isort: split
import torch

from parity.llava_pooled import pooled

GRIDS = ((27, 27), (7, 7), (5, 8), (2, 2))
"""Rows and columns: the published towers', a toy's, one that is no square, the least."""


def main() -> None:
    """Write features and results."""
    rng = np.random.default_rng(20261123)
    results = {}
    for rows, cols in GRIDS:
        features = rng.standard_normal((1, rows, cols, 3)).astype(np.float32)
        results[f"{rows}x{cols}"] = features[0]
        for mode in ("bilinear", "average", "max"):
            for stride in (2, 3) if rows > 2 else (2,):
                made = pooled(torch.from_numpy(features), mode, stride)
                results[f"{rows}x{cols}_{mode}_{stride}"] = made[0].numpy()
    np.savez_compressed(Path(sys.argv[1]), **results)


if __name__ == "__main__":
    main()
