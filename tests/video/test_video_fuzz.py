"""Mutated files (scripts/fuzz_video.py): read, read with a warning, or refused in a sentence."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from fuzz_video import FORMATS, attempts, command_line_exit, mutated

SEED = 11
N_FILES = 40


def test_mutated_files_are_read_or_refused(tmp_path: Path) -> None:
    outcomes = list(attempts(N_FILES, SEED, tmp_path, os.cpu_count() or 2))
    assert [o for o in outcomes if o.kind == "fault"] == []
    assert {o.source for o in outcomes} == set(FORMATS)
    assert {o.kind for o in outcomes} >= {"frames", "refused"}


@pytest.mark.parametrize("number", range(4))
def test_the_command_line_ends_with_an_answer_or_a_sentence(number: int, tmp_path: Path) -> None:
    code, said = command_line_exit(number, SEED, tmp_path)
    assert code in (0, 3), said
    assert "Traceback" not in said
    assert code == 0 or said.count("error: ") == 1


def test_a_mutated_file_is_the_same_every_time() -> None:
    assert [mutated(k, SEED) for k in range(16)] == [mutated(k, SEED) for k in range(16)]
    assert len({mutated(k, SEED)[2] for k in range(64)}) > 60
