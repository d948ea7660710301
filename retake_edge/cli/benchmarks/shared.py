"""Parts that benchmarks share: options, facts about the model, and the end of a run."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from retake_edge.cli.options import option

if TYPE_CHECKING:
    from retake_edge.config import RuntimeConfig
    from retake_edge.models.manifest import ModelFiles, ModelManifest

Json = Annotated[bool, typer.Option("--json", help="Print the run file instead of tables.")]
Out = Annotated[Path | None, typer.Option(help="Write the run file here.")]
Seed = Annotated[int, typer.Option("-s", "--seed", help="Everything follows from it.")]
SceneModel = Annotated[
    str, typer.Option("-m", "--model", help="A model that understands the scenes.")
]
Projector = Annotated[Path | None, typer.Option("-mm", "--mmproj", help="Its projector.")]
ShapesDir = Annotated[
    Path | None, typer.Option(help="Where shapes are kept.  [default: the user's cache]")
]
KeepRatios = Annotated[str, typer.Option(help="Shares of the tokens kept.")]
Policies = Annotated[str, typer.Option(help="What is measured, by name.")]
Threads = Annotated[int | None, option("runtime.n_threads")]
GpuLayers = Annotated[int, option("runtime.n_gpu_layers")]
Queries = Annotated[int, option("compression.n_queries")]
ChunkFrames = Annotated[int, option("compression.prefill_chunk_frames")]


class BenchCommand(TyperCommand):
    """A benchmark; also takes the option names of the version before."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Give options their new names."""
        return super().parse_args(ctx, [_new_name(word) for word in args])


def _new_name(word: str) -> str:
    flag, equals, value = word.partition("=")
    return "--keep-ratio" + equals + value if flag == "--keep" else word


def plain(settings: Any, runtime: RuntimeConfig) -> dict[str, Any]:
    """Return a benchmark's settings, a dataclass, and those of its runs as plain values."""
    return asdict(settings) | {"runtime": asdict(runtime)}


def file_facts(**files: Path) -> dict[str, Any]:
    """Return name, bytes and SHA-256 of files, by what they are."""
    from retake_edge.files import file_sha256

    return {
        role: {"file": path.name, "bytes": path.stat().st_size, "sha256": file_sha256(path)}
        for role, path in files.items()
    }


def pair_facts(source: ModelManifest | ModelFiles) -> dict[str, Any]:
    """Return the facts of a model's two files."""
    return file_facts(model=source.model, mmproj=source.mmproj)


def finish(document: dict[str, Any], out: Path | None, as_json: bool) -> None:
    """Write the run file, and print it or its tables."""
    from retake_edge.bench.run_file import write_run_file
    from retake_edge.bench.tables import run_tables

    if out is not None:
        write_run_file(document, out)
    typer.echo(json.dumps(document, indent=1) if as_json else run_tables(document))
