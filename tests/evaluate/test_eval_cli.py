"""`eval`, `run` and `scene --as` with the model that ships."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import plot
import pytest
from typer.testing import CliRunner

from retake_edge.bench.scenes.questions import grade
from retake_edge.cli import app
from retake_edge.config import CompressionConfig, GenerationConfig, RetakeConfig
from retake_edge.evaluate.jobs import read_jobs
from retake_edge.evaluate.samples import make_samples
from retake_edge.evaluate.sets import SETS, read_set
from retake_edge.session.open import open_video

SECONDS, N_VIDEOS = 16, 2
TINY = ("-m", "tiny", "--policy", "none")


def call(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A set of every kind, with the cache that their videos share."""
    folder = tmp_path_factory.mktemp("sets")
    for name in SETS:
        done = call(
            "scene", "--as", name, folder / name, "--seconds", SECONDS, "--videos", N_VIDEOS
        )
        assert done.exit_code == 0, done.output
    return folder


@pytest.fixture(scope="module")
def right(made):
    """How many of the samples' questions are right, asked and graded as `bench quality` does."""
    settings = RetakeConfig(
        compression=CompressionConfig(policy="none"), generation=GenerationConfig(max_tokens=32)
    )
    n_right = n = 0
    for sample in make_samples(0, N_VIDEOS, SECONDS):
        video = made / "longvideobench" / "videos" / f"{sample.name}.mp4"
        with open_video(video, "tiny", settings, cache_dir=made / "cache") as session:
            for question in sample.video.questions:
                n_right += grade(question, session.ask(question.text).text)
                n += 1
    return n_right, n


@pytest.mark.parametrize("name", SETS)
def test_every_set_scores_what_grading_the_same_questions_does(made, right, name, tmp_path):
    out = tmp_path / "run.json"
    arguments = ("eval", name, "--data", made / name, *TINY, "--preset", "plain", "--out", out)
    done = call(*arguments, "--cache-dir", made / "cache")
    assert done.exit_code == 0, done.output
    document = json.loads(out.read_text())
    answers = [answer["right"] for answer in document["answers"]]
    assert (sum(answers), len(answers)) == right
    assert document["variants"][0]["n_failed"] == 0 and not document["missing_videos"]
    assert plot.main([str(out), str(tmp_path / "p.svg")]) is None
    assert "</svg>" in (tmp_path / "p.svg").read_text()
    assert str(made) not in json.dumps(document["model"])


def test_a_sample_is_read_as_it_was_made(made):
    samples = make_samples(0, N_VIDEOS, SECONDS)
    questions = [q for sample in samples for q in sample.asked()]
    for name in SETS:
        items = read_set(name, made / name)
        assert [item.question for item in items] == [q.text for _, q, _, _ in questions]
        assert [item.options for item in items] == [options for _, _, options, _ in questions]
        assert [item.answer for item in items] == [letter for *_, letter in questions]


def test_variants_are_compared_and_missing_videos_are_listed(made, tmp_path):
    folder = tmp_path / "set"
    done = call("scene", "--as", "longvideobench", folder, "--seconds", SECONDS, "--videos", 2)
    assert done.exit_code == 0
    (folder / "videos" / "scene-0-1.mp4").unlink()
    compare = "policy=none; policy=uniform,keep-ratio=0.1"
    arguments = ["eval", "longvideobench", "--data", folder, *TINY, "--preset", "plain"]
    arguments += ["--compare", compare, "--out", tmp_path / "r.json", "--no-cache", "--limit", "27"]
    done = call(*arguments)
    assert done.exit_code == 0, done.output
    document = json.loads((tmp_path / "r.json").read_text())
    assert document["missing_videos"] == ["scene-0-1.mp4"] and "1 videos are missing" in done.output
    counts = [variant["n_asked"] for variant in document["variants"]]
    assert counts[0] == counts[1] > 0
    (gap,) = document["differences"]
    assert gap["from"] == "policy=none" and -1 <= gap["mean"] <= 1
    first = (tmp_path / "r.rows.jsonl").read_bytes()
    assert call(*arguments).exit_code == 0
    assert (tmp_path / "r.rows.jsonl").read_bytes() == first


@pytest.fixture
def jobs(made, tmp_path):
    samples = make_samples(0, N_VIDEOS, SECONDS)
    videos = made / "longvideobench" / "videos"
    lines = [
        {"id": f"{s.index}-{n}", "video": str(videos / f"{s.name}.mp4"), "question": q.text}
        for s in samples
        for n, q, _, _ in list(s.asked())[:4]
    ]
    lines.insert(3, {"id": "bad", "video": "not-there.mp4", "question": "What?"})
    path = tmp_path / "jobs.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path, [line["id"] for line in lines]


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_run_gives_a_row_for_every_job_also_for_one_that_fails(jobs, made, tmp_path):
    path, ids = jobs
    done = call("run", path, "--out", tmp_path / "a.jsonl", *TINY, "--cache-dir", made / "cache")
    assert done.exit_code == 3 and "not-there.mp4" in done.output
    rows = rows_of(tmp_path / "a.jsonl")
    assert sorted(row["id"] for row in rows) == sorted(ids)
    failed = [row for row in rows if row["error"]]
    assert [row["id"] for row in failed] == ["bad"] and failed[0]["error"]["kind"] == "VideoError"
    assert all(row["text"] and "evidence" in row for row in rows if not row["error"])


def test_fitting_each_video_by_itself_is_refused(jobs, tmp_path):
    path, _ = jobs
    done = call("run", path, "--out", tmp_path / "a.jsonl", *TINY, "--fit")
    assert "all videos need the same ones" in str(done.exception)
    assert not (tmp_path / "a.jsonl").exists()


@pytest.mark.process
@pytest.mark.parametrize("command", ["run", "eval"])
def test_what_is_killed_goes_on_where_it_was(command, jobs, tmp_path):
    path, ids = jobs
    rng = random.Random(1)
    out = tmp_path / ("a.jsonl" if command == "run" else "a.json")
    rows = tmp_path / ("a.jsonl" if command == "run" else "a.rows.jsonl")
    arguments = [command, path, "--out", out, *TINY, "--cache-dir", tmp_path / "cache"]
    code = "from retake_edge.cli import main; main()"
    for _ in range(int(os.environ.get("RETAKE_TEST_KILLS", "3"))):
        with subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as process:
            time.sleep(rng.uniform(0.2, 2.0))  # wherever it is then, the rows must be whole
            os.killpg(process.pid, signal.SIGKILL)
    assert call(*arguments).exit_code == (3 if command == "run" else 0)
    wanted = ids if command == "run" else [job.key for job in read_jobs(path) if job.id != "bad"]
    assert sorted(row["id"] for row in rows_of(rows)) == sorted(wanted)
    if command == "eval":  # the video that is missing is not asked about
        answers = json.loads(out.read_text())["answers"]
        assert sorted(answer["id"] for answer in answers) == sorted(wanted)


def test_own_questions_are_scored_with_and_without_options(made, tmp_path):
    (sample, *_) = make_samples(0, N_VIDEOS, SECONDS)
    video = made / "longvideobench" / "videos" / f"{sample.name}.mp4"
    lines = [
        {"video": str(video), "question": question.text, "answer": question.answer}
        | ({"options": list(options)} if n % 2 else {})
        for n, question, options, _ in list(sample.asked())[:6]
    ]
    lines.append({"video": str(video), "question": "What is it about?"})
    path = tmp_path / "own.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    arguments = ("eval", path, *TINY, "--preset", "plain", "--out", tmp_path / "r.json")
    done = call(*arguments, "--cache-dir", made / "cache")
    assert done.exit_code == 0, done.output
    (variant,) = json.loads((tmp_path / "r.json").read_text())["variants"]
    assert (variant["n_asked"], variant["n_without_key"], variant["score"]["n"]) == (7, 1, 6)
    assert variant["score"]["value"] >= 0.5


@pytest.mark.process
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("eval", "videomm", "--data", "."), "There is no set 'videomm'"),
        (("eval", "mlvu"), "mlvu needs its folder"),
        (("eval", "lvbench", "--data", ".", "--preset", "vlmevalkit"), "does not know lvbench"),
        (("eval", "mlvu", "--data", ".", "--limit", "0"), "--limit is 0"),
        (("run", "none.jsonl", "--out", "x.jsonl"), "There is no file none.jsonl"),
        (("scene", "--as", "mlvu", "x", "--videos", "0"), "--videos 0"),
        (("scene", "--as", "mvbench", "x"), "There is no set 'mvbench'"),
    ],
)
def test_what_cannot_work_is_told_in_one_sentence(arguments, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = "from retake_edge.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and says in done.stderr and "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
