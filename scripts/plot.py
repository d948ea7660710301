"""Draw a run file of `bench quality` or `eval` with matplotlib (extra `dev`).

    python scripts/plot.py benchmarks/quality.json docs/images/quality.svg
    python scripts/plot.py eval-mlvu.json scores.svg

A run of `bench quality` is four pictures: FILE (all questions), FILE-needle, FILE-when, FILE-depth;
one of `eval` is its scores by group. FILE's ending is any that matplotlib writes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retake_edge.bench.quality.report import GROUP_NAMES, N_DEPTHS, pooled, runs_of, select
from retake_edge.bench.run_file import read_run_file
from retake_edge.bench.stats import Share
from retake_edge.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Document = dict[str, Any]
Picture = tuple[str, "Figure"]


def quality_pictures(document: Document) -> list[Picture]:
    """Return the quality benchmark's pictures, each with the ending of its name."""
    names = {"all": "", "needle": "-needle", "when": "-when"}
    pictures = [(ending, accuracy(document, name)) for name, ending in names.items()]
    return [*pictures, ("-depth", depth(document, min(c["keep_ratio"] for c in document["cells"])))]


def accuracy(document: Document, name: str) -> Figure:
    """Draw the right answers of a group ('all': every question) against the keep ratio."""
    lines: dict[str, list[tuple[float, Share]]] = {}
    full = (1.0, pooled(select(document, "none", 1.0), name))
    for policy, keep_ratio in runs_of(document):
        if policy != "none":
            counted = pooled(select(document, policy, keep_ratio), name)
            lines.setdefault(policy, [full]).append((keep_ratio, counted))
    figure, axes = new_figure(9, 5)
    drawn = sorted((lines or {"none": [full]}).items(), key=lambda line: -line[1][-1][1].value)
    for i, (policy, points) in enumerate(drawn):
        # Bars of lines that lie on each other stand a little beside each other.
        xs = np.array([keep_ratio for keep_ratio, _ in points]) * 1.008 ** (i - len(drawn) / 2)
        values = 100 * np.array([share.value for _, share in points])
        ends = 100 * np.array([share.interval() for _, share in points])
        bars = [np.maximum(values - ends[:, 0], 0), np.maximum(ends[:, 1] - values, 0)]
        style = f"C{i % 10}{'-' if i < 10 else '--'}o"
        axes.errorbar(xs, values, bars, fmt=style, label=policy, markersize=4, elinewidth=1)
    keep_ratios = sorted(
        {keep_ratio for points in lines.values() for keep_ratio, _ in points} or {1.0}
    )
    axes.set_xscale("log", base=2)
    axes.set_xticks(keep_ratios, [f"{keep_ratio:g}" for keep_ratio in keep_ratios])
    axes.invert_xaxis()
    axes.set_xlabel("share of the video's tokens kept")
    axes.set_title(f"Right answers in %, {name if name in GROUP_NAMES else 'all questions'}")
    axes.grid(axis="y", alpha=0.4)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    return figure


def depth(document: Document, keep_ratio: float) -> Figure:
    """Draw the needles found under every policy by their place in the video."""
    rows = [policy for policy, ratio in runs_of(document) if ratio in (keep_ratio, 1.0)]
    cells = [select(document, p, r) for p, r in runs_of(document) if r in (keep_ratio, 1.0)]
    counts = np.array([np.sum([c["needle_depth"] for c in of], axis=0) for of in cells], float)
    with np.errstate(invalid="ignore"):
        shares = counts[..., 0] / counts[..., 1]  # NaN where there was no needle
    columns = [f"{100 * i // N_DEPTHS}-{100 * (i + 1) // N_DEPTHS} %" for i in range(N_DEPTHS)]
    title = f"Needles found in % by depth in the video, keep {keep_ratio:g}"
    return heat_map(title, rows, columns, shares)


def eval_pictures(document: Document) -> list[Picture]:
    """Return every variant's score over all questions and by group."""
    variants = document["variants"]
    kind, groups = next(iter(variants[0]["groups"].items()), ("", []))
    columns = ["all", *(score["name"] for score in groups)]
    values = np.full((len(variants), len(columns)), np.nan)
    for row, variant in zip(values, variants, strict=True):
        scores = {score["name"]: score for score in variant["groups"].get(kind, [])}
        for j, score in enumerate([variant["score"], *map(scores.get, columns[1:])]):
            row[j] = np.nan if score is None else score["value"]
    names = [variant["name"] or document["preset"] for variant in variants]
    title = f"{document['set']}: right answers in %, by {kind}"
    return [("", heat_map(title, names, columns, values))]


def heat_map(title: str, rows: Sequence[str], columns: Sequence[str], values: np.ndarray) -> Figure:
    """Draw shares [rows, columns] in [0, 1]; NaN stays empty."""
    figure, axes = new_figure(2 + 0.9 * len(columns), 1.2 + 0.4 * len(rows))
    axes.imshow(values, cmap="RdYlBu", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    for (i, j), value in np.ndenumerate(values):
        if not np.isnan(value):
            ink = "white" if value < 0.2 or value > 0.85 else "black"
            axes.text(j, i, f"{100 * value:.0f}", ha="center", va="center", color=ink)
    axes.spines[:].set_visible(False)
    axes.set_title(title)
    return figure


def new_figure(width: float, height: float) -> tuple[Figure, Any]:
    """Return a figure of a size in inches, and its axes."""
    from matplotlib.figure import Figure

    figure = Figure((width, height), layout="constrained")
    return figure, figure.subplots()


PICTURES: dict[str, Callable[[Document], list[Picture]]] = {
    "quality": quality_pictures,
    "eval": eval_pictures,
}


def main(argv: Sequence[str] | None = None) -> str | None:
    """Draw the run file that the command line names; return what is wrong."""
    parser = argparse.ArgumentParser(description="Draw a run file of `bench quality` or `eval`.")
    parser.add_argument("run_file", type=Path)
    parser.add_argument("picture", type=Path)
    arguments = parser.parse_args(argv)
    try:
        import matplotlib
    except ImportError:
        return "plot.py needs matplotlib: pip install -e '.[dev]'"
    # Text stays text, and the same figures give the same file.
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "retake-edge"})
    try:
        document = read_run_file(arguments.run_file)
        pictures = PICTURES[document["what"]](document)
    except (ConfigError, KeyError, TypeError):
        return f"{arguments.run_file} is no run file of `bench quality` or `eval`."
    file: Path = arguments.picture
    try:
        for ending, figure in pictures:
            metadata = {"Date": None} if file.suffix == ".svg" else None
            figure.savefig(file.with_name(f"{file.stem}{ending}{file.suffix}"), metadata=metadata)
    except (OSError, ValueError) as error:
        return f"{file} cannot be written: {error}"
    return None


if __name__ == "__main__":
    sys.exit(main())
