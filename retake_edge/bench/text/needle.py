"""Needle in text: does the compressed cache of a pretrained language model keep hidden facts?

No vision: a document is prefilled in chunks exactly as a video is, each chunk compressed by the
policy under test, and the questions come after the compression. DPSelect has no meaning for
text, so there are no pivots and no changes: `pivotkv` is attention alone here, and `coverage`
starts without seeds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from retake_edge.bench.text.documents import ANSWERS, Document, Fact, make_document
from retake_edge.bench.variants import Variant, cells, require_ratios
from retake_edge.config import CompressionConfig, GenerationConfig, RetakeConfig, RuntimeConfig
from retake_edge.engine.chunks import PrefillChunk
from retake_edge.engine.engine import Engine
from retake_edge.engine.positions import text_positions
from retake_edge.errors import ConfigError
from retake_edge.llama.context import Context
from retake_edge.llama.model import Model
from retake_edge.models.families.template import text_prompt
from retake_edge.models.manifest import Prompt
from retake_edge.plan.frames import padded
from retake_edge.plan.memory import context_settings

_N_TEXT_RESERVE = 128
_ANSWER_TOKENS = 16


@dataclass(frozen=True)
class TextNeedleSettings:
    """Settings of a run.

    `n_sentences` of filler make about 17 tokens each; `answers`: what the facts tell (a code or a
    word); `chunk_tokens` are prefilled between two compressions.
    """

    seed: int = 0
    n_documents: int = 16
    n_sentences: int = 64
    n_facts: int = 4
    answers: str = "code"
    chunk_tokens: int = 256
    n_queries: int = 0
    keep_ratios: tuple[float, ...] = (0.5, 0.25, 0.125)

    def __post_init__(self) -> None:
        require_ratios(self.keep_ratios)
        if self.n_documents < 1 or self.chunk_tokens < 2 or self.seed < 0:
            raise ConfigError(
                f"--documents {self.n_documents}, --chunk-tokens {self.chunk_tokens}, --seed "
                f"{self.seed}: they must be at least 1, 2 and 0."
            )
        if self.answers not in ANSWERS:
            raise ConfigError(f"--answers is {self.answers!r}, but must be {' or '.join(ANSWERS)}.")
        if not 1 <= self.n_facts <= min(self.n_sentences, 20):
            raise ConfigError(
                f"--facts is {self.n_facts}, but must be from 1 to 20 and at most the number of "
                f"sentences ({self.n_sentences})."
            )


@dataclass(frozen=True)
class TextOutcome:
    """One question asked of one compressed document."""

    policy: str
    keep_ratio: float
    document: int
    depth: float
    answer: str
    text: str
    right: bool


@dataclass(frozen=True)
class TextNeedleResult:
    """All answers, and how long the documents were."""

    outcomes: list[TextOutcome]
    n_tokens: list[int]
    seconds: dict[str, float]


def run_text_needle(
    model: Model,
    variants: Sequence[Variant],
    settings: TextNeedleSettings,
    runtime: RuntimeConfig,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> TextNeedleResult:
    """Ask every fact of every document under every variant and keep ratio.

    Raises:
        ConfigError: a variant drops frames, which text does not have.
    """
    for variant in variants:
        if variant.frames:
            raise ConfigError(f"{variant.name} drops frames, and text has none; leave it out.")
    runs = cells(variants, settings.keep_ratios)
    prompt = text_prompt(model.chat_template)
    documents = [
        make_document(
            settings.seed * 100_003 + i, settings.n_sentences, settings.n_facts, settings.answers
        )
        for i in range(settings.n_documents)
    ]
    tokens = [model.tokenize(document.text) for document in documents]
    longest = max(map(len, tokens)) + len(model.tokenize(prompt.before)) + _N_TEXT_RESERVE + 1
    n_ctx = padded(longest)
    outcomes: list[TextOutcome] = []
    seconds: dict[str, float] = {}
    with _context(model, n_ctx, runtime) as context:
        for i, document in enumerate(documents):
            for j, (variant, keep_ratio) in enumerate(runs):
                start = time.perf_counter()
                engine = _prefilled(
                    context, tokens[i], prompt, variant, keep_ratio, settings, runtime
                )
                outcomes += _asked(engine, prompt, document, i, variant, keep_ratio)
                passed = time.perf_counter() - start
                seconds[variant.name] = seconds.get(variant.name, 0.0) + passed
                progress(i * len(runs) + j + 1, len(documents) * len(runs))
    return TextNeedleResult(outcomes, [len(t) for t in tokens], seconds)


def _context(model: Model, n_ctx: int, runtime: RuntimeConfig) -> Context:
    return Context(model, **context_settings(runtime, n_ctx, n_seq_max=1))


def _prefilled(
    context: Context,
    tokens: list[int],
    prompt: Prompt,
    variant: Variant,
    keep_ratio: float,
    settings: TextNeedleSettings,
    runtime: RuntimeConfig,
) -> Engine:
    """Compress a document chunk by chunk in an emptied context."""
    context.clear()
    compression = CompressionConfig(
        policy=variant.policy,
        pivot=variant.pivot,
        n_queries=settings.n_queries,
        seed=settings.seed,
    )
    config = RetakeConfig(
        compression=compression,
        runtime=runtime,
        generation=GenerationConfig(max_tokens=_ANSWER_TOKENS, temperature=0),
    )
    engine = Engine(context, config, n_text_reserve=_N_TEXT_RESERVE)
    engine.prefill_text(prompt.before)
    for chunk in text_chunks(context.model, tokens, settings.chunk_tokens, engine):
        engine.prefill_chunk(chunk, keep_ratio)
    return engine


def text_chunks(
    model: Model, tokens: list[int], chunk_tokens: int, engine: Engine
) -> Iterator[PrefillChunk]:
    """Yield chunks of text that may be evicted, each from the engine's next position on.

    A token counts as a frame of its own, and none is a pivot.
    """
    for start in range(0, len(tokens), chunk_tokens):
        part = tokens[start : start + chunk_tokens]
        n, base = len(part), engine.next_position
        ids = text_positions(n, base)
        yield PrefillChunk(
            embeddings=model.embed_tokens(part),
            positions=ids if model.n_pos_per_embd == 4 else ids[0],
            frame=np.arange(start, start + n, dtype=np.int32),
            is_text=np.zeros(n, np.bool_),
            pivots=np.zeros(n, np.bool_),
            distances=np.zeros(n, np.float32),
        )


def _asked(
    engine: Engine,
    prompt: Prompt,
    document: Document,
    index: int,
    variant: Variant,
    keep_ratio: float,
) -> list[TextOutcome]:
    return [
        TextOutcome(
            variant.name, keep_ratio, index, fact.depth, fact.answer, text, _tells(text, fact)
        )
        for fact in document.facts
        for text in [_answer(engine, prompt, fact)]
    ]


def _tells(text: str, fact: Fact) -> bool:
    return fact.answer in text.lower()


def _answer(engine: Engine, prompt: Prompt, fact: Fact) -> str:
    """Return what the model says, up to the right code if it says that."""
    said = b""
    for token in engine.generate(prompt.question(f"\n\n{fact.question}")):
        said += engine.model.piece(token)
        if fact.answer.encode() in said.lower():
            break
    return said.decode("utf-8", "replace").strip()


def outcome_dicts(result: TextNeedleResult) -> list[dict[str, object]]:
    """Return the answers as plain values."""
    return [asdict(outcome) for outcome in result.outcomes]
