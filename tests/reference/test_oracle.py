"""The native compression equals the slow one through public API; llama.cpp equals numpy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retake_edge.golden.pivotkv import load_case
from retake_edge.golden.reference.model import ReferenceModel
from retake_edge.golden.report import GoldenSet
from retake_edge.golden.runners.blob import parse_sequence_state
from retake_edge.golden.runners.case import (
    KEEP,
    SHARED,
    NumpyRunner,
    PrefillCase,
    PrefillResult,
    run_case,
)
from retake_edge.golden.runners.native import NativeRunner, write_yarn_model
from retake_edge.golden.runners.oracle import OracleRunner

GOLDEN = Path(__file__).parents[1] / "golden"
MODEL = GOLDEN / "tiny-f32.gguf"


def case_of(name: str) -> PrefillCase:
    data = GoldenSet(GOLDEN, "pivotkv")
    return next(load_case(data, case) for case in data.cases if case["id"] == name)


def both(settings: dict[str, Any], case: PrefillCase, rule: str) -> list[PrefillResult]:
    """Run a case natively and through the oracle."""
    results = []
    for runner in (NativeRunner, OracleRunner):
        with runner(MODEL, n_cells=256, **settings) as ready:
            results.append(run_case(case, ready, rule))
    return results


F16 = {"type_k": "f16", "type_v": "f16", "flash_attention": "on"}


@pytest.mark.parametrize(
    "settings",
    [{}, {"flash_attention": "on"}, F16, {"type_v": "q8_0", "flash_attention": "on"}],
    ids=["f32", "f32 flash", "f16 flash", "v q8_0 flash"],
)
def test_native_kept_cells_equal_the_oracles_bit_for_bit(settings: dict[str, Any]) -> None:
    native, oracle = both(settings, case_of("A_F5_r0.25_keep_patch"), KEEP)
    np.testing.assert_array_equal(native.kept, oracle.kept)
    # With f16 K, native scores use f16 products; the kept sets above are still the same.
    tolerance = 1e-6 if settings.get("type_k", "f32") == "f32" else 2e-3
    np.testing.assert_allclose(native.scores, oracle.scores, atol=tolerance)
    np.testing.assert_array_equal(native.logits, oracle.logits)


@pytest.mark.parametrize("settings", [{}, F16], ids=["f32", "f16 flash"])
@pytest.mark.parametrize("name", ["A_F5_r0.5_reforge_patch", "C_F20_r0.5_reforge_sync"])
def test_native_keys_turn_to_their_new_positions_as_the_oracles_do(
    name: str, settings: dict[str, Any]
) -> None:
    native, oracle = both(settings, case_of(name), SHARED)
    np.testing.assert_array_equal(native.kept, oracle.kept)
    np.testing.assert_array_equal(native.tokens, oracle.tokens)
    # One more rounding of the turned key: of f32, or of f16.
    np.testing.assert_allclose(native.logits, oracle.logits, atol=2e-2 if settings else 2e-5)


def test_a_context_stretched_by_yarn_scores_and_turns_keys_like_numpy(tmp_path: Path) -> None:
    stretched = tmp_path / "yarn.gguf"
    write_yarn_model(MODEL, stretched, 4.0)
    reference = ReferenceModel(MODEL)
    plain = run_case(case_of("A_F6_r0.5_reforge_none"), NumpyRunner(reference), SHARED)
    reference.stretch(4.0)
    case = case_of("A_F6_r0.5_reforge_none")
    expected = run_case(case, NumpyRunner(reference), SHARED)
    assert np.abs(expected.logits - plain.logits).max() > 0.1, "YaRN must matter here"
    with NativeRunner(stretched, n_cells=256) as native:
        found = run_case(case, native, SHARED)
    np.testing.assert_array_equal(found.kept, expected.kept)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
    np.testing.assert_allclose(found.logits, expected.logits, atol=1e-3)


@pytest.fixture
def oracle() -> Iterator[OracleRunner]:
    runner = OracleRunner(MODEL, n_cells=256)
    with runner:
        yield runner


@pytest.mark.parametrize("flash_attention", ["on", "off"])
def test_a_sequence_state_survives_being_taken_apart(flash_attention: str) -> None:
    runner = OracleRunner(MODEL, n_cells=256, flash_attention=flash_attention)
    with runner:
        ids = np.tile(np.arange(9, dtype=np.int32), (runner.n_layer, 3, 1))
        runner.text(np.arange(20, 29, dtype=np.int32), ids)
        blob = runner.state()
    state = parse_sequence_state(blob)
    assert state.cells[:, 0].tolist() == list(range(9))
    assert state.is_v_transposed == (flash_attention == "off")
    assert state.to_bytes() == blob


def test_scores_of_the_oracle_add_up_to_the_tokens_of_the_chunk(oracle: OracleRunner) -> None:
    case = case_of("B_F2_r0.25_keep_patch")
    scores = run_case(case, oracle, KEEP).scores
    n = case.chunks[0][0]
    np.testing.assert_allclose(scores[:, :n].sum(axis=1), n, rtol=1e-5)
