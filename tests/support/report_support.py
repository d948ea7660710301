"""A small report with known numbers."""

from __future__ import annotations

import cv2
import numpy as np

from retake_edge.config import RetakeConfig
from retake_edge.report.page import Report, ReportAnswer
from retake_edge.report.pictures import Thumbnail
from retake_edge.session.evidence import attended_spans
from retake_edge.session.video_map import VideoMap, VideoStats

N_FRAMES, N_LAYERS, PER_FRAME, STEP_S = 40, 3, 8, 2.0
END_S = N_FRAMES * STEP_S


def thumbnail(time_s: float) -> Thumbnail:
    """A plain picture whose red tells its time."""
    picture = np.full((60, 80, 3), (90, 120, int(255 * time_s / END_S)), np.uint8)
    return Thumbnail(time_s, cv2.imencode(".jpg", picture)[1].tobytes())


def sample_report(name: str = "holiday.mp4", *, answered: bool = True) -> Report:
    """40 frames of 2 s; each keeps 2 of its 8 tokens, frame 10 all 8 in the first layer alone."""
    frames = np.repeat(np.arange(N_FRAMES), 2)
    first = np.concatenate([frames, np.full(6, 10)])
    others = np.concatenate([frames, np.arange(20, 26)])
    text = -1 - np.arange(N_FRAMES)
    cell_frames = np.stack(
        [np.concatenate([text, layer]) for layer in (first, others, others)]
    ).astype(np.int32)
    times_s = np.arange(N_FRAMES, dtype=np.float64) * STEP_S
    weights = np.full(N_FRAMES, 0.6 / (N_FRAMES - 1), np.float32)
    weights[30] = 0.4
    pivots = np.zeros(N_FRAMES, np.float32)
    pivots[[5, 10, 30]] = 0.5, 1.0, 0.25
    answer = ReportAnswer(
        "What is <i>this</i>?",
        '42 </script><b>"&amp;',
        attended_spans(weights, times_s, END_S),
        weights,
    )
    n_kept = cell_frames.shape[1]
    return Report(
        video=VideoStats(
            path=f"/somewhere/{name}",
            duration_s=END_S,
            n_frames=2 * N_FRAMES,
            n_grid_frames=N_FRAMES,
            n_keyframes=3,
            n_frames_kept=N_FRAMES,
            n_cells_before=N_FRAMES * (PER_FRAME + 1),
            n_cells_kept=n_kept,
            keep_ratio=0.25,
            n_ctx=512,
            kv_bytes=5 << 20,
        ),
        video_map=VideoMap(times_s, pivots, cell_frames),
        config=RetakeConfig().to_dict(),
        model={"name": "tiny", "model_sha256": "ab" * 32},
        versions={"retake_edge": "1.2.3"},
        seconds={"load": 0.5, "encode": 2.0, "generate": 0.25},
        peak_memory_bytes=300 << 20,
        thumbnails=[thumbnail(time_s) for time_s in times_s[::2]],
        answers=[answer] if answered else [],
    )
