"""Tables of a run file, for the terminal and for the README: made from the file alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from retake_edge.bench.quality_report import length_table, quality_table
from retake_edge.bench.text_report import text_table
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
    lowest = min(cell["keep"] for cell in document["cells"])
    parts = [quality_table(document)]
    parts += [length_table(document, name, lowest) for name in ("needle", "when")]
    seconds = document["seconds"]
    parts.append(", ".join(f"{stage} {passed:.0f} s" for stage, passed in seconds.items()))
    return "\n\n".join(parts)


def _speed_tables(document: dict[str, Any]) -> str:
    model = document["model"]
    parts = [
        f"{model['name']}" + (f", cut to {model['layers']} layers" if model.get("is_cut") else "")
    ]
    return "\n\n".join(parts + [speed_table(length) for length in document["lengths"]])


def speed_table(length: dict[str, Any]) -> str:
    """Return a Markdown table of one length: a row a figure, a column a setting."""
    video, runs, compared = length["video"], length["runs"], length["ratios"]
    names = list(runs)
    n_tokens = runs[names[0]]["n_tokens"]
    lines = [
        f"| {video['n_frames']} frames, {n_tokens} tokens | {' | '.join(names)} |",
        "|---|" + "---|" * len(names),
    ]
    for label, show in _SPEED_ROWS.items():
        lines.append(f"| {label} | {' | '.join(show(runs[name]) for name in names)} |")
    for label in next(iter(compared.values()), {}):
        values = [f"{compared[name][label]:.3g}" if name in compared else "1" for name in names]
        lines.append(f"| ratio: {label} | {' | '.join(values)} |")
    per_frame = f"decode {1000 * video['decode_s_per_frame']:.1f} ms, "
    per_frame += f"encode {1000 * video['encode_s_per_frame']:.0f} ms a frame, the same for all"
    return "\n".join([*lines, "", f"Video: {per_frame}."])


def _mib(n_bytes: float) -> str:
    return f"{n_bytes / 2**20:.1f} MiB"


_SPEED_ROWS: dict[str, Callable[[dict[str, Any]], str]] = {
    "prefill": lambda f: f"{f['seconds']['prefill']:.2f} s",
    "prefill tokens/s": lambda f: f"{f['n_tokens'] / f['seconds']['prefill']:.0f}",
    "last chunk's prefill": lambda f: f"{f['chunk_s'][-1]:.2f} s",
    "scoring and values": lambda f: f"{f['seconds']['score']:.2f} s",
    "selection": lambda f: f"{f['seconds']['select']:.2f} s",
    "compaction": lambda f: f"{f['seconds']['compact']:.2f} s",
    "first token": lambda f: f"{f['first_token_s']:.2f} s",
    "decode tokens/s": lambda f: f"{f['decode_tokens_per_s']:.2f}",
    "KV cells used": lambda f: f"{f['n_cells']}",
    "KV used": lambda f: _mib(f["kv_bytes"]),
    "KV allocated": lambda f: _mib(f["kv_allocated_bytes"]),
    "peak resident memory": lambda f: _mib(f["peak_memory_bytes"]),
    "device memory": lambda f: (
        _mib(f["device_memory_bytes"]) if "device_memory_bytes" in f else "not recorded"
    ),
}

_TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "quality": _quality_tables,
    "text-needle": text_table,
    "speed": _speed_tables,
}
