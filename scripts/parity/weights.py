"""Random weights of a useful size: every part of the model has a say in the result."""

from __future__ import annotations

import torch


def randomise(model: torch.nn.Module, seed: int) -> None:
    """Fill all parameters from a seed, in the order of their names."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(_scaled(name, noise))


def _scaled(name: str, noise: torch.Tensor) -> torch.Tensor:
    if noise.ndim == 1:
        # Gains stand around 1 and biases around 0; lambda: the gains of layer scale.
        if "norm" in name and name.endswith("weight"):
            return 1 + 0.1 * noise
        return 0.5 + 0.1 * noise if "lambda" in name else 0.1 * noise
    if "embed" in name and "patch" not in name:
        return 0.3 * noise
    return 1.5 * noise / noise[0].numel() ** 0.5
