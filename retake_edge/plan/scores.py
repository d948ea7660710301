"""Count the memory of scoring a chunk, or an answer's evidence, beside the cells.

The sizes of cpp_patches/src/retake-kvc-scores.cpp. In host memory each thread holds one task:
queries twice, keys twice unless they are read in place, a block of softmax(QK^T), and sums; all
threads together hold at most TASK_BYTES_MAX, unless one alone needs more. On a device it is one
block of at most BLOCK_BYTES_DEVICE, twice where the backend has no outer product.
"""

from __future__ import annotations

from dataclasses import dataclass

from retake_edge.compress.policies import POLICIES
from retake_edge.config import RetakeConfig
from retake_edge.engine.attention import MOST_QUERIES
from retake_edge.llama.model import Model

TASK_BYTES_MAX = 256 << 20
TASK_QUERIES = 256
BLOCK_BYTES_HOST = 1 << 20
BLOCK_BYTES_DEVICE = 64 << 20
_BLOCK_ROWS_MIN = 16
_KEYS_PER_QUERY = 8
_F32, _F16, _F64 = 4, 2, 8
_THREADS = 4
"""Number of threads that llama.cpp takes where -t is not given."""


@dataclass(frozen=True)
class ScoreWork:
    """One scoring of `n_keys` keys by `n_queries` queries in `n_windows` windows.

    `type_k`: of the cache; `unrotates`: whether positions are taken out of queries and keys.
    """

    n_keys: int
    n_queries: int
    n_windows: int
    type_k: str
    unrotates: bool

    def kept_bytes(self, model: Model) -> int:
        """Queries as they are kept, in every layer, and a last row for those that are not."""
        size = _F32 if self.type_k == "f32" else _F16
        return model.n_layer * model.n_embd_q * (self.n_queries + 1) * size

    def host_bytes(self, model: Model, n_threads: int | None) -> int:
        """Return the bytes that the threads hold at once."""
        rows = (_BLOCK_ROWS_MIN + model.n_embd_q // model.n_embd_k) * self.n_keys * _F32
        task = max(BLOCK_BYTES_HOST, rows) + self.n_windows * self.n_keys * _F64
        task += 2 * _F32 * min(TASK_QUERIES, self.n_queries) * model.n_embd_q
        if not self._reads_keys_in_place:
            task += 2 * _F32 * self.n_keys * model.n_embd_k
        n_tasks = model.n_layer * -(-self.n_queries // TASK_QUERIES)
        return max(task, min(min(n_threads or _THREADS, n_tasks) * task, TASK_BYTES_MAX))

    @property
    def _reads_keys_in_place(self) -> bool:
        is_plain = self.type_k in ("f16", "f32") and not self.unrotates
        return is_plain and _KEYS_PER_QUERY * self.n_queries <= self.n_keys

    def device_bytes(self, model: Model) -> int:
        """Return the bytes that one layer takes of a device's compute buffer."""
        row = self.n_keys * model.n_head * _F32
        block = max(row, min(BLOCK_BYTES_DEVICE, row * self.n_queries))
        keys = self.n_keys * model.n_embd_k * 2 * _F32
        return keys + 2 * block + 2 * _F32 * self.n_queries * model.n_embd_q


def score_works(
    config: RetakeConfig,
    n_chunk: int,
    n_kept: int,
    *,
    scores: bool,
    reforges: bool = False,
    n_guide: int = 0,
) -> list[ScoreWork]:
    """Return what a run scores: `n_chunk` tokens of a chunk (with `scores`), and the evidence of an
    answer over `n_kept` cells. `reforges`: whether positions are; `n_guide`: tokens of the one
    question that scores chunks in their own queries' place.
    """
    compression, type_k = config.compression, config.runtime.type_k
    works = [ScoreWork(n_kept, MOST_QUERIES, 1, type_k, unrotates=False)]
    policy = POLICIES[compression.policy]
    if scores and policy.needs_scores:
        stride = max(1, n_chunk // compression.n_queries) if compression.n_queries else 1
        n_queries = n_guide or -(-n_chunk // stride)
        works.append(ScoreWork(n_chunk, n_queries, policy.query_windows, type_k, reforges))
    return works
