"""Rows outlive any kill; jobs find theirs again."""

import json
import random

import pytest

from retake_edge.config import RetakeConfig
from retake_edge.errors import ConfigError
from retake_edge.evaluate.jobs import Job, grouped, numbered, read_jobs, run_digest, shard
from retake_edge.evaluate.rows import RowFile
from retake_edge.evaluate.variants import variants


def job(key, video="v.mp4", **more):
    return Job(
        key,
        key,
        video,
        more.pop("folder", None) or __import__("pathlib").Path(video),
        key,
        key,
        **more,
    )


def write_all(path, keys):
    with RowFile(path, "run") as rows:
        for key in keys:
            if key not in rows.done:
                rows.append({"key": key, "text": "ü\n" + key, "error": None})


def test_cut_at_fifty_random_bytes_no_row_is_lost_or_there_twice(tmp_path):
    keys, rng, path = [f"job-{n}" for n in range(12)], random.Random(0), tmp_path / "rows.jsonl"
    write_all(path, keys)
    whole = path.read_bytes()
    for _ in range(50):
        path.write_bytes(whole[: rng.randrange(len(whole) + 1)])
        before = path.read_bytes().count(b"\n")
        with RowFile(path, "run") as rows:
            assert len(rows.rows) == before
        write_all(path, keys)
        assert path.read_bytes() == whole


def test_rows_of_another_run_are_refused(tmp_path):
    write_all(tmp_path / "rows.jsonl", ["a"])
    with pytest.raises(ConfigError, match="another model or other settings"):
        RowFile(tmp_path / "rows.jsonl", "other")


@pytest.mark.parametrize("text", ["mine\nand this", "mine", "{}", "{}\n", "[1]\n", "\n"])
def test_a_file_that_is_something_else_is_not_touched(tmp_path, text):
    (tmp_path / "notes.txt").write_text(text)
    with pytest.raises(ConfigError, match=r"Line \d of .* is no row"):
        RowFile(tmp_path / "notes.txt", "run")
    assert (tmp_path / "notes.txt").read_text() == text


def test_two_processes_cannot_write_one_file(tmp_path):
    with (
        RowFile(tmp_path / "rows.jsonl", "run"),
        pytest.raises(ConfigError, match="written by another process"),
    ):
        RowFile(tmp_path / "rows.jsonl", "run")


def test_a_run_that_fails_before_its_first_row_leaves_no_file(tmp_path):
    path = tmp_path / "rows.jsonl"
    with pytest.raises(ConfigError), RowFile(path, "r"):
        raise ConfigError("no such setting")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigError), RowFile(path, "r") as rows:
        rows.append({"key": "a"})
        raise ConfigError("the disk is full")
    assert len(path.read_text().splitlines()) == 1


def test_failed_rows_can_be_dropped(tmp_path):
    with RowFile(tmp_path / "rows.jsonl", "run") as rows:
        rows.append({"key": "a", "error": None})
        rows.append({"key": "b", "error": {"kind": "VideoError", "message": "no"}})
    with RowFile(tmp_path / "rows.jsonl", "run", drop_failed=True) as rows:
        assert rows.done == {"a"}
        rows.append({"key": "b", "error": None})
    lines = (tmp_path / "rows.jsonl").read_text().splitlines()
    assert [json.loads(line)["key"] for line in lines] == ["a", "b"]


def test_a_video_is_one_group_and_done_jobs_are_left_out():
    jobs = [job("1", "a"), job("2", "b"), job("3", "a"), job("4", "a", start_s=3.0)]
    assert [[j.key for j in g.jobs] for g in grouped(jobs)] == [["1", "3"], ["4"], ["2"]]
    assert [[j.key for j in g.jobs] for g in grouped(jobs, frozenset({"1", "4"}))] == [["3"], ["2"]]


def test_shards_are_apart_and_together_whole():
    jobs = [job(str(n), f"v{n % 5}") for n in range(17)]
    shards = [shard(jobs, f"{i}/3") for i in (1, 2, 3)]
    assert sorted(j.key for part in shards for j in part) == sorted(j.key for j in jobs)
    videos = [{j.file for j in part} for part in shards]
    assert not (videos[0] & videos[1] or videos[1] & videos[2] or videos[0] & videos[2])
    for text in ("0/3", "4/3", "3", "a/b", "1/0", "-1/2"):
        with pytest.raises(ConfigError, match="must be i/n"):
            shard(jobs, text)


def test_the_same_question_twice_is_two_jobs():
    assert [j.key for j in numbered([job("a"), job("b"), job("a")])] == ["a", "b", "a-2"]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ({"question": "Q?"}, "Line 1 of .* has no 'video'"),
        ({"video": "v", "question": ""}, "question is empty"),
        ({"video": "v", "question": "Q", "qestion": 1}, "has 'qestion'; a job has id, video"),
        ({"video": "v", "question": "Q", "options": "AB"}, "they must be a list of texts"),
        ({"video": "v", "question": "Q", "options": ["x"], "answer": "y"}, "none of its options"),
        ({"video": "v", "question": "Q", "start": -3}, "must be a time"),
        ({"video": "v", "question": "Q", "start": 20, "end": 10}, "ends at 10 s, which is not"),
        ({"video": "v", "question": "Q", "answer": ["x"]}, "it must be a text"),
        ({"video": "v", "question": "Q", "end": "soon"}, "must be seconds"),
    ],
)
def test_a_line_that_is_no_job_is_told(tmp_path, line, says):
    (tmp_path / "jobs.jsonl").write_text(json.dumps(line))
    with pytest.raises(ConfigError, match=says):
        read_jobs(tmp_path / "jobs.jsonl")


def test_a_jobs_answer_is_a_letter_or_the_options_text(tmp_path):
    line = {"video": "v", "question": "Q", "options": ["x", "y"], "start": "1:30", "end": 95}
    text = "".join(json.dumps(line | {"answer": a}) + "\n" for a in ("y", "B"))
    (tmp_path / "jobs.jsonl").write_text(text)
    jobs = read_jobs(tmp_path / "jobs.jsonl")
    assert [j.answer for j in jobs] == ["B", "B"] and jobs[0].start_s == 90.0
    assert jobs[0].file == tmp_path / "v"


def test_a_run_is_named_by_what_answers_depend_on_and_not_by_threads():
    settings = RetakeConfig()
    threads = RetakeConfig.from_dict({"runtime": {"n_threads": 3}})
    tokens = RetakeConfig.from_dict({"generation": {"max_tokens": 3}})
    named = run_digest(settings, {"model": "a"})
    assert named == run_digest(threads, {"model": "a"})
    assert named != run_digest(tokens, {"model": "a"}) and named != run_digest(
        settings, {"model": "b"}
    )


def test_variants_are_read_as_they_are_written():
    found = variants("policy=spread, keep-ratio=0.25; policy=none; max-frames=32", RetakeConfig())
    assert list(found) == ["policy=spread,keep-ratio=0.25", "policy=none", "max-frames=32"]
    assert found["policy=spread,keep-ratio=0.25"].compression.keep_ratio == 0.25
    assert found["max-frames=32"].sampling.max_frames == 32
    for text in (
        "policy=none",
        "policy=none; x=3",
        "policy; keep-ratio=1",
        "keep-ratio=a; keep-ratio=1",
        "keep-ratio=2; keep-ratio=1",
    ):
        with pytest.raises(ConfigError):
            variants(text, RetakeConfig())


def test_the_name_that_the_version_before_gave_the_keep_ratio_is_read():
    found = variants("keep=0.5; keep=0.25", RetakeConfig())
    assert [config.compression.keep_ratio for config in found.values()] == [0.5, 0.25]
