"""The models as a table for people: what each takes of this machine, and which one is recommended.

model            download    memory   an hour of video
qwen3-vl-8b        5.8 GB    9.4 GB         4 h 10 min   too large
smolvlm2-2.2b      1.7 GB    3.5 GB             12 min   recommended
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from retake_edge.catalog.catalog import ModelEntry, free_disk_bytes
from retake_edge.formats import duration

_HEAD = ("model", "download", "memory", "an hour of video")
_WIDTHS = (10, 9, 18)
_NAME_COLUMNS = 16
_UNKNOWN = "?"


def table_lines(entries: Sequence[ModelEntry]) -> list[str]:
    """Return the table; a name that is too long for its column gets a line of its own."""
    lines = [_line(_HEAD[0], _HEAD[1:])]
    for entry in entries:
        figures = _gigabytes(entry.n_bytes), _gigabytes(entry.memory_bytes), _hour(entry)
        if len(entry.name) > _NAME_COLUMNS:
            lines.append(entry.name)
        lines.append(_line("" if len(entry.name) > _NAME_COLUMNS else entry.name, figures, entry))
    return lines


def _line(name: str, figures: Sequence[str], entry: ModelEntry | None = None) -> str:
    cells = [figure.rjust(width) for figure, width in zip(figures, _WIDTHS, strict=True)]
    line = f"{name:<{_NAME_COLUMNS}}{''.join(cells)}"
    return f"{line}   {_notes(entry)}".rstrip() if entry else line


def _notes(entry: ModelEntry) -> str:
    notes = [
        "recommended" if entry.is_recommended else "",
        "too large" if entry.fits is False and entry.memory_bytes else "",
        "downloaded" if entry.is_downloaded and entry.source != "bundled" else "",
        "demo scenes only" if entry.source == "bundled" else "",
        "cannot be read" if entry.is_downloaded and entry.memory_bytes is None else "",
    ]
    return ", ".join(note for note in notes if note)


def _hour(entry: ModelEntry) -> str:
    return _UNKNOWN if entry.hour_s is None else duration(max(1.0, entry.hour_s))


def _gigabytes(n_bytes: int | None) -> str:
    return _UNKNOWN if n_bytes is None else f"{max(0.1, n_bytes / 1e9):.1f} GB"


def machine_line() -> str:
    """Return what of this machine the table was made for."""
    from retake_edge.catalog.needs import free_memory
    from retake_edge.llama.devices import devices

    free = free_memory()
    gpus = [device for device in devices() if device.is_gpu]
    parts = [f"{_gigabytes(free[''])} of memory free"] if "" in free else []
    parts += [f"{gpu.description} with {_gigabytes(gpu.free_bytes)} free" for gpu in gpus]
    parts += [] if gpus else [f"{os.cpu_count()} processors, no GPU"]
    return f"This machine: {', '.join(parts)}; {_gigabytes(free_disk_bytes())} of disk free."


def next_step(entries: Sequence[ModelEntry]) -> str:
    """Return the line to type that gets the recommended model, or uses it; or why there is none."""
    best = next((entry for entry in entries if entry.is_recommended), None)
    if best is None:
        return "None of them fits into what is free; end other programs, and look again."
    if best.is_downloaded:
        return f"retake-edge ask VIDEO QUESTION -m {best.name}"
    return f"retake-edge pull {best.name}"
