"""Limits for results against the data, on this machine's processor and on a device.

A device's arithmetic is its own. What is allowed there is for what it does differently, as was
seen; an index may differ only where two values are nearer to each other than that (a near-tie).
Seen with llama.cpp's Vulkan backend on Mesa's software driver and the golden model.
"""

from __future__ import annotations

from dataclasses import dataclass

CPU_SCORE = 1e-5
"""f32 sums over a chunk's queries, in another order than numpy's."""
CPU_LOGIT = 1e-3
"""A whole forward pass in f32."""
CPU_KEY = 1e-5
"""One rotation in f32."""

DEVICE_SCORE = 5e-3
"""Scores of given q and k: f32 matrices may be multiplied as fp16 or TF32, whose products keep 10
bits, a share of 5e-4 (2.3e-3 seen of a score of 4.5, summed over 640 queries)."""
DEVICE_FORWARD = 5e-3
"""Results of a forward pass of several layers: keys (1.25e-3 seen in layer 1, in a plain
decode), values, attention weights, and scores of such q and k (2.3e-3 seen)."""
DEVICE_MOVED = 1e-2
"""Keys of two forward passes at different positions, one of them turned to the other's: their
differences add up (5.4e-3 seen of YaRN keys with fp16 shaders)."""
DEVICE_QUANTIZED = 4e-2
"""Over q8_0 cells a difference within `DEVICE_FORWARD` moves a number to the next step: a 127th of
its block's largest, which is below 5 in the tests' models (3.4e-2 seen with fp16 shaders)."""
DEVICE_LOGIT = 5e-2
"""The same at the end of a forward pass, before the softmax."""


@dataclass(frozen=True)
class Limits:
    """Most difference of `score`s and `logit`s; `near_ties`: whether an index may differ where two
    values are no farther apart than twice that.
    """

    score: float
    logit: float
    near_ties: bool


CPU = Limits(CPU_SCORE, CPU_LOGIT, near_ties=False)
DEVICE = Limits(DEVICE_FORWARD, DEVICE_LOGIT, near_ties=True)
