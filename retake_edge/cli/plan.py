"""retake-edge plan: what a run will take, and what would make it fit, before anything is loaded."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from retake_edge.cli.help import examples
from retake_edge.cli.options import CliRequest, opens_video
from retake_edge.cli.videos import video_file
from retake_edge.errors import ConfigError, MemoryBudgetError

if TYPE_CHECKING:
    from retake_edge.models.manifest import ModelFiles, ModelManifest
    from retake_edge.plan.fit import Proposal
    from retake_edge.plan.run import RunPlan, RunPlanner
    from retake_edge.plan.seconds import Calibration
    from retake_edge.video.read import VideoInfo

EXAMPLES = examples("plan talk.mp4 -m qwen2.5-vl-3b", "plan -m smolvlm2-2.2b")


@opens_video
def plan(
    video: Annotated[
        str | None,
        typer.Argument(metavar="[VIDEO]", help="The video file; without, an hour of video."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    *,
    request: CliRequest,
) -> None:
    """Say what a run needs in memory and time, before anything is downloaded or loaded.

    Times are those of this model's own runs here, else they are estimated from this machine's
    speed, which is measured once. What does not fit is listed with the changes that make it fit;
    --fit plans with them. A model with a name need not be downloaded: its shape is known.
    """
    from retake_edge.catalog.needs import AN_HOUR
    from retake_edge.plan.cells import text_reserve
    from retake_edge.plan.fit import fitted, proposals
    from retake_edge.plan.run import RunPlanner
    from retake_edge.plan.seconds import Calibration
    from retake_edge.session.store.folder import SessionStore
    from retake_edge.video.read import probe_video

    calibration = Calibration(SessionStore(request.cache_dir).cache_dir)
    info = AN_HOUR if video is None else probe_video(video_file(video))
    config, flags = request.config, ""
    with ExitStack() as held:
        source, is_here = _source(None if video is None else info.path, request, held)
        planner = RunPlanner(source, text_reserve(config), tried=not is_here)
        held.enter_context(planner)
        if request.fit:
            found = fitted(planner, info, config)
            flags, config = found.flags, found.plan.config
        try:
            planned = planner.plan(info, config)
        except MemoryBudgetError:
            _print_proposals(proposals(planner, info, config), to_stderr=True)
            raise
        advice = [] if planned.fits else proposals(planner, info, config)
        document = _document(planner, planned, calibration, advice, flags)
    document["model"] = {"name": planner.manifest.name, "is_downloaded": is_here}
    if as_json:
        typer.echo(json.dumps(document, indent=2))
        return
    _print_plan(planned, document)
    _print_proposals(advice)


def _source(
    video: Path | None, request: CliRequest, held: ExitStack
) -> tuple[ModelManifest | ModelFiles, bool]:
    """The model to plan with, and whether it is here; else hollow files stand in for it."""
    from retake_edge.models.manifest import model_names
    from retake_edge.models.published import hollow_files, published
    from retake_edge.models.resolve import NotDownloadedError

    try:
        return _model_here(video, request), True
    except NotDownloadedError as missing:
        named = published(missing.name) if missing.name in model_names() else None
        if named is None:
            raise
        folder = TemporaryDirectory(prefix="retake-edge-")
        held.enter_context(folder)
        return hollow_files(named, folder), False


def _model_here(video: Path | None, request: CliRequest) -> ModelManifest | ModelFiles:
    from retake_edge.catalog.user_config import default_model
    from retake_edge.cli.opening import resolved

    if video is None and not (request.model or request.hub or default_model()):
        raise ConfigError(
            "There is no video and no model to plan for; give a video file, or -m NAME. "
            "`retake-edge models` compares all models."
        )
    return resolved(video, request)


def _expected(planned: RunPlan, calibration: Calibration) -> dict[str, float] | None:
    """Seconds by stage: of this model's own runs, else of this machine with any model."""
    from retake_edge.cli.progress import shown_progress
    from retake_edge.files import default_cache_dir
    from retake_edge.plan.machine import machine_seconds, measure_machine
    from retake_edge.plan.seconds import Calibration

    own = planned.seconds(calibration) or {}
    if {"encode", "prefill"} <= set(own):
        return own
    general = Calibration(default_cache_dir())
    with shown_progress() as progress:
        measure_machine(general, progress)
    n_answer = planned.config.generation.max_tokens
    return (machine_seconds(general, planned.estimate.work, n_answer) or {}) | own or None


def _document(
    planner: RunPlanner,
    planned: RunPlan,
    calibration: Calibration,
    advice: list[Proposal],
    flags: str,
) -> dict[str, Any]:
    more = {
        "kv_bytes": planner.kv_bytes(planned),
        "seconds": _expected(planned, calibration),
        "changed": flags,
        "would_fit": [proposal.to_dict() for proposal in advice],
    }
    return planned.to_dict() | more


def _print_plan(planned: RunPlan, document: dict[str, Any]) -> None:
    from retake_edge.plan.run import device_name, gib, shares

    cells = planned.cells
    kept, n_ctx = cells.memory.n_kept_cells, cells.memory.n_ctx
    rows = [("video", _video_line(planned.video)), ("frames", _frames_line(planned))]
    how = "whole frames" if cells.not_compressible else f"keep ratio {cells.memory.keep_ratio:.3g}"
    text = f"{cells.n_before:,} of the video, {kept:,} kept ({how}); room for {n_ctx:,}"
    rows.append(("tokens", text))
    if cells.not_compressible:
        rows.append(("", cells.not_compressible))
    rows.append(("positions", str(cells.positions)))
    sizes = document["kv_bytes"].items()
    rows.append(("kept as", ", ".join(f"{kind} {gib(size)}" for kind, size in sizes)))
    if planned.feature_bytes:
        share = planned.feature_bytes * n_ctx / (cells.n_before * cells.memory.kv_bytes)
        text = f"{gib(planned.feature_bytes)} on the disk, {share:.1%} of the uncompressed tokens"
        rows.append(("features", text))
    for use in planned.memory:
        limit = "" if use.available is None else f" of {gib(use.available)} available"
        rows.append((device_name(use), f"{gib(use.needed)}{limit}: {shares(use)}"))
    rows.append(("time", _time_line(document["seconds"], planned)))
    if document["changed"]:
        rows.append(("changed", document["changed"]))
    rows.append(("fits", "yes" if planned.fits else "no"))
    width = max(len(name) for name, _ in rows) + 2
    for name, line in rows:
        typer.echo(f"{name:<{width}}{line}")


def _video_line(video: VideoInfo) -> str:
    from retake_edge.formats import clock

    size = f"{video.width_px}x{video.height_px}"
    return f"{video.path.name}, {clock(video.duration_s)}, {size}, {video.codec}"


def _frames_line(planned: RunPlan) -> str:
    frames, shape = planned.frames, planned.cells.memory.shape
    each = (
        f"{shape.vision_per_step} + {shape.text_per_step}"
        if shape.text_per_step
        else (f"{shape.vision_per_step}")
    )
    size = f"{frames.width_px}x{frames.height_px}"
    pictures = "" if frames.n == frames.n_steps else f", {frames.n_steps} pictures for the model"
    pictures += " at most (still ones are read once)" if planned.config.sampling.still else ""
    return f"{frames.n} of {size}{pictures}, {each} tokens each"


def _time_line(seconds: dict[str, float] | None, planned: RunPlan) -> str:
    from retake_edge.formats import duration

    if seconds is None:
        return "not known"
    names = {"decode": "video", "encode": "vision", "prefill": "language model"}
    known = [f"{name} {_seconds(seconds[key])}" for key, name in names.items() if key in seconds]
    total = sum(seconds[key] for key in names if key in seconds)
    line = f"about {duration(max(1.0, total))} to read it ({', '.join(known)})"
    if "answer" in seconds:
        n_most = planned.config.generation.max_tokens
        line += f"; an answer of {n_most} tokens {_seconds(seconds['answer'])}"
    return line


def _seconds(value: float) -> str:
    return f"{value:.1f} s" if value < 100 else f"{value / 60:.0f} min"


def _print_proposals(advice: list[Proposal], *, to_stderr: bool = False) -> None:
    from retake_edge.plan.run import gib

    if advice:
        typer.echo("any of these makes it fit:", err=to_stderr)
    for proposal in advice:
        needed = ", ".join(gib(use.needed) for use in proposal.plan.memory)
        typer.echo(f"  {proposal.flags:<28} {needed}", err=to_stderr)
