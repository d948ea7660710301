"""One self-contained page about a video that was read: its answers, its timeline, its cells.

It is the server's page, frozen: the same scripts and style draw the same facts. The page loads
nothing but, if asked for, the video that lies beside it; a content security policy forbids the
rest. What comes from outside (file names, questions, answers) is text, never markup.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from retake_edge.formats import clock, shown_bytes, spoken_seconds
from retake_edge.page.assets import joined_script, text_of
from retake_edge.page.facts import answer_facts, kept_share, part_of, video_facts
from retake_edge.report.figures import TimeAxis, heat_map
from retake_edge.report.pictures import Thumbnail, nearest
from retake_edge.session.evidence import Floats, Span
from retake_edge.version import __version__

if TYPE_CHECKING:
    from retake_edge.session.video_map import VideoMap, VideoStats

MOST_KEYFRAMES = 48
_TEMPLATE = Path(__file__).parent / "assets" / "page.html.j2"
_STAGES = {
    "check": "files of the model checked",
    "plan": "frames and memory planned",
    "wait": "waiting for another process",
    "load": "model and vision tower",
    "decode": "waiting for frames of the video",
    "still": "pictures compared, to see what stands still",
    "encode": "frames to features",
    "prefill": "features into the language model",
    "score": "what the policy asks of each chunk",
    "select": "the policy's choice",
    "compact": "what was kept moved, the rest freed",
    "pictures": "small pictures for this page",
    "save": "session written to the disk",
    "generate": "question and answer",
}


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
        times_s = self.video_map.frame_times_s
        return TimeAxis(times_s, *part_of(self.video, times_s, self.config["sampling"]))

    @cached_property
    def kept(self) -> Floats:
        """Share of each grid frame's vision tokens kept, f32 [n_layer, T]."""
        return kept_share(
            self.video_map.cell_frames,
            len(self.video_map.frame_times_s),
            self.video.n_cells_before,
        )


def keyframe_thumbnails(report: Report, most: int = MOST_KEYFRAMES) -> list[Thumbnail]:
    """Return the thumbnails of the keyframes with the most pivots, in order of time."""
    share, times = report.video_map.pivot_share, report.video_map.frame_times_s
    best = [i for i in np.argsort(-share, kind="stable")[:most] if share[i] > 0]
    found = [nearest(report.thumbnails, float(times[i])) for i in sorted(best)]
    return list(dict.fromkeys(t for t in found if t is not None))


def video_link(video: str | os.PathLike[str], page: Path) -> str:
    """Return the address of a video as a page names it that lies elsewhere on this disk."""
    return quote(os.path.relpath(video, page.parent).replace(os.sep, "/"))


def render_report(report: Report, video_src: str = "") -> str:
    """Return the page as HTML; `video_src`: the video's address relative to it ('': no video)."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    script = joined_script("report.js")
    style = text_of("style.css") + text_of("report.css")
    data = _data(report, video_src)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        name=data["facts"]["name"],
        answers=data["answers"],
        data=data,
        style=Markup(style),
        script=Markup(script),
        policy=Markup(_policy(script, style, bool(video_src))),
    )


def _policy(script: str, style: str, has_video: bool) -> str:
    media = "media-src 'self' file:; " if has_video else ""
    return (
        f"default-src 'none'; img-src data:; {media}style-src '{_digest(style)}'; "
        f"script-src '{_digest(script)}'; base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _data(report: Report, video_src: str) -> dict[str, Any]:
    """All that the page's script shows."""
    thumbnails = [(picture.time_s, picture.jpeg) for picture in report.thumbnails]
    sampling = report.config["sampling"]
    keyframes = [picture.time_s for picture in keyframe_thumbnails(report)]
    return {
        "facts": video_facts(report.video, report.video_map, sampling, thumbnails),
        "answers": [answer_facts(a.question, a.text, a.spans, a.weights) for a in report.answers],
        "video_src": video_src or None,
        "keyframes": [round(time_s, 3) for time_s in keyframes],
        "n_keyframes": report.video.n_keyframes,
        "model": report.model["name"],
        "figures": _figures(report),
        "stages": _stages(report.seconds),
        "layers": _layers(report),
        "settings": [_section(name, values) for name, values in _config(report).items()],
        "version": __version__,
    }


def _figures(report: Report) -> list[tuple[str, str]]:
    """Return the figures of a run, name and value, for everyone to read."""
    video, memory = report.video, report.peak_memory_bytes
    rows = [
        ("Length of the video", clock(video.duration_s)),
        ("Pictures looked at", f"{video.n_frames:,}"),
        *_stood_still(video),
        ("Tokens kept", f"{video.n_cells_kept:,} of {video.n_cells_before:,}"),
        ("Memory for the video", shown_bytes(video.kv_bytes)),
    ]
    if memory:
        rows.append(("Memory in all, at most", shown_bytes(memory)))
    if report.seconds:
        rows.append(("Time in all", spoken_seconds(sum(report.seconds.values()))))
    return rows


def _stood_still(video: VideoStats) -> list[tuple[str, str]]:
    told = f"{video.n_still:,} of {video.n_grid_frames:,} pictures"
    return [("Stood still, not read again", told)] if video.n_still else []


def _stages(seconds: Mapping[str, float]) -> list[dict[str, Any]]:
    longest = max(seconds.values(), default=0.0) or 1.0
    return [
        {
            "name": _STAGES.get(name, name),
            "share": round(spent / longest, 4),
            "seconds": spoken_seconds(round(spent, 1)) if spent >= 0.1 else "under 0.1 s",
        }
        for name, spent in seconds.items()
    ]


def _layers(report: Report) -> dict[str, Any] | None:
    """Return a picture of what each layer keeps; None where all keep the same."""
    kept = report.kept
    if len(kept) < 2 or np.allclose(kept, kept[0]):
        return None
    png = base64.b64encode(heat_map(report.axis, kept)).decode("ascii")
    return {"picture": f"data:image/png;base64,{png}", "n": len(kept)}


def _config(report: Report) -> dict[str, Mapping[str, Any]]:
    return {"model": report.model, **report.config, "versions": report.versions}


def _section(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": name, "rows": [(key, _shown(value)) for key, value in values.items()]}


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value in (None, "") else str(value)
