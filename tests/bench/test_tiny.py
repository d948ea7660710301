"""The bundled model on real mp4 files: it reads cards, tells the time, and keeps both when
compressed. Seeds from 900000 on were never trained on.
"""

import dataclasses
import json
import subprocess
import sys

import pytest

from retake_edge.bench.scenes.questions import grade, make_questions
from retake_edge.bench.scenes.render import write_video
from retake_edge.bench.scenes.scene import make_scene
from retake_edge.config import CompressionConfig, RetakeConfig, SamplingConfig
from retake_edge.session.open import open_video

SEEDS = range(900_000, 900_006)
SECONDS = 32.0
KINDS = ("number", "when_card")


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    made = []
    for seed in SEEDS:
        scene = make_scene(seed, SECONDS)
        path = folder / f"{seed}.mp4"
        write_video(scene, path, fps=8.0, size_px=224)
        made.append((path, make_questions(scene, 6, seed, kinds=KINDS)))
    return made


def answers(videos, sampling=None, **compression):
    settings = RetakeConfig(
        sampling=sampling or SamplingConfig(), compression=CompressionConfig(**compression)
    )
    found = []
    for path, questions in videos:
        with open_video(path, "tiny", settings, use_cache=False) as session:
            found += [(q, session.ask(q.text).text) for q in questions]
    return found


def share_right(found, tolerance_s=1.0):
    return sum(grade(q, text, tolerance_s) for q, text in found) / len(found)


def test_it_reads_cards_and_tells_their_time(videos):
    assert share_right(answers(videos, policy="none")) >= 0.8


def test_most_of_it_survives_compression_to_a_quarter(videos):
    assert share_right(answers(videos, policy="coverage", keep_ratio=0.25)) >= 0.7


def test_almost_nothing_survives_of_all_but_the_latest_cells(videos):
    """Were the answers guessed, or read off the question, this policy would not hurt them."""
    assert share_right(answers(videos, policy="recent", keep_ratio=0.05)) <= 0.6


def test_times_are_those_of_the_clock_at_every_sampling_rate(videos):
    """The same scene at 1 and at 4 fps: a different number of frames, the same times."""
    timed = [(path, [q for q in qs if q.kind == "when_card"]) for path, qs in videos]
    slow = answers(timed, SamplingConfig(fps=1.0), policy="none")
    fast = answers(timed, SamplingConfig(fps=4.0), policy="none")
    both = list(zip(slow, fast, strict=True))
    near = [grade(dataclasses.replace(q, answer=a), b, 2.0) for (q, a), (_, b) in both]
    assert len(near) >= 6
    assert sum(near) / len(near) >= 0.7


def test_times_do_not_depend_on_where_the_look_begins(videos):
    """--start cuts the video, not its clock."""
    kept = right = 0
    for path, questions in videos:
        late = [q for q in questions if q.kind == "when_card" and q.time_s and q.time_s > 8]
        settings = RetakeConfig(
            SamplingConfig(start_s=6.0), compression=CompressionConfig(policy="none")
        )
        with open_video(path, "tiny", settings, use_cache=False) as session:
            kept += len(late)
            right += sum(grade(q, session.ask(q.text).text, 1.0) for q in late)
    assert kept >= 4
    assert right / kept >= 0.7


@pytest.mark.process
def test_memory_does_not_grow_with_the_video_once_the_budget_is_reached(tmp_path):
    """Six times the frames into as many cells, each run in a process of its own."""
    path = write_video(make_scene(900_006, 120.0), tmp_path / "long.mp4", fps=8.0, size_px=224)
    options = ["--fps", "8", "--kv-budget", "1200", "--no-cache", "--json", "-t", "1"]
    videos, peaks = [], []
    for end_s in ("20", "120"):
        command = [sys.executable, "-m", "retake_edge", "ask", str(path), "What?", *options]
        run = subprocess.run([*command, "--end", end_s], capture_output=True, text=True, check=True)
        answer = json.loads(run.stdout)
        videos.append(answer["video"])
        peaks.append(answer["peak_memory_bytes"])
    assert videos[1]["n_frames"] == 6 * videos[0]["n_frames"]
    assert videos[1]["n_cells_kept"] <= 1200
    assert peaks[1] - peaks[0] < 6 << 20
