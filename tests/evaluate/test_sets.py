"""The four sets in every shape in which they are published."""

import json
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from retake_edge.errors import ConfigError
from retake_edge.evaluate.locate import VideoFiles
from retake_edge.evaluate.records import read_records
from retake_edge.evaluate.sets import read_set

QUESTION = "What does he see?"
OPTIONS = ["a car", "the dog", "two (2)", "nothing"]
IN_BRACKETS = "What does he see?\n(A) a car\n(B) the dog\n(C) two (2)\n(D) nothing"
VIDEOMME = {
    "videoID": "abc",
    "question_id": "001-1",
    "duration": "long",
    "domain": "Knowledge",
    "sub_category": "Law",
    "task_type": "OCR Problems",
    "question": QUESTION,
    "options": ["A. a car", "B. the dog", "C. two (2)", "D. nothing"],
    "answer": "B",
}
LONGVIDEOBENCH = {
    "id": "v_0",
    "video_path": "v.mp4",
    "question": QUESTION,
    "duration_group": 3600,
    "question_category": "S2E",
    "correct_choice": 1,
}


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        parquet.write_table(pyarrow.Table.from_pylist(value), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(record) + "\n" for record in value))
    else:
        path.write_text(json.dumps(value))


def check(item, video):
    assert (item.question, list(item.options), item.answer) == (QUESTION, OPTIONS, "B")
    assert item.video == video


@pytest.mark.parametrize("name", ["videomme/test-00000-of-00001.parquet", "Video-MME.json"])
def test_videomme(tmp_path, name):
    write(tmp_path / name, [VIDEOMME])
    (item,) = read_set("videomme", tmp_path)
    check(item, "abc")
    assert item.groups["duration"] == ("long",) and item.groups["task"] == ("OCR Problems",)
    assert item.published.endswith("\nC. two (2)\nD. nothing")


def test_mlvu_as_json_without_its_generation_tasks(tmp_path):
    record = {
        "video": "m_1.mp4",
        "duration": 9,
        "question": QUESTION,
        "question_type": "findNeedle",
    }
    write(
        tmp_path / "MLVU/json/2_needle.json",
        [record | {"candidates": OPTIONS, "answer": "the dog"}],
    )
    write(tmp_path / "MLVU/json/9_summary.json", [record | {"answer": "A long text."}])
    (item,) = read_set("mlvu", tmp_path)
    check(item, "2_needle/m_1.mp4")
    assert item.groups == {"type": ("needle",)} and item.published == IN_BRACKETS


def test_mlvu_as_parquet(tmp_path):
    record = {
        "video_name": "m_1.mp4",
        "task_type": "needle",
        "question": IN_BRACKETS,
        "answer": "B",
    }
    write(tmp_path / "data/test-00000-of-00001.parquet", [record])
    (item,) = read_set("mlvu", tmp_path)
    check(item, "m_1.mp4")
    assert item.published == IN_BRACKETS


def test_lvbench_as_jsonl_and_as_parquet(tmp_path):
    asked: dict[str, Any] = {"uid": "7", "question": IN_BRACKETS, "answer": "B"}
    asked |= {"question_type": ["reasoning", "summarization"], "time_reference": "00:15-00:19"}
    write(tmp_path / "a/video_info.meta.jsonl", [{"key": "xyz", "type": "tv", "qa": [asked]}])
    write(tmp_path / "b/train-0.parquet", [{"video_path": "xyz.mp4", "key": "xyz", **asked}])
    for folder, video in (("a", "xyz"), ("b", "xyz.mp4")):
        (item,) = read_set("lvbench", tmp_path / folder)
        check(item, video)
        assert item.groups == {"type": ("reasoning", "summarization")}


def test_longvideobench_as_json_and_as_parquet(tmp_path):
    write(tmp_path / "a/lvb_val.json", [LONGVIDEOBENCH | {"candidates": OPTIONS}])
    named = {f"option{n}": text for n, text in enumerate([*OPTIONS, "N/A"])}
    write(tmp_path / "b/validation-00000-of-00001.parquet", [LONGVIDEOBENCH | named])
    for folder in ("a", "b"):
        (item,) = read_set("longvideobench", tmp_path / folder)
        check(item, "v.mp4")
        assert item.groups == {"duration": ("3600",), "type": ("S2E",)}


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("lvb_val.json", "[{", "is damaged"),
        ("lvb_val.json", '{"a": 1}', "holds no list of records"),
        ("lvb_val.json", '[{"id": 3}]', "Record 1 of .* has no 'correct_choice'|no 'question'"),
        ("other.json", "[]", "There is no table of longvideobench"),
    ],
)
def test_what_is_no_set_is_told(tmp_path, name, text, says):
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=says):
        read_set("longvideobench", tmp_path)


def test_a_question_twice_is_told(tmp_path):
    write(tmp_path / "lvb_val.json", [LONGVIDEOBENCH | {"candidates": OPTIONS}] * 2)
    with pytest.raises(ConfigError, match="'v_0' is there twice"):
        read_set("longvideobench", tmp_path)


def test_a_damaged_parquet_file_is_told(tmp_path):
    (tmp_path / "x.parquet").write_bytes(b"PAR1 and nothing more")
    with pytest.raises(ConfigError, match="is damaged"):
        read_records(tmp_path / "x.parquet")


def test_videos_are_found_by_name_in_any_folder(tmp_path):
    for name in ("data/abc.MP4", "video/1_plotQA/m.mp4", "video/2_needle/m.mp4", "x/v.1.mkv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    files = VideoFiles(tmp_path)
    assert files.find("abc") == tmp_path / "data/abc.MP4"
    assert files.find("abc.mp4") == tmp_path / "data/abc.MP4"
    assert files.find("2_needle/m.mp4") == tmp_path / "video/2_needle/m.mp4"
    assert files.find("v.1") == tmp_path / "x/v.1.mkv"
    assert files.find("v") is None
    assert files.missing(["abc", "no", "no", "abd"]) == ["no", "abd"]
    with pytest.raises(ConfigError, match=r"Several files are named m\.mp4"):
        files.find("m.mp4")


def test_a_line_that_is_no_json_is_told_by_its_number(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"a": 1}\n\n{bad\n')
    with pytest.raises(ConfigError, match=r"Line 3 of .*x\.jsonl is damaged"):
        read_records(tmp_path / "x.jsonl")
