"""retake-edge models: which models there are, downloaded or to be had."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from retake_edge.catalog import ModelEntry


def models(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """List the models: the bundled one, those with a name, and what else is in the caches.

    The network is not used. Memory is an estimate: the weights, and 32,000 KV cells in f16.
    """
    from retake_edge.catalog import catalog

    entries = catalog()
    if as_json:
        typer.echo(json.dumps([asdict(entry) for entry in entries], indent=2))
        return
    for entry in entries:
        typer.echo(_lines(entry))


def _lines(entry: ModelEntry) -> str:
    option = "-hf" if entry.source == "cache" else "-m"
    lines = [f"{option} {entry.name}", *_facts(entry)]
    return "\n    ".join(line for line in lines if line)


def _facts(entry: ModelEntry) -> list[str]:
    size = "" if entry.n_bytes is None else f"{entry.n_bytes / 1e9:.2g} GB"
    if not entry.is_downloaded:
        return [
            entry.description,
            f"not downloaded: retake-edge pull {entry.name}  {size}".rstrip(),
        ]
    here = f"{size} here"
    if entry.memory_bytes is not None:
        here += f", about {entry.memory_bytes / 1e9:.2g} GB of memory"
    return [entry.description, entry.hub if entry.source == "hub" else "", here, entry.compression]
