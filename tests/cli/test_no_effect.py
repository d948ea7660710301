"""Options that change nothing are told of, each with the reason; those that do are not."""

import re

import pytest
from session_support import ARGUMENTS, MODEL, QUESTION, VIDEO, run

pytestmark = pytest.mark.process
PLAIN = [*("-m", str(MODEL.model), "-mm", str(MODEL.mmproj), "--max-frames", "4", "-n", "2")]


def in_vain(*arguments):
    code, _, err = run(*map(str, arguments))
    assert code == 0, err
    return dict(re.findall(r"^warning: (\S+) has no effect: (.+)$", err, re.MULTILINE))


def test_what_changes_the_answer_is_not_told_of():
    drawn = ["--temp", "1", "--top-k", "3", "--seed", "1", "--policy", "random"]
    drawn += ["--policy-seed", "2", "--repeat-penalty", "1.1", "--repeat-last-n", "8"]
    assert in_vain("ask", VIDEO, QUESTION, *ARGUMENTS, *drawn, "--no-cache") == {}


def test_what_all_other_options_leave_nothing_to_do_is_told_of(tmp_path):
    whole = ["--policy", "none", "--keep-ratio", "0.5", "--positions", "keep", "--policy-seed", "2"]
    drawn = ["--top-k", "3", "--seed", "1", "--repeat-last-n", "8", "--offline"]
    saved = ["--cache-dir", tmp_path, "--no-cache"]
    found = in_vain("ask", VIDEO, QUESTION, *PLAIN, *whole, *drawn, *saved, "--end", "99")
    told = {"--keep-ratio", "--positions", "--policy-seed", "--top-k", "--seed", "--repeat-last-n"}
    assert set(found) == told | {"--offline", "--cache-dir", "--end"}
    assert found["--keep-ratio"] == "with --policy none all is kept"


def test_a_rate_above_the_most_frames_and_an_answers_options_without_a_question_are_told_of(
    tmp_path,
):
    found = in_vain("index", VIDEO, *PLAIN, "--fps", "8", "--cache-dir", tmp_path)
    assert set(found) == {"--fps"} and "at most 4 frames" in found["--fps"]


def test_features_that_were_not_kept_are_told_of(tmp_path):
    saved = ["--cache-dir", tmp_path, "--look-again", "4"]
    assert in_vain("ask", VIDEO, QUESTION, *PLAIN, *saved, "--keep-features") == {}
    found = in_vain("ask", VIDEO, QUESTION, *PLAIN, "--no-cache", "--keep-features")
    assert found["--keep-features"] == "with --no-cache nothing is saved"
