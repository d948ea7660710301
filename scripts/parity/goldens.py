"""Make a family's goldens: the toy's GGUF pair, and what transformers makes of each case.

A family's folder holds model.gguf and mmproj.gguf (f32), CASE.npz for every case, and cases.json:
how retake-edge is asked for each case, and what made it all.
"""

from __future__ import annotations

import hashlib
import json
import platform
import tempfile
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from fetch_llama_cpp import read_upstream

from parity import clip
from parity.convert import convert
from parity.toy import QUESTION, Stages, Toy

SEED = 20261123
MAX_PIXEL_VALUES = 100_000
VIDEOS = [
    (width, height, n_frames)
    for width, height in [
        (1920, 1080), (1080, 1920), (1280, 720), (640, 480), (320, 180), (224, 224), (64, 48),
        (30, 20), (854, 480), (3840, 2160), (4096, 240), (100, 1000),
    ]
    for n_frames in (2, 4, 7, 16, 255, 768)
]  # fmt: skip
"""Width, height and frames of videos whose size in the model is written down."""

_PACKAGES = (
    "torch",
    "torchvision",
    "transformers",
    "tokenizers",
    "numpy",
    "opencv-python-headless",
)


def make(toy: Toy, video: Path, out: Path) -> None:
    """Write the goldens of one family to the folder `out`."""
    import torch

    torch.set_num_threads(1)  # the order of sums, and with it the last bits
    out.mkdir(parents=True, exist_ok=True)
    frames = clip.read(video)
    with tempfile.TemporaryDirectory() as saved:
        made = toy.make(Path(saved), SEED)
        pair = out / "model.gguf", out / "mmproj.gguf"
        if toy.convert is not None:
            toy.convert(Path(saved), *pair)
        else:
            convert(Path(saved), toy.pre_tokenizer, *pair)
    cases = {}
    for case in toy.cases:
        indices = case.frames()
        with torch.no_grad():
            stages = toy.stages(made, frames[indices], indices, case)
        cases[case.name] = asdict(case) | {"frames": indices, "retake": case.retake()}
        _write(out / f"{case.name}.npz", stages, toy)
    document = {"question": QUESTION, "mean": toy.mean, "std": toy.std, "cases": cases}
    if toy.frame_size is not None:
        document["sizes"] = [[*video, *toy.frame_size(*video)] for video in VIDEOS]
    document["made_by"] = provenance(toy, video)
    (out / "cases.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _write(path: Path, stages: Stages, toy: Toy) -> None:
    """Save a case; pixels as the bytes they were before normalisation, which must give them back,
    and of large frames only each `pixel_stride`-th row and column.

    Raises:
        AssertionError: they do not.
    """
    mean, std = np.array(toy.mean), np.array(toy.std)
    pixels = np.rint((stages.pixels * std + mean) * 255)
    again = (pixels / 255 - mean) / std
    assert np.abs(again - stages.pixels).max() < 1e-5, "pixels are no normalised bytes"
    stride = 1
    while pixels[:, ::stride, ::stride].size > MAX_PIXEL_VALUES:
        stride += 1
    np.savez_compressed(
        path,
        size=pixels.shape[2:0:-1],
        pixel_stride=stride,
        input_ids=stages.input_ids.astype(np.int32),
        is_video=stages.is_video,
        positions=stages.positions.astype(np.int32),
        pixels=pixels[:, ::stride, ::stride].astype(np.uint8),
        features=stages.features.astype(np.float32),
        logits=stages.logits.astype(np.float32),
    )


def provenance(toy: Toy, video: Path) -> dict[str, Any]:
    """Return versions, seed and inputs."""
    return {
        "command": f"python -m parity make {toy.name} --out tests/golden/families",
        "seed": SEED,
        "clip_sha256": hashlib.sha256(video.read_bytes()).hexdigest(),
        "llama.cpp": read_upstream().commit,
        "python": platform.python_version(),
        **{name: version(name) for name in _PACKAGES},
    }


def compare(expected: Path, made: Path) -> list[str]:
    """Return one line for each stage of each case, with its greatest difference."""
    lines = []
    for case in sorted(json.loads((expected / "cases.json").read_text())["cases"]):
        old, new = np.load(expected / f"{case}.npz"), np.load(made / f"{case}.npz")
        for stage in old.files:
            a, b = old[stage].astype(np.float64), new[stage].astype(np.float64)
            same = a.shape == b.shape
            worst = float(np.abs(a - b).max()) if same else np.inf
            lines.append(f"{expected.name} {case} {stage}: {worst:.3g}")
    return lines


def worst(expected: Path, made: Path) -> float:
    """Return the greatest difference of all stages; goldens made anew differ in rounding alone."""
    return max(float(line.rpartition(" ")[2]) for line in compare(expected, made))
