"""The golden re-check as a command: it passes on the data, and notices when they are wrong."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from retake_edge.golden.limits import CPU, DEVICE
from retake_edge.golden.pivotkv import load_case, widest_gap
from retake_edge.golden.reference.model import ReferenceModel
from retake_edge.golden.report import Comparison, GoldenSet, Report
from retake_edge.golden.runners.case import KEEP, PER_LAYER, NumpyRunner, run_case

GOLDEN = Path(__file__).parents[1] / "golden"


def recheck(folder: Path) -> tuple[int, list[str], str]:
    """Run the command; return its exit code, the lines of stdout, and stderr."""
    command = [sys.executable, "-m", "retake_edge.golden", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout.splitlines(), done.stderr


def copy_of(folder: Path, *names: str) -> Path:
    """Copy data sets of the golden folder into `folder`."""
    folder.mkdir(exist_ok=True)
    for name in names:
        shutil.copy(GOLDEN / name, folder)
    return folder


def change_array(path: Path, key: str, change: float, at: int = 0) -> None:
    """Add `change` to one element of one array of an npz file."""
    with np.load(path) as arrays:
        content = dict(arrays)
    content[key] = content[key].copy()
    content[key].flat[at] += np.asarray(change, content[key].dtype)
    np.savez(path, **content)


@pytest.mark.process
def test_all_golden_cases_pass() -> None:
    code, lines, errors = recheck(GOLDEN)
    sizes = [len(GoldenSet(GOLDEN, name).cases) for name in ("dpselect", "pivotkv_unit", "pivotkv")]
    n_probes = len(GoldenSet(GOLDEN, "dpselect").info["probes"])
    assert lines[-1] == f"{sum(sizes) + n_probes} passed, 0 failed", "\n".join(lines)
    assert code == 0 and errors == ""


@pytest.mark.process
def test_a_wrong_score_and_a_wrong_kept_set_fail_with_their_differences(tmp_path: Path) -> None:
    folder = copy_of(tmp_path / "g", "pivotkv_unit.json", "pivotkv_unit.npz")
    change_array(folder / "pivotkv_unit.npz", "u00/score", 0.5)
    change_array(folder / "pivotkv_unit.npz", "u05/keep", 1)
    code, lines, _ = recheck(folder)
    failed = [line for line in lines if line.startswith("FAIL")]
    assert code == 1 and lines[-1] == "11 passed, 2 failed"
    assert "u00" in failed[0] and "score differs by max 0.5 mean 0.0139" in failed[0]
    assert "u05" in failed[1] and "keep differs by max 1" in failed[1]
    assert lines[0].endswith("has no dpselect data; the rest is checked.")


@pytest.mark.process
def test_wrong_logits_of_the_engine_fail(tmp_path: Path) -> None:
    names = ("pivotkv.json", "pivotkv.npz", "tiny-f32.gguf")
    folder = copy_of(tmp_path / "g", *names)
    info = json.loads((folder / "pivotkv.json").read_text())
    info["cases"] = [c for c in info["cases"] if c["id"] == "A_F6_r0.5_keep_none"]
    (folder / "pivotkv.json").write_text(json.dumps(info))
    assert recheck(folder)[0] == 0
    change_array(folder / "pivotkv.npz", "A_F6_r0.5_keep_none/native/logits", 2e-3, at=600)
    code, lines, _ = recheck(folder)
    assert code == 1 and lines[-1] == "0 passed, 1 failed"
    assert "logit differs by max 0.002" in lines[2]


@pytest.mark.process
@pytest.mark.parametrize("kind", ["missing", "empty", "half", "damaged", "no model", "no array"])
def test_bad_input_exits_2_with_one_sentence(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "g"
    if kind != "missing":
        folder.mkdir()
    if kind in ("half", "damaged"):
        copy_of(folder, "pivotkv_unit.json")
    if kind == "damaged":
        (folder / "pivotkv_unit.npz").write_bytes(b"no archive")
    if kind in ("no model", "no array"):
        copy_of(folder, "pivotkv.json", "pivotkv.npz")
    if kind == "no array":
        copy_of(folder, "tiny-f32.gguf")
        np.savez(folder / "pivotkv.npz", nothing=np.zeros(1))
    code, lines, errors = recheck(folder)
    assert code == 2 and not any("passed" in line for line in lines)
    assert len(errors.strip().splitlines()) == 1 and "Traceback" not in errors


def test_numpy_alone_reproduces_a_prefill_under_each_rule_of_the_reference() -> None:
    data, runner = (
        GoldenSet(GOLDEN, "pivotkv"),
        NumpyRunner(ReferenceModel(GOLDEN / "tiny-f32.gguf")),
    )
    wanted = {"C_F20_r0.5_keep_patch": KEEP, "A_F5_r0.5_reforge_patch": PER_LAYER}
    for case in data.cases:
        if case["id"] not in wanted:
            continue
        key = f"{case['id']}/{case['primary']}"
        found = run_case(load_case(data, case), runner, wanted[case["id"]])
        for name in ("kept", "pos", "comp_pos", "post_pos", "dec_pos", "tokens"):
            np.testing.assert_array_equal(getattr(found, name), data[f"{key}/{name}"], name)
        np.testing.assert_allclose(found.scores, data[f"{key}/score"], atol=1e-5)
        np.testing.assert_allclose(found.logits, data[f"{key}/logits"], atol=1e-4)


def test_a_kept_set_may_differ_on_a_device_where_scores_are_a_near_tie() -> None:
    scores = np.array([[0.5, 0.4999, 0.1], [0.3, 0.2, 0.1]], np.float32)
    expected = np.array([[True, False, True], [True, True, False]])
    found = np.array([[False, True, True], [True, True, False]])
    gap = widest_gap(found, expected, scores)
    assert gap == pytest.approx(1e-4, rel=1e-2)
    near, far = Comparison("kept"), Comparison("kept")
    near.near_tie("kept", gap, 2 * DEVICE.score)
    far.near_tie("kept", widest_gap(found, expected, scores * 1000), 2 * DEVICE.score)
    assert (near.problems, len(near.near_ties)) == ([], 1)
    assert (len(far.problems), far.near_ties) == (1, [])


def test_near_ties_are_counted_and_told(capsys: pytest.CaptureFixture[str]) -> None:
    report, near = Report(), Comparison("kept")
    near.near_tie("kept", 1e-4, 1e-3)
    report.add("case", near)
    report.close()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("near case") and lines[-1] == "1 passed, 0 failed"
    assert any(line.startswith("1 end at a near-tie") for line in lines)


def test_on_the_processor_no_index_may_differ() -> None:
    assert not CPU.near_ties and DEVICE.near_ties
    assert CPU.score < DEVICE.score < 1e-2
