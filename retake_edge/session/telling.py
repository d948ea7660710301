"""Tell how far the reading of a video is: decoded, encoded, prefilled, and the time left."""

from __future__ import annotations

from retake_edge.plan.pace import Pace
from retake_edge.plan.run import Estimate
from retake_edge.progress import Reading
from retake_edge.session.prefilled import OpenRequest
from retake_edge.stages import StageTimes
from retake_edge.vision.reader import VideoReader


class Teller:
    """The progress of one reading; made when its reader knows the file and where to begin in it.

    `prefilled_s`: the video is prefilled up to there; `saved_s`: a later run would go on there,
    None if at the beginning.
    """

    def __init__(
        self, request: OpenRequest, reader: VideoReader, estimate: Estimate, times: StageTimes
    ) -> None:
        self._reader, self._times, self._progress = reader, times, request.progress
        self._start_s = request.config.sampling.start_s
        self.saved_s = reader.frame_times_s[-1] if reader.frame_times_s else None
        self._begun_s = self._start_s if self.saved_s is None else self.saved_s
        self.prefilled_s = self._begun_s
        self._n_read = 0  # frames encoded
        self._n_pictures = 0  # told
        self._spent = dict(times.seconds)  # before this run
        expected = request.calibration.seconds(*estimate, 0) or {}
        self._pace = Pace(estimate.work, expected, self._share(self._begun_s))

    def tell(self, stage: str, n_frames: int, n_planned: int, *, is_done: bool = False) -> None:
        """Tell how far the reading is: `n_frames` of `n_planned` at most, decoded or encoded."""
        reader = self._reader
        self._n_read = self._n_read if stage == "decode" else n_frames
        time_s = reader.frame_times_s[self._n_read - 1] if self._n_read else self._start_s
        if is_done:
            time_s = self.prefilled_s = reader.end_s
        share = self._share(time_s)
        if share > 0:  # a video of fewer frames than a grid has points is done before the last one
            n_planned = min(n_planned, max(n_frames, round(self._n_read / share)))
        seconds = self._times.seconds.items()
        spent = {name: s - self._spent.get(name, 0.0) for name, s in seconds}
        left_s = self._pace.left_s(share, self._share(self.prefilled_s), spent)
        pictures = tuple(reader.thumbnails[self._n_pictures :])
        self._n_pictures += len(pictures)
        more = Reading(
            self._start_s, reader.end_s, time_s, self._begun_s, self.saved_s, left_s, pictures
        )
        self._progress(stage, n_frames, n_planned, more)

    def _share(self, time_s: float) -> float:
        """Return the share of what is to be read that lies before a time."""
        length_s = max(self._reader.end_s - self._start_s, 1e-9)
        return min(1.0, max(0.0, time_s - self._start_s) / length_s)
