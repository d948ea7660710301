"""Open a video as the options ask for it, with progress on stderr."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from retake_edge.cli.options import VideoRequest

if TYPE_CHECKING:
    from retake_edge.session import Session


def open_session(video: Path, request: VideoRequest, n_reserve: int | None = None) -> Session:
    """Return the session of a video; raises what `open_video` raises."""
    from retake_edge.prefilled import QUESTION_RESERVE
    from retake_edge.progress import progress_bars
    from retake_edge.session import open_video

    with progress_bars() as progress:
        return open_video(
            video,
            request.model,
            request.settings,
            mmproj=request.mmproj,
            use_cache=request.use_cache,
            cache_dir=request.cache_dir,
            n_reserve=n_reserve or QUESTION_RESERVE,
            progress=progress,
        )
