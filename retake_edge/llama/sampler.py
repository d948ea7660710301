"""Draw an answer's tokens with llama.cpp's own sampler chain.

The order is that of llama.cpp's command line: penalties, top-k, top-p, min-p, temperature, draw. A
grammar stands before them all, so that no filter can leave only tokens that it forbids.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np

from retake_edge.config import GenerationConfig
from retake_edge.errors import ConfigError
from retake_edge.llama import library
from retake_edge.llama.context import Context
from retake_edge.llama.grammar import check_grammar
from retake_edge.llama.model import Floats, Model

_MIN_KEEP = 1
_ROOT = b"root"
# llama_token_data
_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])


@dataclass(frozen=True)
class SamplerSettings:
    """The settings for drawing tokens, every value known; the names are llama.cpp's.

    `temperature` 0 takes the likeliest token. `top_k` 0, `top_p` 1, `min_p` 0, `repeat_penalty` 1
    and `presence_penalty` 0 each change nothing. `repeat_last_n`: tokens that the two penalties
    look back at, 0 none.
    """

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repeat_penalty: float
    presence_penalty: float
    repeat_last_n: int

    @property
    def has_penalties(self) -> bool:
        """True if tokens that were there before weigh less."""
        changes = self.repeat_penalty != 1 or self.presence_penalty != 0
        return changes and self.repeat_last_n > 0


# By field: the key in a GGUF's `general.sampling`, and llama.cpp's own default. The temperature
# alone differs: without one the likeliest token is taken, so that answers can be had again.
_METADATA: dict[str, tuple[str, float]] = {
    "temperature": ("temp", 0.0),
    "top_k": ("top_k", 40),
    "top_p": ("top_p", 0.95),
    "min_p": ("min_p", 0.05),
    "repeat_penalty": ("penalty_repeat", 1.0),
    "presence_penalty": ("", 0.0),
    "repeat_last_n": ("penalty_last_n", 64),
}


def settings_of_run(model: Model, config: GenerationConfig) -> SamplerSettings:
    """Return the settings of a run: what was asked for, else the model file's, else the default.

    A value of the file that is no number, or out of range, counts as absent.
    """
    values: dict[str, Any] = {}
    for name, (key, default) in _METADATA.items():
        asked = getattr(config, name)
        values[name] = asked if asked is not None else _of_file(model, name, key, default)
    return SamplerSettings(**values)


def _of_file(model: Model, name: str, key: str, default: float) -> float:
    text = model.metadata(f"general.sampling.{key}") if key else None
    try:
        value = type(default)(float(text)) if text is not None else default
        checked: dict[str, Any] = {name: value}
        GenerationConfig(**checked)
    except (ValueError, OverflowError, ConfigError):
        return default
    return value


def _log_sum(logits: Floats) -> float:
    """The logarithm of the sum of e to the logits; those of -inf count for nothing."""
    most = float(logits.max())
    return most + float(np.log(np.exp(logits - np.float32(most), dtype=np.float64).sum()))


class Sampler:
    """A sampler chain for one answer, to be closed after it.

    `log_probability`: of the token drawn last, by the model alone (no filter, temperature 1).

    Raises:
        ConfigError: llama.cpp cannot read the grammar.
    """

    def __init__(self, model: Model, settings: SamplerSettings, seed: int, grammar: str) -> None:
        self._llama = library.load_libraries()
        params = self._llama.llama_sampler_chain_default_params()
        self.log_probability = 0.0
        self._chain: Any = self._llama.llama_sampler_chain_init(params)
        self._penalties: Any = None
        self._candidates = np.zeros(model.n_vocab, _CANDIDATE)
        try:
            self._fill(model, settings, seed, grammar)
        except ConfigError:
            self.close()
            raise

    def __enter__(self) -> Sampler:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the chain."""
        if self._chain:
            self._llama.llama_sampler_free(self._chain)
            self._chain = self._penalties = None

    def remember(self, tokens: list[int]) -> None:
        """Let the penalties know of tokens that were there before the answer."""
        if self._penalties:
            for token in tokens:
                self._llama.llama_sampler_accept(self._penalties, token)

    def draw(self, context: Context) -> int:
        """Return the next token, drawn from the logits of the last decoded row.

        Raises:
            ConfigError: the grammar allows none.
        """
        logits = context.logits()
        self._candidates["logit"] = logits
        self._candidates["id"] = np.arange(len(self._candidates))
        self._candidates["p"] = 0
        array = self._llama.llama_token_data_array()
        array.data = self._candidates.ctypes.data_as(type(array.data))
        array.size, array.selected, array.sorted = len(self._candidates), -1, False
        self._llama.llama_sampler_apply(self._chain, ctypes.byref(array))
        drawn = self._candidates[array.selected]
        if drawn["logit"] == -np.inf:  # llama.cpp would end the process
            raise ConfigError("The grammar allows no token of this model here; check --grammar.")
        token = int(drawn["id"])
        self._llama.llama_sampler_accept(self._chain, token)
        self.log_probability = float(logits[token] - _log_sum(logits))
        return token

    def _fill(self, model: Model, settings: SamplerSettings, seed: int, grammar: str) -> None:
        llama = self._llama
        if grammar:
            check_grammar(grammar)
            self._add(llama.llama_sampler_init_grammar(model.vocab, grammar.encode(), _ROOT))
        if settings.has_penalties:
            self._penalties = self._add(
                llama.llama_sampler_init_penalties(
                    model.n_vocab,
                    settings.repeat_last_n,
                    settings.repeat_penalty,
                    0.0,
                    settings.presence_penalty,
                )
            )
        if settings.temperature == 0:
            self._add(llama.llama_sampler_init_greedy())
            return
        self._add(llama.llama_sampler_init_top_k(settings.top_k))
        self._add(llama.llama_sampler_init_top_p(settings.top_p, _MIN_KEEP))
        self._add(llama.llama_sampler_init_min_p(settings.min_p, _MIN_KEEP))
        self._add(llama.llama_sampler_init_temp(settings.temperature))
        self._add(llama.llama_sampler_init_dist(seed))

    def _add(self, sampler: Any) -> Any:
        if not sampler:
            reason = library.last_error() or "no reason given"
            raise ConfigError(f"llama.cpp cannot read the grammar ({reason}); check --grammar.")
        self._llama.llama_sampler_chain_add(self._chain, sampler)
        return sampler
