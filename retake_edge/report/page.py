"""One self-contained page about a video that was read: its timeline, its cells, its answers.

The page loads nothing: pictures are data addresses, and a content security policy forbids the
rest. Everything that comes from outside (file names, questions, answers) is escaped.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retake_edge.report.figures import TimeAxis, heat_map, kept_share, step_path
from retake_edge.report.pictures import Thumbnail, nearest
from retake_edge.session.evidence import Floats, Span

if TYPE_CHECKING:
    from retake_edge.session.video_map import VideoMap, VideoStats

MOST_KEYFRAMES = 48
_PAGE_DIR = Path(__file__).parent / "assets"
_STRIP_PICTURES = 12
_STAGES = {
    "load": "model, vision tower and context",
    "decode": "video file to frames",
    "encode": "frames to vision features",
    "prefill": "frames into the language model",
    "score": "what the policy asks of each chunk",
    "select": "the policy's choice",
    "compact": "kept tokens moved, others freed",
    "save": "session written to the disk",
    "generate": "question and answer",
}

_STAGE_NAMES = {"prefill": "take in", "compact": "drop"}


@dataclass(frozen=True)
class ReportAnswer:
    """A question with its answer, the spans it attended to, and its attention f32 [T]."""

    question: str
    text: str
    spans: Sequence[Span] = ()
    weights: Floats | None = None


@dataclass(frozen=True)
class Report:
    """All that a page shows.

    `seconds` by stage; `peak_memory_bytes` None where it is not known any more; `thumbnails` in
    order of time.
    """

    video: VideoStats
    video_map: VideoMap
    config: Mapping[str, Mapping[str, Any]]
    model: Mapping[str, str]
    versions: Mapping[str, str]
    seconds: Mapping[str, float]
    peak_memory_bytes: int | None
    thumbnails: Sequence[Thumbnail] = ()
    answers: Sequence[ReportAnswer] = field(default_factory=tuple)

    @cached_property
    def axis(self) -> TimeAxis:
        """The part of the video that was looked at."""
        sampling = self.config["sampling"]
        duration_s, end_s = self.video.duration_s, sampling["end_s"]
        last_s = duration_s if end_s is None else min(end_s, duration_s)
        times = self.video_map.frame_times_s
        return TimeAxis(times, sampling["start_s"], max(last_s, float(times[-1]) + 1e-3))

    @cached_property
    def kept(self) -> Floats:
        """Share of each grid frame's vision tokens kept, f32 [n_layer, T]."""
        n_frames = len(self.video_map.frame_times_s)
        return kept_share(self.video_map.cell_frames, n_frames, self.video.n_cells_before)


def keyframe_thumbnails(report: Report, most: int = MOST_KEYFRAMES) -> list[Thumbnail]:
    """Return the thumbnails of the keyframes with the most pivots, in order of time."""
    share, times = report.video_map.pivot_share, report.video_map.frame_times_s
    best = [i for i in np.argsort(-share, kind="stable")[:most] if share[i] > 0]
    found = [nearest(report.thumbnails, float(times[i])) for i in sorted(best)]
    return list(dict.fromkeys(t for t in found if t is not None))


def render_report(report: Report) -> str:
    """Return the page as HTML."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    page, style, script = (
        (_PAGE_DIR / name).read_text(encoding="utf-8")
        for name in ("page.html.j2", "style.css", "script.js")
    )
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.from_string(page).render(
        **_facts(report),
        **_timeline(report),
        style=Markup(style),
        script=Markup(script),
        script_hash=f"sha256-{digest}",
    )


def _facts(report: Report) -> dict[str, Any]:
    """What the page says in words and numbers."""
    gallery = keyframe_thumbnails(report)
    total = sum(report.seconds.values())
    longest = max(report.seconds.values(), default=1.0) or 1.0
    return {
        "name": Path(report.video.path).name,
        "summary": _summary(report),
        "tiles": _tiles(report),
        "answers": [_answer(report, answer) for answer in report.answers],
        "gallery": gallery,
        "gallery_note": f"{len(gallery)} of {report.video.n_keyframes}, those that change most",
        "stages": [
            {
                "name": _STAGE_NAMES.get(name, name),
                "what": _STAGES.get(name, ""),
                "percent": round(100 * seconds / longest, 1),
                "seconds": _seconds(seconds),
            }
            for name, seconds in report.seconds.items()
        ],
        "total_seconds": _seconds(total),
        "settings": [_section(name, values) for name, values in _config(report).items()],
        "version": report.versions.get("retake_edge", ""),
    }


def _summary(report: Report) -> str:
    video = report.video
    return (
        f"{_length(video.duration_s)} of video, seen in {video.n_frames:,} frames. "
        f"{video.n_cells_kept:,} of {video.n_cells_before:,} tokens stay "
        f"(keep ratio {video.keep_ratio:.4g}); model {report.model['name']}."
    )


def _tiles(report: Report) -> list[dict[str, str]]:
    video = report.video
    memory = report.peak_memory_bytes
    rows = [
        (
            f"{100 * video.keep_ratio:.4g}%",
            "of the vision tokens kept",
            "in every layer",
        ),
        (f"{video.n_frames:,}", "frames seen", f"{video.n_grid_frames:,} pictures for the model"),
        (f"{video.n_keyframes:,}", "keyframes", "pictures with a peak of change"),
        (_bytes(video.kv_bytes), "memory of the video", f"{video.n_ctx:,} tokens"),
        (_bytes(memory), "peak memory", "of the whole process") if memory else None,
        (_seconds(sum(report.seconds.values())), "in all", "reading the video and answering"),
    ]
    return [
        {"value": value, "label": label, "note": note} for value, label, note in filter(None, rows)
    ]


def _answer(report: Report, answer: ReportAnswer) -> dict[str, Any]:
    axis = report.axis
    spans = [
        {
            "label": str(span),
            "share": f"{span.weight:.0%}",
            "thumbnail": nearest(report.thumbnails, (span.start_s + span.end_s) / 2),
            "left": round(axis.x(span.start_s), 2),
            "width": round(axis.x(span.end_s) - axis.x(span.start_s), 2),
        }
        for span in answer.spans
    ]
    known = answer.weights is not None
    return {
        "question": answer.question,
        "text": answer.text,
        "spans": spans,
        "no_spans": "It looked all over the video: no moment stands out."
        if known
        else "This model's attention cannot be read.",
        "path": step_path(axis, answer.weights) if answer.weights is not None else "",
        "most": f"{answer.weights.max():.0%}" if answer.weights is not None else "",
    }


def _timeline(report: Report) -> dict[str, Any]:
    """The figures above one time axis."""
    axis, kept = report.axis, report.kept
    mean = kept.mean(axis=0)
    middles = axis.start_s + (np.arange(_STRIP_PICTURES) + 0.5) / _STRIP_PICTURES * (
        axis.end_s - axis.start_s
    )
    strip = [nearest(report.thumbnails, float(time_s)) for time_s in middles]
    return {
        "strip": [thumbnail for thumbnail in strip if thumbnail is not None],
        "kept_path": step_path(axis, mean),
        "kept_most": f"{mean.max():.0%}",
        "pivot_path": step_path(axis, report.video_map.pivot_share, 1.0),
        "heat_uri": heat_map(axis, kept),
        "heat_most": f"{kept.max():.0%}",
        "heat_height_px": int(np.clip(12 * len(kept), 72, 280)),
        "n_layers": len(kept),
        "ticks": [{"left": left, "label": label} for left, label in axis.ticks()],
        "data": {
            "start": axis.start_s,
            "end": axis.end_s,
            "times": _rounded(axis.times_s),
            "kept": _rounded(mean),
            "attention": [_rounded(a.weights) for a in report.answers if a.weights is not None],
        },
    }


def _rounded(values: Floats | np.ndarray[Any, Any]) -> list[float]:
    return [round(float(value), 4) for value in values]


def _config(report: Report) -> dict[str, Mapping[str, Any]]:
    return {"model": report.model, **report.config, "versions": report.versions}


def _section(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    rows = [(key, "-" if value is None else str(value)) for key, value in values.items()]
    return {"name": name, "rows": rows}


def _seconds(seconds: float) -> str:
    return f"{seconds:.3f} s" if seconds < 0.1 else f"{seconds:.1f} s"


def _length(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def _bytes(n: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if n < 1024:
            return f"{n:.3g} {unit}"
        n /= 1024
    return f"{n:.1f} GiB"
