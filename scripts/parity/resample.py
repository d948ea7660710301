"""Pictures resized by torchvision, which retake_edge.video.resample must equal byte for byte.

PYTHONPATH=scripts python -m parity.resample tests/golden/resample.npz
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

import parity.torchvision_stub  # noqa: F401 (before torchvision)

# isort: split
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

SIZES = ((28, 28), (90, 40), (33, 120), (64, 45), (17, 7))
"""(width, height); the pictures are 64 x 45: smaller, larger, one side alone."""


def pictures() -> list[np.ndarray]:
    """Return one picture of noise, and one with slopes and hard edges, u8 [45, 64, 3]."""
    noise = np.random.default_rng(20261123).integers(0, 256, (45, 64, 3), dtype=np.uint8)
    y, x = np.mgrid[0:45, 0:64]
    drawn = np.stack([4 * x, 5 * y, 255 * ((x // 9 + y // 7) % 2)], axis=-1).astype(np.uint8)
    return [noise, drawn]


def main() -> None:
    """Write pictures and results."""
    results: dict[str, Any] = {f"picture{i}": picture for i, picture in enumerate(pictures())}
    for i, picture in enumerate(pictures()):
        planes = torch.from_numpy(picture).permute(2, 0, 1)
        for kernel in ("bilinear", "bicubic", "lanczos"):
            for width, height in SIZES if i else SIZES[:2]:  # noise takes room
                mode = InterpolationMode(kernel)
                resized = functional.resize(planes, [height, width], mode, antialias=True)
                name = f"{kernel}_{i}_{width}x{height}"
                results[name] = resized.permute(1, 2, 0).numpy()
    np.savez_compressed(Path(sys.argv[1]), **results)


if __name__ == "__main__":
    main()
