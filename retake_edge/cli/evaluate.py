"""retake-edge eval: a published benchmark, or your own questions, scored."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from retake_edge.cli.help import examples
from retake_edge.cli.jobs_run import first_file, leave, model_facts, opener_of, tell_failures, work
from retake_edge.cli.options import CliRequest, opens_video
from retake_edge.cli.streams import tell
from retake_edge.errors import ConfigError, VideoError

if TYPE_CHECKING:
    from retake_edge.config import RetakeConfig
    from retake_edge.evaluate.jobs import Job
    from retake_edge.evaluate.presets import Named, Preset
    from retake_edge.evaluate.sets import Item

EXAMPLES = examples(
    "eval videomme --data Video-MME",
    'eval mlvu --data MLVU --compare "policy=spread,keep-ratio=0.25; policy=none"',
    "eval questions.jsonl",
)
_MOST_NAMED = 10


@opens_video
def evaluate(
    what: Annotated[
        str,
        typer.Argument(
            metavar="SET|QUESTIONS.jsonl",
            help="videomme, mlvu, lvbench, longvideobench, or a file of your own.",
            show_default=False,
        ),
    ],
    data: Annotated[
        Path | None, typer.Option(help="The folder of the set and its videos.", metavar="DIR")
    ] = None,
    preset: Annotated[
        str,
        typer.Option(help="How to ask and score: retake, lmms-eval, vlmevalkit, plain."),
    ] = "retake",
    limit: Annotated[
        int | None, typer.Option(help="Ask the first N questions.", metavar="N")
    ] = None,
    compare: Annotated[
        str, typer.Option(help="Settings to compare, between semicolons.", metavar="SETTINGS")
    ] = "",
    out: Annotated[
        Path | None,
        typer.Option(help="The run file; its rows stand beside it.  [default: eval-SET.json]"),
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try again what failed before.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the run file instead of a table.")
    ] = False,
    *,
    request: CliRequest,
) -> None:
    """Ask a benchmark's questions and score the answers as its source does.

    Killed or stopped, the same command goes on. Missing videos are listed, and their questions not
    asked; an answer that names no option is wrong, and never guessed.
    """
    from retake_edge.bench.run_file import run_file, write_run_file
    from retake_edge.evaluate import report
    from retake_edge.evaluate.jobs import grouped, run_digest
    from retake_edge.evaluate.rows import RowFile

    name, items, jobs, missing, asked, named = _questions(what, data, preset, limit)
    _tell_missing(missing, bool(jobs))
    configs = _configs(request, asked, compare)
    jobs = [replace(job, key=job.key + _mark(v), variant=v) for job in jobs for v in configs]
    opener, hashes = opener_of(first_file(jobs), request, configs)
    out = out or Path(f"eval-{name}.json")
    shown = {v: values.to_dict() for v, values in configs.items()}
    digest = run_digest(next(iter(configs.values())), hashes, preset=preset, variants=shown)
    with RowFile(out.with_suffix(".rows.jsonl"), digest, drop_failed=retry_failed) as rows:
        work(grouped(jobs, rows.done), rows, opener)
        keys = {job.key for job in jobs}
        mine = [row for row in rows.rows if row["key"] in keys]
    found = report.Evaluated(name, preset, items, missing, named, tuple(configs), mine)
    document = run_file(
        "eval", {"variants": shown}, model_facts(opener, hashes), report.results(found)
    )
    write_run_file(document, out)
    typer.echo(json.dumps(document, indent=1) if as_json else report.tables(document))
    tell(f"run file: {out}")
    leave(tell_failures(mine))


_Questions = tuple[str, "list[Item]", "list[Job]", list[str], "Preset", "Named"]


def _questions(what: str, data: Path | None, preset: str, limit: int | None) -> _Questions:
    """The set's name, its items and jobs, the videos that are missing, and how to ask."""
    if limit is not None and limit < 1:
        raise ConfigError(f"--limit is {limit}, but it must be at least 1.")
    if what.lower().endswith(".jsonl"):
        return _own(Path(what), preset, limit)
    from retake_edge.evaluate import presets
    from retake_edge.evaluate.jobs import Job, digest
    from retake_edge.evaluate.locate import VideoFiles
    from retake_edge.evaluate.sets import SETS, read_set

    if what not in SETS:
        raise ConfigError(
            f"There is no set {what!r}; there are {', '.join(SETS)}, and your own .jsonl files."
        )
    if data is None:
        raise ConfigError(f"{what} needs its folder; give it with --data.")
    asked = presets.preset(preset, what)
    items = read_set(what, data)[:limit]
    files = VideoFiles(data)
    missing = files.missing(item.video for item in items)
    found = [(item, files.find(item.video)) for item in items]
    jobs = [
        Job(
            key=digest([what, item.id]),
            id=item.id,
            video=item.video,
            file=file,
            prompt=asked.prompt(item),
            question=item.question,
            options=item.options,
            answer=item.answer,
        )
        for item, file in found
        if file is not None
    ]
    return what, [item for item, file in found if file], jobs, missing, asked, asked.named


def _own(path: Path, preset: str, limit: int | None) -> _Questions:
    from retake_edge.evaluate import own, presets
    from retake_edge.evaluate.jobs import read_jobs

    asked = presets.preset(preset, "questions")
    jobs = read_jobs(path)[:limit]
    missing = list(dict.fromkeys(job.video for job in jobs if not job.file.is_file()))
    jobs = [job for job in jobs if job.video not in missing]
    items = [own.item_of(job) for job in jobs]
    worded = [
        replace(job, id=job.key, prompt=asked.prompt(item) if job.options else job.question)
        for job, item in zip(jobs, items, strict=True)
    ]
    return path.stem, items, worded, missing, asked, own.named


def _configs(request: CliRequest, asked: Preset, compare: str) -> Mapping[str, RetakeConfig]:
    """The settings of every variant; the preset's own where the command line has none."""
    from retake_edge.config import with_values
    from retake_edge.evaluate.variants import variants

    own: dict[str, dict[str, Any]] = {}
    if "generation.max_tokens" not in request.given:
        own["generation"] = {"max_tokens": asked.max_tokens}
    if asked.system and "prompt.system" not in request.given:
        own["prompt"] = {"system": asked.system}
    config = with_values(request.config, **own)
    return variants(compare, config) if compare else {"": config}


def _mark(variant: str) -> str:
    from retake_edge.evaluate.jobs import digest

    return f".{digest(variant)[:6]}" if variant else ""


def _tell_missing(missing: list[str], is_any_there: bool) -> None:
    if not is_any_there:
        raise VideoError(
            f"None of the {len(missing)} videos is there; put them below the folder of --data."
        )
    for video in missing[:_MOST_NAMED]:
        tell(f"missing: {video}")
    if len(missing) > _MOST_NAMED:
        tell(f"missing: {len(missing) - _MOST_NAMED} more; the run file names them")
