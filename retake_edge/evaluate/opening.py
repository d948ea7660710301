"""Open the video of a group of jobs, with the settings of its variant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from retake_edge.config import RetakeConfig, with_values
from retake_edge.evaluate.jobs import Group
from retake_edge.models.manifest import ModelFiles, ModelManifest
from retake_edge.progress import ProgressCallback, no_progress
from retake_edge.session.open import open_video
from retake_edge.session.session import Session


@dataclass(frozen=True)
class Opener:
    """A model, and settings by variant ('': the only one); may be sent to another process."""

    source: ModelManifest | ModelFiles
    configs: Mapping[str, RetakeConfig]
    use_cache: bool = True
    cache_dir: Path | None = None

    def open(self, group: Group, progress: ProgressCallback = no_progress) -> Session:
        """Return the session of a group's video; raises what `open_video` raises."""
        return open_video(
            group.file,
            self.source,
            self.config_of(group),
            use_cache=self.use_cache,
            cache_dir=self.cache_dir,
            progress=progress,
        )

    def config_of(self, group: Group) -> RetakeConfig:
        """Return the settings under which a group is read and asked."""
        stretch = {"start_s": group.start_s, "end_s": group.end_s}
        return with_values(self.configs[group.variant], sampling=stretch)
