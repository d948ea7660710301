"""Run files: a benchmark's figures together with all that is needed to obtain them again."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from retake_edge.errors import ConfigError
from retake_edge.files import write_atomically
from retake_edge.llama import library
from retake_edge.version import __version__

FORMAT = 1
_OLD_NAMES = {"keep": "keep_ratio", "keeps": "keep_ratios"}
"""In settings and cells of the version before: still read, never written."""


def run_file(
    what: str, settings: dict[str, Any], model: dict[str, Any], results: dict[str, Any]
) -> dict[str, Any]:
    """Return the document of one run: what, when, on which machine, from which versions."""
    return {
        "format": FORMAT,
        "what": what,
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "command": command_line(sys.argv),
        "machine": machine(),
        "versions": versions(),
        "settings": settings,
        "model": model,
        **results,
    }


def command_line(argv: Sequence[str]) -> str:
    """Return the command as anyone would type it: folders of this machine are left out."""
    words = ["retake-edge", *(Path(word).name if os.sep in word else word for word in argv[1:])]
    return " ".join(f"'{word}'" if " " in word else word for word in words)


def machine() -> dict[str, Any]:
    """Return what the figures depend on: processor, cores, memory, system."""
    return {
        "cpu": _cpu_name(),
        "n_cores": os.cpu_count(),
        "memory_gib": _memory_gib(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def versions() -> dict[str, str]:
    """Return the versions of everything that computes, and the commit of a checkout."""
    found = {"retake_edge": __version__, "python": platform.python_version()}
    found["llama.cpp"] = library.origin()
    for package in ("numpy", "av", "opencv-python-headless"):
        found[package] = importlib.metadata.version(package)
    commit = _commit()
    return found | ({"commit": commit} if commit else {})


def write_run_file(document: dict[str, Any], path: Path) -> None:
    """Write a run file whole or not at all.

    Raises:
        ConfigError: the folder does not exist or cannot be written.
    """
    try:
        write_atomically(path, layout(document).encode())
    except OSError as error:
        raise ConfigError(f"Cannot write {path} ({error.strerror}); choose another file.") from None


def read_run_file(path: Path) -> dict[str, Any]:
    """Return a run file's document, also one that the version before wrote.

    Raises:
        ConfigError: it is no run file.
    """
    try:
        document: dict[str, Any] = {**json.loads(path.read_text(encoding="utf-8"))}
        if "settings" in document:
            document["settings"] = _renamed(document["settings"])
        if "cells" in document:
            document["cells"] = [_renamed(cell) for cell in document["cells"]]
        return document
    except (OSError, ValueError, AttributeError, TypeError):
        raise ConfigError(f"Cannot read {path} as a run file; choose another file.") from None


def _renamed(values: dict[str, Any]) -> dict[str, Any]:
    return {_OLD_NAMES.get(name, name): value for name, value in values.items()}


def earlier_run(path: Path, document: dict[str, Any]) -> dict[str, Any] | None:
    """Return the run file at `path` that was made as `document` is; None if there is none.

    Raises:
        ConfigError: its settings, model, machine or versions are others.
    """
    if not path.exists():
        return None
    earlier = read_run_file(path)
    same = json.loads(json.dumps(document))
    for key in ("what", "settings", "model", "machine", "versions"):
        if earlier.get(key) != same[key]:
            raise ConfigError(
                f"{path} was made with other {key}, so its runs cannot stand beside new ones; "
                "choose another file, or leave out --continue."
            )
    return {key: value for key, value in earlier.items() if key not in same}


def layout(document: dict[str, Any]) -> str:
    """Return a run file's text: a line for each entry, and for each item of a list in it."""
    lines = []
    for key, value in document.items():
        shown = json.dumps(value)
        if isinstance(value, list) and value:
            shown = "[\n  " + ",\n  ".join(json.dumps(item) for item in value) + "\n ]"
        lines.append(f" {json.dumps(key)}: {shown}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return None
    return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)


def _commit() -> str | None:
    """The checkout's commit, '+' if files other than run files differ; None outside a checkout."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    try:
        commit, changes = (
            subprocess.run(
                ["git", *arguments],
                cwd=root,
                capture_output=True,
                text=True,
                check=True,
                timeout=20,
            ).stdout.strip()
            for arguments in (
                ["rev-parse", "--short=12", "HEAD"],
                ["status", "--porcelain", "--", ".", ":!benchmarks"],
            )
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+" if changes else "")
