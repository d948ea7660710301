"""A client's grammar is tried in a process of its own before the model's thread follows it.

llama.cpp can end the process on some grammars, and on others compute for ever before a single
token, which no thread can stop.

    python -m retake_edge.server.grammar_trial MODEL < GRAMMAR       exit code 0, or a sentence
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
from pathlib import Path
from typing import NoReturn, cast

from retake_edge.engine.trial import end_after
from retake_edge.errors import ConfigError

_MAX_CPU_S = 10
_MAX_SECONDS = 60
_MAX_REMEMBERED = 1000
_N_TOKENS = 4
_tried: dict[str, None] = {}
_lock = threading.Lock()


def check_grammar_runs(model_path: Path, grammar: str) -> None:
    """Raise ConfigError where a grammar cannot be followed, or not in any reasonable time."""
    key = hashlib.sha256(f"{model_path}\n{grammar}".encode()).hexdigest()
    if key in _tried:
        return
    call = [sys.executable, "-m", "retake_edge.server.grammar_trial", str(model_path)]
    try:
        done = subprocess.run(
            call,
            input=grammar.encode(),
            capture_output=True,
            timeout=_MAX_SECONDS,
            cwd=Path(__file__).resolve().parents[2],
            start_new_session=True,
        )
    except subprocess.TimeoutExpired:
        done = None
    if done is None or done.returncode != 0:
        told = done.stdout.decode("utf-8", "replace").strip() if done is not None else ""
        raise ConfigError(told or "llama.cpp cannot follow the grammar in time; simplify it.")
    with _lock:
        _tried[key] = None
        while len(_tried) > _MAX_REMEMBERED:
            _tried.pop(next(iter(_tried)))


class _AllAlike:
    """Logits that prefer no token."""

    def __init__(self, n_vocab: int) -> None:
        import numpy as np

        self._logits = np.zeros(n_vocab, np.float32)

    def logits(self) -> object:
        return self._logits


def _follow(model_path: Path, grammar: str) -> None:
    from retake_edge.llama.context import Context
    from retake_edge.llama.model import Model
    from retake_edge.llama.sampler import Sampler, SamplerSettings

    greedy = SamplerSettings(0.0, 0, 1.0, 0.0, 1.0, 0.0, 0)
    with Model(model_path, n_gpu_layers=0, weights=False) as model:
        _limit()
        logits = _AllAlike(model.n_vocab)
        with Sampler(model, greedy, 0, grammar) as sampler:
            for _ in range(_N_TOKENS):
                if model.is_end(sampler.draw(cast(Context, logits))):
                    break


def _limit() -> None:
    """End this process where it takes too long or too much memory (POSIX)."""
    if sys.platform == "win32":
        return
    import resource

    used_s = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    limits = {resource.RLIMIT_CPU: int(used_s) + _MAX_CPU_S, resource.RLIMIT_CORE: 0}
    for name, soft in limits.items():
        resource.setrlimit(name, (soft, resource.getrlimit(name)[1]))


def main() -> NoReturn:
    """Follow the grammar of the standard input for some tokens."""
    end_after(lambda: _follow(Path(sys.argv[1]), sys.stdin.buffer.read().decode()))


if __name__ == "__main__":
    main()
