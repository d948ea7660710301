"""retake-edge plan: what a run will take, and what would make it fit, before anything is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from retake_edge.cli.opening import source_of
from retake_edge.cli.options import VideoRequest, opens_video
from retake_edge.errors import MemoryBudgetError

if TYPE_CHECKING:
    from retake_edge.calibration import Calibration
    from retake_edge.fitting import Proposal
    from retake_edge.models import ModelFiles, ModelManifest
    from retake_edge.run_plan import RunPlan, RunPlanner
    from retake_edge.video import VideoInfo

_MEASURED_FRAMES = 8


@opens_video
def plan(
    video: Annotated[Path, typer.Argument(help="The video file.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    measure: Annotated[
        bool, typer.Option("--measure", help="Read some frames first, to tell the seconds.")
    ] = False,
    *,
    request: VideoRequest,
) -> None:
    """Say what a run needs in cells, memory and seconds; no weights are loaded.

    Seconds are known once a video was read with this model, or with --measure. What does not fit
    is listed with the changes that make it fit; --fit plans with them.
    """
    from retake_edge.calibration import Calibration
    from retake_edge.cli.progress import shown_progress
    from retake_edge.fitting import fitted, proposals
    from retake_edge.prefilled import cells_after
    from retake_edge.run_plan import RunPlanner
    from retake_edge.store import SessionStore
    from retake_edge.video import probe_video

    with shown_progress() as progress:
        source = source_of(video, request, progress)
    calibration = Calibration(SessionStore(request.cache_dir).cache_dir)
    settings, info, flags = request.settings, probe_video(video), ""
    with RunPlanner(source, cells_after(settings)) as planner:
        if request.fit:
            found = fitted(planner, info, settings)
            flags, settings = found.flags, found.plan.settings
        try:
            planned = planner.plan(info, settings)
        except MemoryBudgetError:
            _print_proposals(proposals(planner, info, settings), to_stderr=True)
            raise
        if measure:
            _measure(planned, source, calibration)
        advice = [] if planned.fits else proposals(planner, info, settings)
        document = _document(planner, planned, calibration, advice, flags)
    if as_json:
        typer.echo(json.dumps(document, indent=2))
        return
    _print_plan(planned, document)
    _print_proposals(advice)


def _measure(
    planned: RunPlan, source: ModelManifest | ModelFiles, calibration: Calibration
) -> None:
    """Read the first frames of what is planned, and answer, to learn how fast this machine is."""
    from dataclasses import replace

    from retake_edge.cli.progress import shown_progress
    from retake_edge.session import open_video

    sampling = planned.settings.sampling
    step_s = (planned.frames.times_s[1] - planned.frames.times_s[0]) / max(1, planned.frames.n - 1)
    end_s = planned.frames.times_s[0] + _MEASURED_FRAMES * max(step_s, planned.video.frame_s)
    end_s = min(end_s, sampling.end_s or end_s)
    sampling = replace(sampling, end_s=end_s, max_frames=_MEASURED_FRAMES)
    settings = replace(planned.settings, sampling=sampling)
    with (
        shown_progress() as progress,
        open_video(
            planned.video.path, source, settings, use_cache=False, progress=progress
        ) as session,
    ):
        session.calibrate(calibration)
        session.ask("What happens?")


def _document(
    planner: RunPlanner,
    planned: RunPlan,
    calibration: Calibration,
    advice: list[Proposal],
    flags: str,
) -> dict[str, Any]:
    more = {
        "kv_bytes": planner.kv_bytes(planned),
        "seconds": planner.seconds(planned, calibration),
        "changed": flags,
        "would_fit": [proposal.to_dict() for proposal in advice],
    }
    return planned.to_dict() | more


def _print_plan(planned: RunPlan, document: dict[str, Any]) -> None:
    from retake_edge.run_plan import gib, place, shares

    cells = planned.cells
    kept, n_ctx = cells.memory.n_kept_cells, cells.memory.n_ctx
    rows = [("video", _video_line(planned.video)), ("frames", _frames_line(planned))]
    how = "whole frames" if cells.why_whole else f"keep ratio {cells.memory.keep_ratio:.3g}"
    text = f"{cells.n_before} before compression, {kept} after ({how}), {n_ctx} in the cache"
    rows.append(("cells", text))
    if cells.why_whole:
        rows.append(("", cells.why_whole))
    sizes = document["kv_bytes"].items()
    rows.append(("KV cache", ", ".join(f"{kind} {gib(size)}" for kind, size in sizes)))
    for use in planned.memory:
        limit = "" if use.available is None else f" of {gib(use.available)} available"
        rows.append((place(use), f"{gib(use.needed)}{limit}: {shares(use)}"))
    rows.append(("time", _time_line(document["seconds"], planned)))
    if document["changed"]:
        rows.append(("changed", document["changed"]))
    rows.append(("fits", "yes" if planned.fits else "no"))
    width = max(len(name) for name, _ in rows) + 2
    for name, line in rows:
        typer.echo(f"{name:<{width}}{line}")


def _video_line(video: VideoInfo) -> str:
    from retake_edge.clock import clock

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
    return f"{frames.n} of {size}, in {frames.n_steps} grid frames of {each} tokens"


def _time_line(seconds: dict[str, float] | None, planned: RunPlan) -> str:
    if seconds is None:
        return "not known before a video was read with this model here; --measure reads some frames"
    answer = f"answer of {planned.settings.generation.max_tokens} tokens"
    names = {"decode": "decode", "encode": "encode", "prefill": "prefill", "answer": answer}
    known = [f"{name} {_seconds(seconds[key])}" for key, name in names.items() if key in seconds]
    missing = [f"{name} not known yet" for key, name in names.items() if key not in seconds]
    return ", ".join(known + missing)


def _seconds(value: float) -> str:
    return f"{value:.1f} s" if value < 100 else f"{value / 60:.0f} min"


def _print_proposals(advice: list[Proposal], *, to_stderr: bool = False) -> None:
    from retake_edge.run_plan import gib

    if advice:
        typer.echo("any of these makes it fit:", err=to_stderr)
    for proposal in advice:
        needed = ", ".join(gib(use.needed) for use in proposal.plan.memory)
        typer.echo(f"  {proposal.flags:<28} {needed}", err=to_stderr)
