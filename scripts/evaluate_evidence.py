"""Measure how often an answer's evidence contains the moment that it is about; write a run file.

    python scripts/evaluate_evidence.py benchmarks/evidence-tiny.json

Synthetic scenes with number cards are written as video files, indexed and asked about. A span is on
a card if they share at least half of the shorter one's time: a long card may be read off one of
its frames, and a span that only touches a card does not count. Chance: the share of all places on
the video at which a span of that length would do the same. The last line on stdout is the result
as one JSON document.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from retake_edge.bench.run_file import command_line, run_file, write_run_file
from retake_edge.bench.scenes.questions import Question, grade, make_questions
from retake_edge.bench.scenes.render import write_video
from retake_edge.bench.scenes.scene import Card, Scene, make_scene
from retake_edge.bench.stats import share
from retake_edge.config import CompressionConfig, GenerationConfig, RetakeConfig, RuntimeConfig
from retake_edge.files import file_sha256
from retake_edge.models.manifest import ModelFiles, ModelManifest
from retake_edge.models.resolve import resolve_model
from retake_edge.session.evidence import Span
from retake_edge.session.open import open_video

NEEDLES = ("number", "number_at", "first_card", "last_card", "when_card")
"""Kinds of questions about one card."""


@dataclass(frozen=True)
class Outcome:
    """What became of one question about one card."""

    kind: str
    is_right: bool
    is_hit: bool
    is_among_spans: bool
    peak_is_on_card: bool
    n_spans: int
    n_wrong_extra: int
    chance: float
    length_s: float


def is_on(start_s: float, end_s: float, card: Card) -> bool:
    """Return whether a stretch of time shares at least half of its own or of a card's time."""
    shared = min(end_s, card.end_s) - max(start_s, card.start_s)
    return shared >= 0.5 * min(end_s - start_s, card.end_s - card.start_s) - 1e-6


def chance(span: Span, card: Card, duration_s: float) -> float:
    """Return the share of places (a tenth of a second apart) where a span so long is on a card."""
    length = span.end_s - span.start_s
    starts = np.arange(0.0, max(duration_s - length, 0.0) + 1e-6, 0.1)
    return float(np.mean([is_on(start, start + length, card) for start in starts]))


def asked_about(scene: Scene, question: Question) -> Card:
    """Return the card that a question is about."""
    return next(card for card in scene.cards if card.start_s == question.time_s)


def outcomes(
    scene: Scene, config: RetakeConfig, model: ModelFiles | ModelManifest, n_questions: int
) -> Iterator[Outcome]:
    """Index a scene's video and yield the outcome of each question."""
    with tempfile.TemporaryDirectory() as folder:
        video = write_video(scene, Path(folder) / "scene.mp4", fps=4)
        session = open_video(video, model, config, use_cache=False)
    with session:
        for question in make_questions(scene, n_questions, scene.seed, NEEDLES):
            answer = session.ask(question.text)
            card, spans = asked_about(scene, question), answer.evidence
            top = spans[0] if spans else None
            assert session.frame_weights is not None
            peak_s = session.video_map.frame_times_s[session.frame_weights.argmax()]
            yield Outcome(
                kind=question.kind,
                is_right=grade(question, answer.text),
                is_hit=top is not None and is_on(top.start_s, top.end_s, card),
                is_among_spans=any(is_on(s.start_s, s.end_s, card) for s in spans),
                peak_is_on_card=card.start_s - 1e-6 <= peak_s < card.end_s,
                n_spans=len(spans),
                n_wrong_extra=sum(not is_on(s.start_s, s.end_s, card) for s in spans[1:]),
                chance=chance(top, card, scene.seconds) if top else 0.0,
                length_s=top.end_s - top.start_s if top else 0.0,
            )


def summary(found: list[Outcome]) -> dict[str, Any]:
    """Return shares with 95 % intervals, and the mean chance, of some questions."""
    return {
        "right_answers": share(o.is_right for o in found).to_dict(),
        "top_span_on_needle": share(o.is_hit for o in found).to_dict(),
        "any_span_on_needle": share(o.is_among_spans for o in found).to_dict(),
        "peak_on_needle": share(o.peak_is_on_card for o in found).to_dict(),
        "spans": sum(o.n_spans for o in found),
        "wrong_extra_spans": sum(o.n_wrong_extra for o in found),
        "chance_of_top_span": round(statistics.fmean(o.chance for o in found), 4),
        "median_top_span_s": statistics.median(o.length_s for o in found),
    }


def results(found: list[Outcome]) -> dict[str, Any]:
    """Return the summary of all questions, of those answered rightly, and of each kind."""
    groups = {"all": found, "answered_right": [o for o in found if o.is_right]}
    groups |= {kind: [o for o in found if o.kind == kind] for kind in NEEDLES}
    return {"results": {name: summary(group) for name, group in groups.items() if group}}


def arguments() -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("output", type=Path, help="the run file to write")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--scenes", type=int, default=30)
    parser.add_argument("--questions", type=int, default=10, help="a scene")
    parser.add_argument("--first-seed", type=int, default=9_700_000)
    parser.add_argument("--seconds", type=float, default=64.0)
    parser.add_argument("--difficulty", default="mixed")
    parser.add_argument("--keep-ratio", type=float, default=0.25)
    parser.add_argument("--policy", default=CompressionConfig().policy)
    parser.add_argument("--threads", type=int, default=None)
    return parser.parse_args()


def main() -> None:
    """Run the evaluation."""
    options = arguments()
    config = RetakeConfig(
        compression=CompressionConfig(policy=options.policy, keep_ratio=options.keep_ratio),
        runtime=RuntimeConfig(n_threads=options.threads),
        generation=GenerationConfig(max_tokens=8),
    )
    model = resolve_model(options.model)
    facts = {
        "name": options.model,
        "model_sha256": file_sha256(model.model),
        "mmproj_sha256": file_sha256(model.mmproj),
    }
    found: list[Outcome] = []
    for i in range(options.scenes):
        scene = make_scene(
            options.first_seed + i, options.seconds, difficulty=options.difficulty, n_cards=4
        )
        found += outcomes(scene, config, model, options.questions)
        hits, right = (share(getattr(o, name) for o in found) for name in ("is_hit", "is_right"))
        print(
            f"{i + 1} of {options.scenes} scenes: top span on the needle {hits.value:.2f}, "
            f"right answers {right.value:.2f}",
            file=sys.stderr,
        )
    chosen = {key: value for key, value in vars(options).items() if key != "output"}
    document = run_file("evidence", chosen | {"config": config.to_dict()}, facts, results(found))
    document["command"] = command_line(sys.argv).replace(
        "retake-edge", "python scripts/evaluate_evidence.py", 1
    )
    write_run_file(document, options.output)
    print(json.dumps(document["results"]))


if __name__ == "__main__":
    main()
