"""retake-edge bench: quality and speed on this machine."""

from __future__ import annotations

import typer

from retake_edge.cli.benchmarks.look import look
from retake_edge.cli.benchmarks.quality import quality
from retake_edge.cli.benchmarks.sampling import sampling
from retake_edge.cli.benchmarks.shared import BenchCommand
from retake_edge.cli.benchmarks.speed import speed
from retake_edge.cli.benchmarks.still import still
from retake_edge.cli.benchmarks.text_needle import text_needle

app = typer.Typer(no_args_is_help=True, help="Measure quality and speed on this machine.")
for command in (quality, text_needle, speed, look, still, sampling):
    app.command(cls=BenchCommand)(command)
