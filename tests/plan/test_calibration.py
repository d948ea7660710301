"""What runs took tells what others will take; a memory that is damaged is done without."""

import json

import pytest

from retake_edge.plan.seconds import Calibration, Work, measured

WORK = Work(decode=100.0, encode=200.0, prefill=400.0, question=40.0, answer=10.0)


def double(work: Work) -> Work:
    return Work(2 * work.decode, 2 * work.encode, 2 * work.prefill, 40.0, 20.0)


@pytest.fixture
def calibration(tmp_path):
    return Calibration(tmp_path / "new")


def test_nothing_is_known_before_the_first_run_and_of_other_models(calibration):
    assert calibration.seconds("a", WORK, 5) is None
    calibration.add("a", WORK, {"encode": 3.0})
    assert calibration.seconds("b", WORK, 5) is None


def test_twice_the_work_takes_twice_as_long(calibration):
    calibration.add("a", WORK, {"decode": 1.0, "encode": 2.0, "prefill": 4.0})
    calibration.add("a", WORK, {"answer": 6.0}, 3)
    seconds = calibration.seconds("a", double(WORK), 5)
    assert seconds == pytest.approx(
        {"decode": 2.0, "encode": 4.0, "prefill": 8.0, "answer": 5 * 4.0 + 40.0 * 4.0 / 400.0}
    )


def test_stages_that_were_not_measured_are_left_out(calibration):
    calibration.add("a", WORK, {"encode": 2.0, "load": 7.0})
    assert calibration.seconds("a", WORK, 5) == {"encode": 2.0}


def test_the_newest_run_counts_most_and_large_ones_more_than_small_ones(calibration):
    calibration.add("a", WORK, {"encode": 2.0})
    calibration.add("a", WORK, {"encode": 5.0})
    assert calibration.seconds("a", WORK, 1)["encode"] == pytest.approx((0.5 * 2 + 5) / 1.5)
    calibration.add("b", double(WORK), {"encode": 4.0})
    calibration.add("b", WORK, {"encode": 5.0})
    assert calibration.seconds("b", WORK, 1)["encode"] == pytest.approx((2 + 5) / 2)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"a": 3}', b'{"a": {"encode": [0, 1]}}', b'{"a": {"encode": ["x", 1]}}'],
)
def test_a_damaged_file_counts_as_none_and_is_written_anew(tmp_path, content):
    (tmp_path / "calibration.json").write_bytes(content)
    calibration = Calibration(tmp_path)
    assert calibration.seconds("a", WORK, 1) is None
    calibration.add("a", WORK, {"encode": 2.0})
    assert json.loads((tmp_path / "calibration.json").read_bytes())["a"] == {"encode": [200.0, 2.0]}


def test_without_a_folder_nothing_is_kept(tmp_path):
    calibration = Calibration(None)
    calibration.add("a", WORK, {"encode": 2.0})
    assert calibration.seconds("a", WORK, 1) is None
    (tmp_path / "file").touch()
    Calibration(tmp_path / "file" / "below").add("a", WORK, {"encode": 2.0})  # cannot be made


def test_compression_belongs_to_prefill():
    seconds = {"decode": 1.0, "prefill": 2.0, "score": 0.5, "select": 0.25, "compact": 0.25}
    assert measured(seconds | {"load": 9.0, "save": 9.0}) == {"decode": 1.0, "prefill": 3.0}
    assert measured({"load": 1.0}) == {}
