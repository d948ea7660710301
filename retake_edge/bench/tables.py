"""Tables of a run file, for the terminal and for the README: made from the file alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from retake_edge.bench.look.report import look_table, sure_table
from retake_edge.bench.quality.report import length_table, quality_table
from retake_edge.bench.quality.sure import signal_table
from retake_edge.bench.sampling.report import sampling_table
from retake_edge.bench.speed.report import speed_tables
from retake_edge.bench.still import still_tables
from retake_edge.bench.text.report import text_table
from retake_edge.errors import ConfigError


def run_tables(document: dict[str, Any]) -> str:
    """Return a run file's tables as Markdown, with a line that says how they were made.

    Raises:
        ConfigError: it is no run file that this version knows.
    """
    tables = _TABLES.get(str(document.get("what")))
    if tables is None:
        raise ConfigError(f"This is no run file of {', '.join(_TABLES)}.")
    return f"{tables(document)}\n\n{origin(document)}"


def origin(document: dict[str, Any]) -> str:
    """Return one line: command, machine, versions, date."""
    machine, versions = document["machine"], document["versions"]
    commit = f", commit {versions['commit']}" if "commit" in versions else ""
    return (
        f"`{document['command']}` on {machine['cpu']} ({machine['n_cores']} cores), "
        f"retake-edge {versions['retake_edge']}{commit}, {document['date']}"
    )


def _quality_tables(document: dict[str, Any]) -> str:
    lowest = min(cell["keep_ratio"] for cell in document["cells"])
    parts = [quality_table(document)]
    parts += [length_table(document, name, lowest) for name in ("needle", "when")]
    parts += [table] if (table := signal_table(document)) else []
    seconds = document["seconds"]
    parts.append(", ".join(f"{stage} {passed:.0f} s" for stage, passed in seconds.items()))
    return "\n\n".join(parts)


_TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "quality": _quality_tables,
    "text-needle": text_table,
    "speed": speed_tables,
    "still": still_tables,
    "sampling": sampling_table,
    "look": lambda document: f"{look_table(document)}\n\n{sure_table(document)}",
}
