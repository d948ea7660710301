"""The LM's feature bank: clips of one segment each with their cards, rendered, then encoded.

    python bank.py render FOLDER FIRST LAST     clips of 100 to a shard, shards FIRST..LAST-1
    python bank.py encode FOLDER VIT.pt PART N  every N-th shard from PART on

Videos for the LM are put together from bank entries, so the frozen ViT runs once a pair.
"""

from __future__ import annotations

import pickle
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from pairs import clip_pairs

from retake_edge.bench.scenes import scene as sc

N_PLAIN, N_CARDS, SHARD = 6, 5, 100


@dataclass
class Bank:
    """Features [clips, N_PLAIN + 3 * N_CARDS, 16, 256] in f16, and what each clip shows."""

    features: np.ndarray
    segments: list[sc.Segment]
    cards: list[list[sc.Card]]


def render(folder: Path, shard: int) -> None:
    """Render one shard of clips."""
    rng = np.random.default_rng(500_000 + shard)
    clips = [clip_pairs(rng, N_PLAIN, N_CARDS) for _ in range(SHARD)]
    np.save(folder / f"frames{shard}.npy", np.stack([c[0] for c in clips]))
    (folder / f"clips{shard}.pkl").write_bytes(pickle.dumps([c[1:] for c in clips]))


def encode(folder: Path, weights: Path, shard: int) -> None:
    """Run the ViT over one shard."""
    import torch
    from vit import VisionTransformer

    torch.set_num_threads(1)
    model = VisionTransformer()
    model.load_state_dict(torch.load(weights))
    frames = np.load(folder / f"frames{shard}.npy", mmap_mode="r")
    with torch.no_grad():
        done = [model(torch.from_numpy(np.array(clip))).half().numpy() for clip in frames]
    np.save(folder / f"features{shard}.npy", np.stack(done))


def load(folder: Path) -> Bank:
    """Load all encoded shards."""
    files = sorted(folder.glob("features*.npy"))
    clips = [
        c for f in files for c in pickle.loads((folder / f"clips{f.stem[8:]}.pkl").read_bytes())
    ]
    features = np.concatenate([np.load(f) for f in files])
    return Bank(features, [c[0] for c in clips], [c[1] for c in clips])


if __name__ == "__main__":
    cv2.setNumThreads(1)
    base = Path(sys.argv[2])
    if sys.argv[1] == "render":
        for number in range(int(sys.argv[3]), int(sys.argv[4])):
            render(base, number)
    else:
        for path in sorted(base.glob("clips*.pkl"))[int(sys.argv[4]) :: int(sys.argv[5])]:
            encode(base, Path(sys.argv[3]), int(path.stem[5:]))
