"""Put the figures of the run files in benchmarks/ into the README and the pages of docs/.

    python scripts/make_tables.py          write what lies between the markers anew
    python scripts/make_tables.py --check  only say whether it is up to date (exit 1 if not)

A block starts with `<!-- NAME -->`, ends with `<!-- /NAME -->`, and NAME is one of BLOCKS.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from compare_llama_cpp import compare_table, short_table
from measure_profile import profile_table
from measure_tower import tower_table

from retake_edge.bench.look.report import look_table, sure_table
from retake_edge.bench.quality.report import (
    gain_table,
    kind_table,
    loss_table,
    percent,
    pooled,
    quality_table,
    runs_of,
    select,
)
from retake_edge.bench.quality.sure import signal_table
from retake_edge.bench.run_file import read_run_file
from retake_edge.bench.sampling.report import sampling_table
from retake_edge.bench.speed.report import about, goals_table, growth_table, speed_tables
from retake_edge.bench.still import answers_table, cost_table
from retake_edge.bench.tables import origin
from retake_edge.bench.text.report import text_table
from retake_edge.config import CompressionConfig

ROOT = Path(__file__).resolve().parents[1]
PAGES = (
    "README.md",
    "docs/measured.md",
    "docs/policy.md",
    "docs/second-look.md",
    "docs/still.md",
    "docs/evaluation.md",
    "docs/compare.md",
    "docs/profile.md",
    "docs/video.md",
)
KEEPS = (0.25, 0.125)
SPEED_COMMAND = (
    "retake-edge bench speed --shape qwen2.5-vl-3b --layers 2,4 --frames 128,256 "
    "--encode-frames 4 -n 16 -t 2 --out benchmarks/speed.json"
)
SAMPLING_COMMAND = "retake-edge bench sampling -s 20261302 --out benchmarks/sampling.json"
LOOK_COMMAND = (
    "retake-edge bench look -s 20261226 --videos 4 --events 0.25 -t 1 "
    "--out benchmarks/second-look.json"
)
STILL_COMMAND = (
    "retake-edge bench still -s 20261204 --seconds 128 --videos 2 --questions 24 -t 1 "
    "--out benchmarks/still.json"
)
STILL_ANSWERS_COMMAND = (
    "retake-edge bench still -s 20261207 --footage slides,camera --seconds 128 --videos 4 "
    "--questions 32 -t 1 --out benchmarks/still-answers.json"
)
STILL_TIME_COMMAND = (
    "retake-edge bench still -s 20261205 --footage slides,camera,speaker,moving --seconds 128 "
    "--videos 8 --questions 0 -t 1 --out benchmarks/still-time.json"
)
STILL_REAL_COMMAND = (
    "retake-edge bench still --shape qwen2.5-vl-3b --layers 4 -s 20261206 "
    "--footage slides,camera,moving --seconds 56 --videos 1 --questions 0 --long-side 336 -t 1 "
    "--cache-dir shapes --out benchmarks/still-real.json"
)
SURE_COMMAND = (
    "retake-edge bench quality --absent -s 20261211 --policies none,spread --keep-ratio 1,0.125 "
    "--frames 64,128 --questions 192 --threads 1 --out benchmarks/sure.json"
)
GROWTH_COMMAND = (
    "retake-edge bench speed --shape qwen2.5-vl-3b --layers 2,4 --frames 256,512,1024,2048 "
    "--kv-budget 4096 --no-full --cache-types f16 --long-side 224 --encode-frames 4 -n 8 -t 2 "
    "--out benchmarks/speed-length.json"
)


def run_file(name: str) -> dict[str, Any]:
    """Read benchmarks/NAME.json."""
    return read_run_file(ROOT / "benchmarks" / f"{name}.json")


def is_measured(name: str) -> bool:
    """Whether there is a run file of that name."""
    return (ROOT / "benchmarks" / f"{name}.json").is_file()


def source(name: str) -> str:
    """Say which run file a table comes from, and how that was made."""
    document = run_file(name)
    note = f" {document['note']}" if "note" in document else ""
    link = f"[benchmarks/{name}.json](../benchmarks/{name}.json)"
    return f"Run file {link}: {origin(document)}.{note}"


def measured() -> str:
    """The main figures: quality, text and speed."""
    parts = [
        "### Right answers after compression",
        _quality_summary(run_file("quality")),
        source("quality"),
        "### Points lost against the full cache, more questions",
        losses_more(),
        source("quality-losses"),
    ]
    if is_measured("text-needle"):
        parts += [
            "### Facts found again in long text, with a pretrained model",
            text_needle(),
            source("text-needle"),
        ]
    return "\n\n".join([*parts, *_speed(), *_growth()])


def _speed() -> list[str]:
    parts = ["### Time and memory against the full cache"]
    if not is_measured("speed"):
        return [*parts, _not_measured(SPEED_COMMAND)]
    return [*parts, speed_tables(run_file("speed")), source("speed")]


def _growth() -> list[str]:
    parts = ["### One budget, longer and longer videos"]
    if not is_measured("speed-length"):
        return [*parts, _not_measured(GROWTH_COMMAND)]
    document = run_file("speed-length")
    return [*parts, about(document), growth_table(document), source("speed-length")]


def _not_measured(command: str) -> str:
    return f"Not measured yet. `{command}` makes the run file."


def cost() -> str:
    """The goals of compression, and whether they hold."""
    if not is_measured("speed"):
        return _not_measured(SPEED_COMMAND)
    document = run_file("speed")
    return "\n\n".join([about(document), goals_table(document), source("speed")])


def _quality_summary(document: dict[str, Any]) -> str:
    names = ("needle", "when", "all")
    heads = [f"{name}, keep {keep_ratio:g}" for keep_ratio in KEEPS for name in names]
    lines = [f"| policy | {' | '.join(heads)} |", "|---|" + "---|" * len(heads)]
    full = select(document, "none", 1.0)
    shares = [percent(pooled(full, name)) for name in names]
    lines.append(f"| none (full cache) | {' | '.join(shares * len(KEEPS))} |")
    for policy in dict.fromkeys(policy for policy, _ in runs_of(document) if policy != "none"):
        shares = [
            percent(pooled(select(document, policy, keep_ratio), name))
            for keep_ratio in KEEPS
            for name in names
        ]
        lines.append(f"| {policy} | {' | '.join(shares)} |")
    n = pooled(full, "all").n
    lengths = sorted({cell["frames"] for cell in document["cells"]})
    text = (
        f"In %, with the 95 % interval; {n} questions on videos of {lengths[0]} to {lengths[-1]} "
    )
    return (
        "\n".join(lines) + f"\n\n{text}frames, model `tiny`, the same questions for every policy."
    )


def quality() -> str:
    """All policies and keep ratios, pooled over lengths."""
    return quality_table(run_file("quality"))


def losses_more() -> str:
    """What the default and what is nearest to it lose against the full cache."""
    return loss_table(
        run_file("quality-losses"), (CompressionConfig().policy, "coverage", "hybrid")
    )


def kinds() -> str:
    """Right answers of every question kind, for the default policy."""
    return kind_table(run_file("quality"), CompressionConfig().policy)


def events() -> str:
    """How many tokens of a card survive in each layer."""
    document = run_file("quality")
    lowest = min(cell["keep_ratio"] for cell in document["cells"])
    longest = max(cell["frames"] for cell in document["cells"])
    n_layers = len(document["cells"][0]["card_tokens_by_layer"])
    heads = [f"layer {i}" for i in range(n_layers)]
    lines = [
        f"| keep {lowest:g}, {longest} frames | {' | '.join(heads)} |",
        "|---|" + "---|" * n_layers,
    ]
    for cell in document["cells"]:
        if cell["keep_ratio"] == lowest and cell["frames"] == longest:
            pairs = zip(cell["card_tokens_by_layer"], cell["cards_seen_by_layer"], strict=True)
            shown = [f"{tokens:.1f} ({100 * seen:.0f} %)" for tokens, seen in pairs]
            lines.append(f"| {cell['policy']} | {' | '.join(shown)} |")
    return "\n".join(lines)


def text_needle() -> str:
    """Every policy on text."""
    if not is_measured("text-needle"):
        return "There is no run file of this yet: `retake-edge bench text-needle` makes one."
    return text_table(run_file("text-needle"))


def _text(name: str) -> Callable[[], str]:
    """The block of a run of the text benchmark, with its source."""
    return lambda: f"{text_table(run_file(name))}\n\n{source(name)}"


def headline() -> str:
    """The README's one number: short events found with an eighth of the vision tokens."""
    document = run_file("quality")
    policy = CompressionConfig().policy
    shown = {
        name: percent(pooled(select(document, name, keep_ratio), "needle")).split(" ")[0]
        for name, keep_ratio in (
            ("none", 1.0),
            (policy, 0.125),
            ("pivotkv", 0.125),
            ("random", 0.125),
        )
    }
    return (
        f"With an eighth of the vision tokens kept, the default policy (`{policy}`) still answers "
        f"{shown[policy]} % of\nthe questions about one-second events, the full cache "
        f"{shown['none']} %, PivotKV with protected pivots\n{shown['pivotkv']} %, random dropping "
        f"{shown['random']} %: the bundled model on rendered videos "
        "([run file](benchmarks/quality.json))."
    )


def eval_hours() -> str:
    """Planned hours of whole benchmarks, model by model."""
    document = run_file("eval-hours")
    names = {"an hour": "an hour of video", "videomme": "`videomme`", "lvbench": "`lvbench`"}
    lines = [f"| model | {' | '.join(names.values())} |", "|---|" + "---|" * len(names)]
    for row in document["rows"]:
        cells = [_hours(row[name]) for name in names]
        lines.append(f"| `{row['model']}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n\n" + source("eval-hours")


def _hours(value: float | None) -> str:
    if value is None:
        return "does not fit"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _look(name: str) -> Callable[[], str]:
    """What a second look gets back in one run, and its cost."""

    def block() -> str:
        if not is_measured(name):
            return _not_measured(LOOK_COMMAND)
        return f"{look_table(run_file(name))}\n\n{source(name)}"

    return block


def sure() -> str:
    """How well probabilities tell right from wrong."""
    if not is_measured("second-look"):
        return _not_measured(LOOK_COMMAND)
    return sure_table(run_file("second-look"))


def still() -> str:
    """Right answers where still pictures are read once."""
    if not is_measured("still"):
        return _not_measured(STILL_COMMAND)
    return f"{answers_table(run_file('still')['rows'])}\n\n{source('still')}"


def still_answers() -> str:
    """The same, more questions about slides and a camera's view."""
    if not is_measured("still-answers"):
        return _not_measured(STILL_ANSWERS_COMMAND)
    return f"{answers_table(run_file('still-answers')['rows'])}\n\n{source('still-answers')}"


def still_time() -> str:
    """What reading still pictures once saves."""
    if not is_measured("still-time"):
        return _not_measured(STILL_TIME_COMMAND)
    return f"{cost_table(run_file('still-time')['rows'])}\n\n{source('still-time')}"


def still_real() -> str:
    """The same, with widths of a published model."""
    if not is_measured("still-real"):
        return _not_measured(STILL_REAL_COMMAND)
    return f"{cost_table(run_file('still-real')['rows'])}\n\n{source('still-real')}"


def sampling() -> str:
    """Events that sampled frames show, evenly and by change."""
    if not is_measured("sampling"):
        return _not_measured(SAMPLING_COMMAND)
    return f"{sampling_table(run_file('sampling'))}\n\n{source('sampling')}"


def absent() -> str:
    """How well signals of an answer tell what is there from what is not."""
    if not is_measured("sure"):
        return _not_measured(SURE_COMMAND)
    return f"{signal_table(run_file('sure'))}\n\n{source('sure')}"


def dpselect() -> str:
    """DPSelect as a filter, alone and with the default policy."""
    return f"{quality_table(run_file('dpselect'))}\n\n{source('dpselect')}"


def compare() -> str:
    """Both programs on every video."""
    if not is_measured("compare"):
        return _not_measured("python scripts/compare_llama_cpp.py FOLDER")
    document = run_file("compare")
    return f"{compare_table(document)}\n\n{source('compare')}"


def compare_short() -> str:
    """Both programs: one line each for the videos that tell most."""
    return short_table(run_file("compare"))


def profile() -> str:
    """Where the time of a first answer goes."""
    if not is_measured("profile"):
        return _not_measured("python scripts/measure_profile.py FOLDER")
    return f"{profile_table(run_file('profile'))}\n\n{source('profile')}"


def tower() -> str:
    """The vision tower: padded rows, types, batches."""
    if not is_measured("tower"):
        return _not_measured("python scripts/measure_tower.py FOLDER")
    return f"{tower_table(run_file('tower'))}\n\n{source('tower')}"


def _won(name: str, pairs: list[tuple[str, str]]) -> str:
    """Tables of a run of the quality benchmark, and what the first of each pair wins."""
    results = run_file(name)
    return f"{quality_table(results)}\n\n{gain_table(results, pairs)}\n\n{source(name)}"


def _won_by(name: str, ending: str) -> str:
    """The same for policies with -ENDING behind their name against those without."""
    measured = dict.fromkeys(policy for policy, _ in runs_of(run_file(name)))
    with_it = [policy for policy in measured if policy.endswith(f"-{ending}")]
    return _won(name, [(policy, policy.removesuffix(f"-{ending}")) for policy in with_it])


def guided() -> str:
    """Reading for one question against reading for any."""
    return _won_by("guided", "guided")


def guided_pivotkv() -> str:
    """The same with the paper's policy."""
    return _won_by("guided-pivotkv", "guided")


def novelty() -> str:
    """Shares of cells by novelty against even ones."""
    return _won_by("novelty", "novelty")


def distinct_video() -> str:
    """The policy for text on video."""
    return _won("distinct-video", [("distinct", "spread")])


BLOCKS: dict[str, Callable[[], str]] = {
    "headline": headline,
    "measured": measured,
    "quality": quality,
    "losses-more": losses_more,
    "kinds": kinds,
    "cost": cost,
    "events": events,
    "text-needle": text_needle,
    "text-needle-code": _text("text-needle-code"),
    "text-needle-word": _text("text-needle-word"),
    "text-needle-qwen": _text("text-needle-qwen"),
    "distinct-video": distinct_video,
    "eval-hours": eval_hours,
    "second-look": _look("second-look"),
    "second-look-long": _look("second-look-long"),
    "second-look-print": _look("second-look-print"),
    "second-look-print-12": _look("second-look-print-12"),
    "second-look-repeats": _look("second-look-repeats"),
    "second-look-repeats-24": _look("second-look-repeats-24"),
    "second-look-ordinary": _look("second-look-ordinary"),
    "second-look-kept": _look("second-look-kept"),
    "sure": sure,
    "absent": absent,
    "dpselect": dpselect,
    "still": still,
    "still-answers": still_answers,
    "still-time": still_time,
    "still-real": still_real,
    "compare": compare,
    "compare-short": compare_short,
    "profile": profile,
    "tower": tower,
    "sampling": sampling,
    "guided": guided,
    "guided-pivotkv": guided_pivotkv,
    "novelty": novelty,
}


def filled(page: str) -> str:
    """Return a page with every block made anew."""
    for name, block in BLOCKS.items():
        pattern = re.compile(f"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        if pattern.search(page):
            made = block()
            page = pattern.sub(lambda m, made=made: f"{m[1]}\n{made}\n\n{m[2]}", page)  # type: ignore[misc]
    return page


def stale_pages() -> list[Path]:
    """Return the pages whose blocks disagree with the run files."""
    pages = [ROOT / page for page in PAGES]
    return [page for page in pages if filled(page.read_text()) != page.read_text()]


def main() -> None:
    """Write the pages, or check them."""
    stale = stale_pages()
    if "--check" in sys.argv:
        for page in stale:
            print(f"{page.name} disagrees with benchmarks/; run scripts/make_tables.py")
        sys.exit(bool(stale))
    for page in stale:
        page.write_text(filled(page.read_text()))


if __name__ == "__main__":
    main()
