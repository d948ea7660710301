"""retake-edge models: which models there are, downloaded or to be had."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from retake_edge.cli.streams import tell

if TYPE_CHECKING:
    from retake_edge.catalog.catalog import ModelEntry


def models(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    details: Annotated[
        bool, typer.Option("--details", help="Also tell what each model is, and where it lies.")
    ] = False,
) -> None:
    """Compare the models on this machine: download, memory, and how long an hour of video takes.

    The best come first, and one is recommended: the best that fits and reads an hour of video
    within an hour, or else the quickest. The first time, this machine's speed is measured. The
    network is not used.
    """
    from retake_edge.catalog.catalog import catalog
    from retake_edge.catalog.table import machine_line, next_step, table_lines
    from retake_edge.cli.progress import shown_progress

    with shown_progress() as progress:
        entries = catalog(progress)
    if as_json:
        typer.echo(json.dumps([asdict(entry) for entry in entries], indent=2))
        return
    typer.echo("\n".join(table_lines(entries)))
    if details:
        typer.echo()
        for entry in entries:
            typer.echo(_details(entry))
    tell(f"\n{machine_line()}\n{next_step(entries)}")


def _details(entry: ModelEntry) -> str:
    lines = [
        entry.name,
        entry.description,
        entry.hub if entry.hub != entry.name else "",
        *entry.files,
        entry.compression,
    ]
    return "\n    ".join(line for line in lines if line)
