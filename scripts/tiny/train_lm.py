"""Train the language model on videos from the feature bank, the ViT frozen.

The loss is that of the answers, with three helpers that break the plateau of retrieval and
fade out: the answer's first token at the question mark, attention of two heads of one layer
to the pairs that hold the evidence, and each vision token's own clock time after layer 0.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from pathlib import Path

import bank as banks
import numpy as np
import parallel
import tokens
import torch
import torch.nn.functional as F
from lm import HEAD, HIDDEN, THETA, WORD_NORM, KeysValues, LanguageModel
from muon import Optimizer, schedule
from pairs import SLOTS
from torch import Tensor
from train_vit import slot_codes
from videos import NAMED_WORDS, PER_PAIR, Batch, make_batch

LOOK_LAYER, LOOK_HEADS = 2, 4
FEATURE_NORM = 12.0
DRIFT = 0.03


def start_words(model: LanguageModel) -> None:
    """Start each word's embedding from the codes of what it names, with and without a space."""
    ids = tokens.token_ids()
    with torch.no_grad():
        known: dict[str, Tensor] = defaultdict(lambda: torch.zeros(model.words.shape[1]))
        for slot, codes in slot_codes().items():
            for name, code in zip(SLOTS[slot], codes, strict=True):
                known[name] = known[name] + code
        for name, code in known.items():
            for text in (name, tokens._LETTERS[32] + name):
                if text in ids:
                    model.words[ids[text]] = 0.3 * model.words[ids[text]] + 0.8 * WORD_NORM * code
        model.words[ids[tokens._LETTERS[10]]] *= 0.1  # where answers begin: room for the answer


def start_circuit(model: LanguageModel) -> None:
    """Start from the circuit that answers need: clock to vision token, evidence to answer.

    Heads 2 and 3 of layer 0 look one position back at clock tokens and copy the time; in the
    look layer heads 0 and 1 copy codes and heads 2 and 3 the time. All else is learned.
    """
    codes = torch.cat(list(slot_codes().values()))
    generator = torch.Generator().manual_seed(3)
    free = torch.randn(HEAD + 1, HIDDEN, generator=generator)
    free = torch.linalg.qr((free - free @ codes.T @ codes).T)[0].T  # orthogonal to all codes
    mark, time = free[0], free[1:]
    frequency = THETA ** (-torch.arange(8) * 2.0 / HEAD)
    with torch.no_grad():
        for table in (model.minutes, model.seconds):
            within = torch.randn(60, HEAD, generator=generator) / HEAD**0.5
            table.copy_(0.7 * WORD_NORM * within @ time)
        model.minutes += 0.7 * WORD_NORM * mark
        layer = model.layers[0]
        layer.k.weight[HEAD:] *= 0.1
        layer.k.weight[HEAD : HEAD + 8] = 0.29 * mark
        layer.k.bias[HEAD : HEAD + 8] = 0.3
        layer.q.weight[2 * HEAD :] *= 0.1
        for head in (2, 3):
            layer.q.bias[head * HEAD : head * HEAD + 8] = 3 * frequency.cos()
            layer.q.bias[head * HEAD + 32 : head * HEAD + 40] = -3 * frequency.sin()
        copies = (
            (layer, 1, time),
            (model.layers[LOOK_LAYER], 0, codes),
            (model.layers[LOOK_LAYER], 1, time),
        )
        for layer, group, basis in copies:
            layer.v.weight[group * HEAD : group * HEAD + len(basis)] = 0.3 * basis
            for head in (2 * group, 2 * group + 1):
                layer.out.weight[:, head * HEAD : head * HEAD + len(basis)] = 1.2 * basis.T


def prefix_embeddings(model: LanguageModel, table: Tensor, batch: Batch, scale: float) -> Tensor:
    """Lay out header, clock tokens and features, [B, 4 + 17 n, 256]."""
    n = batch.features.shape[1]
    words = F.embedding(batch.prefix_ids, table)
    head, clocks = words[:, :-n], words[:, -n:]
    pairs = torch.cat([clocks.unsqueeze(2), batch.features.float() * scale], 2)
    return torch.cat([head, pairs.flatten(1, 2)], 1)


def look_loss(seen: Tensor, batch: Batch, head: int) -> Tensor:
    """Mean of -log of the attention that falls on the evidence, over questions that have some."""
    rows = torch.stack([seen[b, :LOOK_HEADS, q, head:] for b, q, _ in batch.looks])
    rows = rows.unflatten(-1, (-1, PER_PAIR))[..., 1:].sum(-1)
    held = torch.from_numpy(np.stack([h for _, _, h in batch.looks])).float()
    return -((rows * held[:, None]).sum(-1) + 1e-4).log().mean()


def clock_loss(model: LanguageModel, first: Tensor, batch: Batch) -> Tensor:
    """Cross-entropy of the minute and second of a random vision token of each pair."""
    n = batch.features.shape[1]
    cells = first[:, -PER_PAIR * n :].unflatten(1, (n, PER_PAIR))
    cells = model.norm(cells[:, :, int(torch.randint(1, PER_PAIR, ()))])
    seconds = batch.prefix_ids[:, -n:] - tokens.clock_base()
    minutes = F.cross_entropy((cells @ model.minutes.T).flatten(0, 1), (seconds // 60).flatten())
    return minutes + F.cross_entropy(
        (cells @ model.seconds.T).flatten(0, 1), (seconds % 60).flatten()
    )


def name_loss(model: LanguageModel, before: Tensor, batch: Batch, table: Tensor) -> Tensor:
    """Cross-entropy of the one colour, and of the one shape, that a question names."""
    total = before.new_zeros(())
    for words, named in zip(NAMED_WORDS, batch.named, strict=True):
        rows = model.norm(torch.stack([before[b, q] for b, q, _ in named]))
        total = total + F.cross_entropy(rows @ table[words].T, torch.tensor([c for *_, c in named]))
    return total


def forward(
    model: LanguageModel, batch: Batch, scale: float, detach: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None, Tensor]:
    """Return table, hidden states, layer 0's output, look layer's attention and input, drift."""
    table = model.table()
    x = prefix_embeddings(model, table, batch, scale)
    kept: KeysValues
    kept, first, drift = model.watch(x, batch.prefix_positions, detach)
    hidden, seen, before = model.read(
        F.embedding(batch.ids, table), batch.positions, batch.own, kept, LOOK_LAYER
    )
    return table, hidden, first, seen, before, drift


def step_loss(
    model: LanguageModel, batch: Batch, scale: float, helpers: float, detach: bool
) -> tuple[Tensor, dict[str, list[bool]]]:
    """Return the loss of a batch and, per question kind, which answers were right."""
    table, hidden, first, seen, before, drift = forward(model, batch, scale, detach)
    asked, hinted = batch.targets >= 0, batch.hints >= 0
    logits = hidden[asked] @ table.T
    loss = F.cross_entropy(logits, batch.targets[asked]) + DRIFT * drift
    if helpers > 0:
        hint = F.cross_entropy(hidden[hinted] @ table.T, batch.hints[hinted])
        head = batch.prefix_ids.shape[1] - batch.features.shape[1]
        if all(batch.named):
            loss = loss + helpers * 0.2 * name_loss(model, before, batch, table)
        loss = loss + helpers * (0.3 * hint + 0.5 * look_loss(seen, batch, head))
        if not detach:
            loss = loss + helpers * 0.2 * clock_loss(model, first, batch)
    right = torch.zeros_like(asked)
    right[asked] = logits.detach().argmax(-1) == batch.targets[asked]
    found: dict[str, list[bool]] = defaultdict(list)
    for b, kinds in enumerate(batch.kinds):
        for kind, at, end in kinds:
            found[kind].append(bool(right[b, at:end].all()))
    return loss, found


def plan(text: str) -> list[tuple[float, int, int, int, bool]]:
    """Parse "share:pairs:videos:questions[:d],..." into stages; d detaches the prefix's layers."""
    parts = [p.split(":") for p in text.split(",")]
    return [(float(p[0]), int(p[1]), int(p[2]), int(p[3]), len(p) > 4) for p in parts]


def main() -> None:
    """Train through the stages; each step draws its length from those reached so far."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bank", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=40)
    parser.add_argument(
        "--stages",
        type=plan,
        default="0:8:6:16,0.2:16:3:16,0.4:32:2:16,0.6:64:1:16,0.75:192:1:16:d",
    )
    parser.add_argument("--init", type=Path)
    parser.add_argument("--muon-lr", type=float, default=0.01)
    parser.add_argument("--adam-lr", type=float, default=1.5e-3)
    parser.add_argument("--flat", type=float, default=0.4)
    parser.add_argument("--helpers-until", type=float, default=0.6)
    parser.add_argument("--seed", type=int, default=1)
    parallel.add_arguments(parser)
    args = parser.parse_args()
    parallel.start(args)
    torch.manual_seed(args.seed)
    model = LanguageModel()
    start_words(model)
    start_circuit(model)
    bank = banks.load(args.bank)
    scale = FEATURE_NORM / float(
        np.sqrt((bank.features[:50].astype(np.float32) ** 2).sum(-1).mean())
    )
    if args.init:
        state = torch.load(args.init)
        model.load_state_dict(state["model"])
        scale = state["scale"]
    named = list(model.named_parameters())
    matrices = [p for n, p in named if p.ndim == 2 and n.startswith("layers")]
    optimizer = Optimizer(
        matrices,
        [p for n, p in named if not (p.ndim == 2 and n.startswith("layers"))],
        args.muon_lr,
        args.adam_lr,
    )
    rng, start, step, done = np.random.default_rng(100 * args.seed + args.rank), time.time(), 0, 0.0
    shared = np.random.default_rng(args.seed)  # the same lengths in every process
    tally: dict[str, list[bool]] = defaultdict(list)
    losses: list[float] = []
    while done < 1:
        open_stages = [s for s in args.stages if s[0] <= done]
        chosen = (
            open_stages[-1]
            if shared.random() < 0.6
            else open_stages[int(shared.integers(len(open_stages)))]
        )
        _, n, size, n_questions, detach = chosen
        batch = make_batch(rng, bank, size, int(n * shared.uniform(0.7, 1.1)), n_questions)
        helpers = max(0.0, 1 - done / args.helpers_until)
        loss, found = step_loss(model, batch, scale, helpers, detach)
        loss.backward()
        done = (time.time() - start) / 60 / args.minutes
        done = parallel.average_gradients(optimizer.all, done)
        optimizer.step(schedule(done, 0.02, args.flat))
        step += 1
        losses.append(loss.item())
        for kind, hits in found.items():
            tally[kind].extend(hits)
        if step % 50 == 0 and args.rank == 0:
            line = {
                "phase": "lm",
                "step": step,
                "pairs": n,
                "seconds": round(time.time() - start),
                "loss": round(float(np.mean(losses)), 4),
                **{k: round(float(np.mean(tally[k])), 2) for k in sorted(tally)},
            }
            print(json.dumps(line), flush=True)
            tally.clear()
            losses.clear()
            torch.save({"model": model.state_dict(), "scale": scale}, args.out)
    if args.rank == 0:
        torch.save({"model": model.state_dict(), "scale": scale}, args.out)


if __name__ == "__main__":
    main()
