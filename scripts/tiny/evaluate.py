"""Answer questions about held-out scenes in PyTorch, by kind and length; write a table.

    python evaluate.py VIT.pt LM.pt OUT_FOLDER

Every scene goes through a video file (mp4v, 224 px) and is sampled at 2 frames a second, as the
engine does. `random 0.125` removes all but an eighth of the vision tokens after the prefill,
drawn anew in every layer: where that keeps the answers, the data would be too easy.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
import tokens
import torch
from export_gguf import load
from lm import DEPTH, KV_HEADS, KeysValues, LanguageModel
from torch import Tensor
from videos import HEADER, PER_PAIR, prefix_positions, question_ids
from vit import SIDE, VisionTransformer

from retake_edge.bench.scenes import questions as sq
from retake_edge.bench.scenes import scene as sc
from retake_edge.bench.scenes.render import write_video

FIRST_SEED = 9_000_000
NEEDLES = ("number", "when_card", "order")


def sampled_pairs(scene: sc.Scene, fps: int = 2) -> np.ndarray:
    """Write the scene as a video, read it back, uint8 [pairs, 2, 112, 112, 3]."""
    with tempfile.TemporaryDirectory() as folder:
        path = write_video(scene, Path(folder) / "scene.mp4", fps=fps)
        reader, frames = cv2.VideoCapture(str(path)), []
        while (got := reader.read())[0]:
            small = cv2.resize(got[1], (SIDE, SIDE), interpolation=cv2.INTER_AREA)
            frames.append(small[..., ::-1])
    frames = frames[: len(frames) // 2 * 2]
    return np.stack(frames).reshape(-1, 2, SIDE, SIDE, 3)


@torch.no_grad()
def prefill(
    eyes: VisionTransformer, model: LanguageModel, scale: float, pairs: np.ndarray, step_s: float
) -> tuple[KeysValues, int]:
    """Return the keys and values of a video, and the next position."""
    features = torch.cat(
        [eyes(torch.from_numpy(p)) for p in np.array_split(pairs, 1 + len(pairs) // 64)]
    )
    times, table = np.arange(len(pairs)) * step_s, model.table()
    clocks = table[[tokens.clock_base() + int(t) for t in times]].unsqueeze(1)
    x = torch.cat(
        [table[tokens.encode(HEADER)], torch.cat([clocks, features * scale], 1).flatten(0, 1)]
    )
    positions, following = prefix_positions(times)
    return model.watch(x[None], torch.from_numpy(positions)[None])[0], following


@torch.no_grad()
def answer(
    model: LanguageModel,
    kept: KeysValues,
    following: int,
    text: str,
    dropped: list[Tensor] | None = None,
) -> str:
    """Answer one question greedily."""
    ids, table, n_prompt = question_ids(text), model.table(), len(question_ids(text))
    end = tokens.token_ids()["<|im_end|>"]
    while len(ids) < n_prompt + 5:
        positions = (following + torch.arange(len(ids)))[None, :, None].expand(-1, -1, 3)
        own = torch.ones(1, len(ids), len(ids)).tril().bool()
        hidden, *_ = model.read(table[ids][None], positions, own, kept, dropped=dropped)
        ids.append(int((hidden[0, -1] @ table.T).argmax()))
        if ids[-1] == end:
            break
    return tokens.decode(ids[n_prompt:])


def drop_random(rng: np.random.Generator, n_pairs: int, keep: float) -> list[Tensor]:
    """Draw per layer which vision tokens are removed, bool [1, KV heads, T]; others stay."""
    head, dropped = len(tokens.encode(HEADER)), []
    vision = head + np.flatnonzero(np.arange(PER_PAIR * n_pairs) % PER_PAIR)
    for _ in range(DEPTH):
        gone = np.zeros(head + PER_PAIR * n_pairs, bool)
        gone[vision] = True
        gone[rng.permutation(vision)[: int(keep * len(vision))]] = False
        dropped.append(torch.from_numpy(gone).expand(1, KV_HEADS, -1))
    return dropped


def evaluate(
    models: tuple[VisionTransformer, LanguageModel, float],
    n_frames: int,
    n_scenes: int,
    n_questions: int,
    difficulty: str,
    keep: float | None = None,
) -> dict[str, list[bool]]:
    """Return right and wrong answers by kind over held-out scenes."""
    found: dict[str, list[bool]] = defaultdict(list)
    for i in range(n_scenes):
        seed = FIRST_SEED + 1000 * n_frames + i
        scene = sc.make_scene(seed, n_frames / 2, difficulty=difficulty)
        pairs = sampled_pairs(scene)
        kept, following = prefill(*models, pairs, 1.0)
        gone = None if keep is None else drop_random(np.random.default_rng(seed), len(pairs), keep)
        for question in sq.make_questions(
            scene, n_questions, seed, (*sq.KINDS, *NEEDLES, *NEEDLES)
        ):
            said = answer(models[1], kept, following, question.text, gone)
            found[question.kind].append(sq.grade(question, said))
    return found


def table(scores: dict[str, dict[str, list[int]]]) -> str:
    """Return a markdown table of shares right (and how many were asked), kinds as rows."""
    lines = ["| kind | " + " | ".join(scores) + " |", "|---" * (len(scores) + 1) + "|"]
    for kind in sq.KINDS:
        cells = [
            f"{r[kind][0] / r[kind][1]:.2f} ({r[kind][1]})" if r.get(kind) else "-"
            for r in scores.values()
        ]
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def save(out: Path, name: str, found: dict[str, list[bool]]) -> None:
    """Add a run to held_out.json and write the table of all runs beside it."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "held_out.json"
    scores = json.loads(path.read_text()) if path.exists() else {}
    scores[name] = {kind: [int(np.sum(v)), len(v)] for kind, v in found.items()}
    scores = dict(
        sorted(scores.items(), key=lambda run: ("random" in run[0], int(run[0].split()[0])))
    )
    path.write_text(json.dumps(scores, indent=1) + "\n")
    (out / "held_out.md").write_text(table(scores))


def main() -> None:
    """Evaluate the lengths asked for; add them to held_out.json and held_out.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("vit", type=Path)
    parser.add_argument("lm", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--frames", type=int, nargs="*", default=[64, 128, 256, 512])
    parser.add_argument("--drop-frames", type=int, nargs="*", default=[64])
    parser.add_argument("--scenes", type=int, default=8)
    parser.add_argument("--questions", type=int, default=46)
    args = parser.parse_args()
    torch.set_num_threads(1)
    models = load(args.vit, args.lm)
    for n in args.frames:
        scenes = args.scenes if n <= 256 else max(4, args.scenes // 2)
        for level in ("mixed", "hard"):
            found = evaluate(models, n, scenes, args.questions, level)
            save(args.out, f"{n} frames, {level}", found)
    for n in args.drop_frames:
        found = evaluate(models, n, args.scenes, args.questions, "hard", 0.125)
        save(args.out, f"{n} frames, hard, random 0.125", found)


if __name__ == "__main__":
    main()
