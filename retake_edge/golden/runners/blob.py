"""llama.cpp's blob of one sequence, taken apart and put together: cells, keys and values.

Layout of the pinned llama.cpp (llama_context::state_seq_get_data, llama_kv_cache::state_write):
magic, sequence, streams, cells; per cell its position, extension and sequences; then every layer's
K rows and V rows, V as columns where it is stored transposed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int32]


@dataclass(frozen=True)
class SequenceState:
    """The cells of one sequence, in cell order.

    `cells`: int32 [m, 7], each cell's metadata: position, number of sequences, width, height,
    token, bias (its bits) and the sequence. `k`, `v`: per layer uint8 [m, row bytes].
    `k_types`, `v_types`: ggml types. `is_v_transposed`: how V is written back.
    """

    header: bytes
    cells: Ints
    k: list[Bytes]
    v: list[Bytes]
    k_types: list[int]
    v_types: list[int]
    is_v_transposed: bool

    def take(self, kept: Ints, positions: Ints) -> SequenceState:
        """Keep int [layer, n_keep] rows of each layer, in cells at int32 [n_keep] positions.

        With M-RoPE llama.cpp hides cells of equal time that lie further right or below; a cell
        that differs between layers has no such place, so it gets 0, 0: hidden from none.
        """
        cells = self.cells[kept[0]].copy()
        cells[:, 0] = positions
        cells[:, 2:4] = 0
        return replace(
            self,
            cells=cells,
            k=[rows[row] for rows, row in zip(self.k, kept, strict=True)],
            v=[rows[row] for rows, row in zip(self.v, kept, strict=True)],
        )

    def followed_by(self, other: SequenceState) -> SequenceState:
        """Return these cells and then those of `other`, of the same cache."""
        return replace(
            self,
            cells=np.concatenate([self.cells, other.cells]),
            k=[np.concatenate(rows) for rows in zip(self.k, other.k, strict=True)],
            v=[np.concatenate(rows) for rows in zip(self.v, other.v, strict=True)],
        )

    def to_bytes(self) -> bytes:
        """Return the blob that `parse_sequence_state` would read as this."""
        n_cells, n_layer = len(self.cells), len(self.k)
        parts = [self.header, _u32(n_cells), self.cells.astype("<i4").tobytes()]
        parts += [_u32(int(self.is_v_transposed)), _u32(n_layer)]
        for kind, rows in zip(self.k_types, self.k, strict=True):
            parts += [_u32(kind), _u64(rows.shape[1]), rows.tobytes()]
        for kind, rows in zip(self.v_types, self.v, strict=True):
            if not self.is_v_transposed:
                parts += [_u32(kind), _u64(rows.shape[1]), rows.tobytes()]
                continue
            size = _ELEMENT_BYTES[kind]
            elements = rows.reshape(n_cells, -1, size)
            columns = np.ascontiguousarray(elements.transpose(1, 0, 2))
            parts += [_u32(kind), _u32(size), _u32(elements.shape[1]), columns.tobytes()]
        return b"".join(parts)


_CELL_WIDTH = 7
_ELEMENT_BYTES = {0: 4, 1: 2}
_HEADER_BYTES = 12
_STREAMS_AT = 8


def parse_sequence_state(blob: bytes) -> SequenceState:
    """Take apart what `Context.sequence_state` returns."""
    reader = _Reader(blob)
    header = reader.bytes(_HEADER_BYTES)
    assert int.from_bytes(header[_STREAMS_AT:], "little") == 1, "a unified cache has one stream"
    n_cells = reader.u32()
    cells = np.frombuffer(reader.bytes(4 * _CELL_WIDTH * n_cells), "<i4")
    cells = cells.reshape(n_cells, _CELL_WIDTH)
    is_v_transposed, n_layer = bool(reader.u32()), reader.u32()
    k, v, k_types, v_types = [], [], [], []
    for _ in range(n_layer):
        k_types.append(reader.u32())
        k.append(reader.rows(n_cells, reader.u64()))
    for _ in range(n_layer):
        v_types.append(reader.u32())
        if not is_v_transposed:
            v.append(reader.rows(n_cells, reader.u64()))
            continue
        size, n_values = reader.u32(), reader.u32()
        columns = reader.rows(n_values, n_cells * size).reshape(n_values, n_cells, size)
        v.append(columns.transpose(1, 0, 2).reshape(n_cells, n_values * size))
    assert reader.is_at_end, "the blob holds more than a plain KV cache writes"
    return SequenceState(header, cells, k, v, k_types, v_types, is_v_transposed)


class _Reader:
    def __init__(self, blob: bytes) -> None:
        self._blob, self._at = blob, 0

    @property
    def is_at_end(self) -> bool:
        return self._at == len(self._blob)

    def bytes(self, n: int) -> bytes:
        part = self._blob[self._at : self._at + n]
        assert len(part) == n, "the blob ends early"
        self._at += n
        return part

    def u32(self) -> int:
        return int.from_bytes(self.bytes(4), "little")

    def u64(self) -> int:
        return int.from_bytes(self.bytes(8), "little")

    def rows(self, n: int, row_bytes: int) -> Bytes:
        return np.frombuffer(self.bytes(n * row_bytes), np.uint8).reshape(n, row_bytes)


def _u32(value: int) -> bytes:
    return value.to_bytes(4, "little")


def _u64(value: int) -> bytes:
    return value.to_bytes(8, "little")
