"""retake-edge run: many questions about many videos, a row for each."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from retake_edge.cli.help import HelpfulCommand, examples
from retake_edge.cli.jobs_run import first_file, leave, opener_of, tell_failures, work
from retake_edge.cli.options import CliRequest, opens_video
from retake_edge.cli.streams import tell

if TYPE_CHECKING:
    from retake_edge.evaluate.jobs import Job

EXAMPLES = examples(
    "run jobs.jsonl --out answers.jsonl",
    "run jobs.jsonl --out answers-1.jsonl --shard 1/4",
    "run jobs.jsonl --out answers.jsonl --ray",
)
_ADDRESS = r"auto|local|\S+:\d+"


class RunCommand(HelpfulCommand):
    """`run`, whose --ray may stand without an address."""

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """Read the words after the command."""
        if "--ray" in args:
            at = args.index("--ray")
            if not re.fullmatch(_ADDRESS, "".join(args[at + 1 : at + 2])):
                args = [*args[:at], "--ray=local", *args[at + 1 :]]
        return super().parse_args(ctx, args)


@opens_video
def run(
    jobs: Annotated[
        Path,
        typer.Argument(
            metavar="JOBS.jsonl", help="A job a line: video, question.", show_default=False
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="Where the answers go, a row each.", metavar="ANSWERS.jsonl")
    ],
    shard: Annotated[str, typer.Option(help="Do part i of n, by video.", metavar="I/N")] = "1/1",
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try again what failed before.")
    ] = False,
    ray: Annotated[
        str | None,
        typer.Option(
            help="Spread over a Ray cluster; without an address over one of this machine alone.",
            metavar="[ADDRESS]",
        ),
    ] = None,
    *,
    request: CliRequest,
) -> None:
    """Answer a file of questions; each video is read once for all of its questions.

    A line of JOBS.jsonl is {"video": ..., "question": ...}; id, options, answer, start and end may
    stand beside them. Killed or stopped, the same command goes on: rows in ANSWERS.jsonl stay, and
    only the others are asked. A video that cannot be read gives rows that say why.
    """
    from retake_edge.evaluate import jobs as work_list
    from retake_edge.evaluate.rows import RowFile

    wanted = work_list.shard([_worded(job) for job in work_list.read_jobs(jobs)], shard)
    if not wanted:
        tell(f"shard {shard} has no video")
        return
    opener, hashes = opener_of(first_file(wanted), request, {"": request.config})
    digest = work_list.run_digest(request.config, hashes)
    with RowFile(out, digest, drop_failed=retry_failed) as rows:
        groups = work_list.grouped(wanted, rows.done)
        if ray is None:
            work(groups, rows, opener)
        else:
            from retake_edge.cli.progress import shown_progress
            from retake_edge.evaluate.cluster import run_on_cluster

            with shown_progress(stage="asking") as progress:
                run_on_cluster(
                    groups, rows, opener, address=ray, progress=progress, on_note=progress.say
                )
        keys = {job.key for job in wanted}
        mine = [row for row in rows.rows if row["key"] in keys]
        tell(f"{len(mine)} rows in {out}")
        code = tell_failures(mine)
    leave(code)


def _worded(job: Job) -> Job:
    """A job with options is asked as the benchmarks ask."""
    if not job.options:
        return job
    from retake_edge.evaluate.own import item_of
    from retake_edge.evaluate.presets import preset

    return replace(job, prompt=preset("retake", "questions").prompt(item_of(job)))
