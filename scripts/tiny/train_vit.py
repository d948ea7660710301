"""Train the vision transformer: every token says what covers it, in a fixed code.

Each class of each slot has a code vector, all orthogonal in the LM's embedding space. A
token's projected feature is trained so that its product with the code of a class is the
class's logit, and a fixed logit stands for "none". The LM's word embeddings start from the
same codes, so that the words and what they name lie together before the LM is trained.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import parallel
import torch
import torch.nn.functional as F
from muon import Optimizer, schedule
from pairs import SLOTS, UNKNOWN
from torch import Tensor, nn
from vit import OUT, VisionTransformer

N_TEST = 384
NONE_LOGIT = 2.0
LOGIT_SCALE = 2.0


def slot_codes() -> dict[str, Tensor]:
    """Return the orthonormal codes of each slot's classes, [n_classes, 256]."""
    generator = torch.Generator().manual_seed(11)
    n = sum(len(v) for v in SLOTS.values())
    basis, _ = torch.linalg.qr(torch.randn(OUT, n, generator=generator))
    return dict(zip(SLOTS, basis.T.split([len(v) for v in SLOTS.values()]), strict=True))


def slot_logits(features: Tensor, codes: dict[str, Tensor]) -> list[Tensor]:
    """Return logits per slot, [..., n_classes + 1], "none" last."""
    return [F.pad(LOGIT_SCALE * features @ c.T, (0, 1), value=NONE_LOGIT) for c in codes.values()]


def loss_of(features: Tensor, labels: Tensor, codes: dict[str, Tensor]) -> Tensor:
    """Mean cross-entropy over slots; "none" cells count a quarter."""
    total = features.new_zeros(())
    for logits, column in zip(slot_logits(features, codes), labels.unbind(-1), strict=True):
        weight = torch.ones(logits.shape[-1])
        weight[-1] = 0.25
        total = total + F.cross_entropy(
            logits.flatten(0, 1), column.flatten(), weight, ignore_index=UNKNOWN
        )
    return total + 1e-4 * features.square().mean()


@torch.no_grad()
def accuracy(features: Tensor, labels: Tensor, codes: dict[str, Tensor]) -> dict[str, float]:
    """Return per-slot accuracy on the cells that carry the slot."""
    found = {}
    for name, logits, column in zip(
        SLOTS, slot_logits(features, codes), labels.unbind(-1), strict=False
    ):
        there = (column != UNKNOWN) & (column < logits.shape[-1] - 1)
        found[name] = (logits.argmax(-1) == column)[there].float().mean().item()
    return found


def load_shards(folder: Path, rank: int, world: int) -> tuple[np.ndarray, np.ndarray]:
    """Load this process's share of the shards there are, but for the held-out first pairs."""
    shards = [np.load(f) for f in sorted(folder.glob("pairs*.npz"))[rank::world]]
    frames = np.concatenate([s["frames"][N_TEST:] for s in shards])
    return frames, np.concatenate([s["labels"][N_TEST:] for s in shards])


def split_weights(model: VisionTransformer) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return the matrices for Muon, and the rest (with the largest, whose Muon step is slow)."""
    named = list(model.named_parameters())
    muon = [p for n, p in named if p.ndim == 2 and not n.startswith("mm0")]
    return muon, [p for n, p in named if p.ndim != 2 or n.startswith("mm0")]


def main() -> None:
    """Train for a number of minutes; save weights and a log line now and then."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--init", type=Path)
    parser.add_argument("--muon-lr", type=float, default=0.02)
    parallel.add_arguments(parser)
    args = parser.parse_args()
    parallel.start(args)
    torch.manual_seed(1)
    model, codes = VisionTransformer(), slot_codes()
    if args.init:
        model.load_state_dict(torch.load(args.init))
    optimizer = Optimizer(*split_weights(model), args.muon_lr, 1.5e-3)
    test = np.load(args.pairs / "pairs0.npz")
    test_frames = torch.from_numpy(test["frames"][:N_TEST])
    test_labels = torch.from_numpy(test["labels"][:N_TEST]).long()
    frames, labels = load_shards(args.pairs, args.rank, args.world)
    n_files, order = len(list(args.pairs.glob("pairs*.npz"))), np.array([], int)
    rng, start, step, running, done = np.random.default_rng(args.rank), time.time(), 0, 0.0, 0.0
    while done < 1:
        if len(order) < args.batch:
            if len(list(args.pairs.glob("pairs*.npz"))) > n_files:
                n_files = len(list(args.pairs.glob("pairs*.npz")))
                frames, labels = load_shards(args.pairs, args.rank, args.world)
            order = rng.permutation(len(frames))
        take, order = order[: args.batch], order[args.batch :]
        features = model(torch.from_numpy(frames[take]))
        loss = loss_of(features, torch.from_numpy(labels[take]).long(), codes)
        loss.backward()
        done = (time.time() - start) / 60 / args.minutes
        done = parallel.average_gradients(optimizer.all, done)
        optimizer.step(schedule(done))
        running = loss.item() if step == 0 else 0.95 * running + 0.05 * loss.item()
        step += 1
        if step % 50 == 0 and args.rank == 0:
            with torch.no_grad():
                found = accuracy(model(test_frames), test_labels, codes)
            line = {
                "phase": "vit",
                "step": step,
                "pairs": step * args.batch * args.world,
                "n_files": n_files,
                "seconds": round(time.time() - start),
                "loss": round(running, 4),
                **{k: round(v, 3) for k, v in found.items()},
            }
            print(json.dumps(line), flush=True)
            torch.save(model.state_dict(), args.out)
    if args.rank == 0:
        torch.save(model.state_dict(), args.out)


if __name__ == "__main__":
    main()
