"""retake-edge doctor: is everything there that an answer needs, and what to do if not"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from retake_edge.cli.options import CacheDir

if TYPE_CHECKING:
    from retake_edge.doctor.checks import Check

_INDENT = 20


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    cache_dir: CacheDir = None,
) -> None:
    """Check the installation, and ask the bundled model two questions.

    The exit code is 0 if questions can be answered, else that of the first error.
    """
    from retake_edge.doctor.diagnose import diagnose, exit_code

    checks = []
    for check in diagnose(cache_dir):
        checks.append(check)
        if not as_json:
            typer.echo(_lines(check))
    code = exit_code(checks)
    if as_json:
        document = {"exit_code": code, "checks": [asdict(check) for check in checks]}
        typer.echo(json.dumps(document, indent=2))
    raise typer.Exit(code)


def _lines(check: Check) -> str:
    lines = [f"{check.status:<8} {check.name:<10} {check.text}"]
    lines += [" " * _INDENT + check.advice] if check.advice else []
    if check.more:
        lines += ["", *(f"    {line}".rstrip() for line in check.more), ""]
    return "\n".join(lines)
