"""Choose the model where none is named.

`RETAKE_MODEL` or the user's configuration; else the best one that is downloaded and fits; else,
for a video that `retake-edge scene` rendered, the bundled one; else none: a table says what this
machine could run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from retake_edge.catalog.catalog import ModelEntry, catalog, downloaded
from retake_edge.catalog.table import machine_line, next_step, table_lines
from retake_edge.catalog.user_config import default_model
from retake_edge.config import RetakeConfig
from retake_edge.errors import MemoryBudgetError, ModelError
from retake_edge.models.manifest import ModelFiles, ModelManifest
from retake_edge.models.resolve import resolve_model
from retake_edge.plan.cells import text_reserve
from retake_edge.plan.frames import QUESTION_RESERVE
from retake_edge.plan.run import RunPlanner
from retake_edge.progress import ProgressCallback, no_progress
from retake_edge.video.read import VideoInfo, probe_video

ASKED, BEST, SCENE = "asked for", "best downloaded", "rendered scene"
SCENE_MODEL = "tiny"


class NoModelError(ModelError):
    """No model for real videos is here; `entries`: what could be had, the best first."""

    def __init__(self, why: str, entries: Sequence[ModelEntry]) -> None:
        self.entries = list(entries)
        real = [entry for entry in entries if entry.source != "bundled"]
        table = "\n".join(f"  {line}" for line in table_lines(real))
        super().__init__(f"{why}\n\n{table}\n\n{machine_line()}\nType:\n\n  {next_step(real)}")


@dataclass(frozen=True)
class ChosenModel:
    """A model and why it is used: 'asked for', the variable or file that names it, 'best
    downloaded' or 'rendered scene'.
    """

    source: ModelManifest | ModelFiles
    why: str


def choose_model(
    video: str | Path,
    config: RetakeConfig,
    *,
    n_question_reserve: int = QUESTION_RESERVE,
    sha256: Callable[[Path], str] | None = None,
    progress: ProgressCallback = no_progress,
) -> ChosenModel:
    """Return the model for a video where none was named.

    `sha256` gives the hash of a file, from memory perhaps (None: it is read).

    Raises:
        VideoError: the video cannot be read. NoModelError: there is no model for it.
        ModelError, ConfigError: the one that the user chose for always cannot be used.
    """
    if chosen := default_model():
        name, where = chosen
        return ChosenModel(resolve_model(name, sha256=sha256), where)
    info = probe_video(video)
    here = downloaded()
    for entry in here:
        if _fits(entry, info, config, n_question_reserve):
            return ChosenModel(resolve_model(entry.name, sha256=sha256), BEST)
    if info.is_scene:
        return ChosenModel(resolve_model(SCENE_MODEL, sha256=sha256), SCENE)
    raise NoModelError(_why_none(here), catalog(progress))


def _fits(
    entry: ModelEntry, info: VideoInfo, config: RetakeConfig, n_question_reserve: int
) -> bool:
    try:
        with RunPlanner(entry.pair, text_reserve(config, n_question_reserve)) as planner:
            return planner.plan(info, config).fits
    except (ModelError, MemoryBudgetError):
        return False


def _why_none(here: Sequence[ModelEntry]) -> str:
    if not here:
        return "No model for real videos is downloaded yet. Choose one:"
    names = ", ".join(entry.name for entry in here)
    return (
        f"No model that is downloaded can read this video with the memory that is free ({names}; "
        "-m NAME says why, -m NAME --fit makes it fit if that can be). Others:"
    )
