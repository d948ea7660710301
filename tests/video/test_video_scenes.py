"""A video with known answers in many forms: the answer and its time stay (video_matrix.scenes)."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from video_matrix.scenes import Form, forms, judge

pytestmark = [
    pytest.mark.ffmpeg,
    pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="there is no ffmpeg"),
]
N_TESTED = 8  # the first forms are the odd ones; `python -m video_matrix.scenes` asks about all


@pytest.mark.parametrize("form", forms()[:N_TESTED], ids=lambda form: form.name)
def test_the_answer_and_its_time_stay_in_every_form_of_the_video(
    form: Form, tmp_path: Path
) -> None:
    assert judge(form, tmp_path / "made") == []
