"""A context of one model: its KV cache, and batches decoded with explicit positions."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import numpy.typing as npt

from retake_edge import stopping
from retake_edge.errors import MemoryBudgetError, NativeError
from retake_edge.llama import library
from retake_edge.llama.model import Floats, Ints, Model

_KV_TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q8_0": 8}


_FLASH_ATTENTION = {"auto": -1, "off": 0, "on": 1}


_BYTES = ctypes.POINTER(ctypes.c_uint8)


_STATES_ONLY = 1  # LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY


_BLOB_HEAD_BYTES = 8  # a magic number and the sequence
_FULL, _ABORTED = 1, 2  # what llama_decode returns


class Context:
    """A context of one model: its KV cache, and batches decoded with explicit positions.

    `flash_attention` is 'on', 'off' or 'auto': off where the device lacks it for these K and V
    types, but on for a quantized V, which needs it.

    Raises:
        MemoryBudgetError: llama.cpp cannot make a context of that size.
    """

    def __init__(
        self,
        model: Model,
        *,
        n_ctx: int,
        n_batch: int = 2048,
        n_ubatch: int = 512,
        n_seq_max: int = 1,
        type_k: str = "f16",
        type_v: str = "f16",
        flash_attention: str = "auto",
        kv_unified: bool = True,
        n_threads: int | None = None,
        cb_eval: Any = None,
    ) -> None:
        self.model = model
        self._llama = library.load_libraries()
        params = self._llama.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = n_ctx, n_batch, n_ubatch
        params.n_seq_max, params.kv_unified = n_seq_max, kv_unified
        # One row of logits a sequence: room for a whole batch's would be 300 MB of Qwen's.
        params.n_outputs_max = n_seq_max
        params.type_k, params.type_v = _KV_TYPES[type_k], _KV_TYPES[type_v]
        if flash_attention == "auto" and type_v not in ("f32", "f16"):
            flash_attention = "on"
        params.flash_attn_type = _FLASH_ATTENTION[flash_attention]
        params.no_perf = True
        params.abort_callback, params.abort_callback_data = stopping.abort_callback(self._llama)
        if n_threads:
            params.n_threads = params.n_threads_batch = n_threads
        if cb_eval is not None:
            params.cb_eval = cb_eval
        self.n_batch = n_batch
        self._handle: Any = self._llama.llama_init_from_model(model.handle, params)
        if not self._handle:
            raise MemoryBudgetError(
                f"llama.cpp cannot make a context of {n_ctx} tokens with K {type_k} and V {type_v} "
                f"({library.last_error() or 'no reason given'}); try a smaller -c, or others of "
                "-ctk and -ctv."
            )
        self._memory = self._llama.llama_get_memory(self._handle)
        self._spare_seq = n_seq_max - 1

    def __enter__(self) -> Context:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the context and its KV cache."""
        if self._handle:
            self._llama.llama_free(self._handle)
            self._handle = None

    @property
    def handle(self) -> Any:
        """The llama_context pointer, for other native calls."""
        return self._handle

    @property
    def n_ctx(self) -> int:
        """KV cells in the cache (llama.cpp may round up what was asked)."""
        return int(self._llama.llama_n_ctx(self._handle))

    def decode_tokens(self, tokens: list[int], position: int, *, seq: int = 0) -> None:
        """Decode text whose positions run on from `position`, on all axes; logits for the last.

        Raises:
            MemoryBudgetError: no cells are left. NativeError: llama.cpp refused the batch.
            KeyboardInterrupt: it was asked to stop; what part of a batch is decoded is open.
        """
        for start in range(0, len(tokens), self.n_batch):
            part = tokens[start : start + self.n_batch]
            positions = np.arange(position + start, position + start + len(part), dtype=np.int32)
            self._decode(np.asarray(part, np.int32), None, positions, seq)

    def decode_embeddings(
        self, rows: Floats, positions: Ints, *, seq: int = 0, non_causal: bool = False
    ) -> None:
        """Decode embedding rows f32 [n, n_embd_inp] at positions int32 [4, n] (M-RoPE) or [n].

        The last row's logits are kept. Batches of n_batch rows are cut here. `non_causal`: each row
        also sees those after it, as some models want it within an image; all must fit n_ubatch.

        Raises:
            MemoryBudgetError: no cells are left. NativeError: llama.cpp refused the batch.
        """
        if non_causal:
            self._decode_non_causal(rows, positions, seq)
            return
        n_pos = self.model.n_pos_per_embd
        grid = np.asarray(positions, np.int32).reshape(n_pos, len(rows))
        for start in range(0, len(rows), self.n_batch):
            part = slice(start, start + self.n_batch)
            self._decode(None, rows[part], grid[:, part], seq)

    def _decode_non_causal(self, rows: Floats, positions: Ints, seq: int) -> None:
        n_most = min(self.n_batch, int(self._llama.llama_n_ubatch(self._handle)))
        if len(rows) > n_most:  # llama.cpp would end the process
            raise NativeError(
                f"An image of {len(rows)} tokens must be decoded at once; raise -b and -ub to that."
            )
        self._llama.llama_set_causal_attn(self._handle, False)
        try:
            self.decode_embeddings(rows, positions, seq=seq)
        finally:
            self._llama.llama_set_causal_attn(self._handle, True)

    def _decode(self, tokens: Ints | None, rows: Floats | None, pos: Ints, seq: int) -> None:
        n = len(tokens) if tokens is not None else len(rows)  # type: ignore[arg-type]
        pos = np.ascontiguousarray(pos, np.int32)
        sequences = (ctypes.c_int32 * 1)(seq)
        llama = self._llama
        batch = llama.llama_batch()
        batch.n_tokens = n
        if tokens is not None:
            tokens = np.ascontiguousarray(tokens, np.int32)
            batch.token = tokens.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        else:
            rows = np.ascontiguousarray(rows, np.float32)
            batch.embd = rows.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        batch.pos = pos.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        batch.n_seq_id = (ctypes.c_int32 * n)(*([1] * n))
        one = ctypes.cast(sequences, ctypes.POINTER(ctypes.c_int32))
        batch.seq_id = (ctypes.POINTER(ctypes.c_int32) * n)(*([one] * n))
        wanted = np.zeros(n, np.int8)
        wanted[-1] = 1
        batch.logits = wanted.ctypes.data_as(ctypes.POINTER(ctypes.c_int8))
        status = llama.llama_decode(self._handle, batch)
        if status == _FULL:
            raise MemoryBudgetError(
                f"The context of {self.n_ctx} tokens is full; raise -c or lower --keep-ratio."
            )
        if status == _ABORTED:
            stopping.obey()
        if status != 0:
            raise NativeError(
                f"llama.cpp could not decode (status {status}: {library.last_error()})."
            )

    def logits(self) -> Floats:
        """Return the last decoded row's logits, f32 [n_vocab] (a copy)."""
        pointer = self._llama.llama_get_logits_ith(self._handle, -1)
        return np.ctypeslib.as_array(pointer, (self.model.n_vocab,)).copy()

    def synchronize(self) -> None:
        """Wait until the backend has finished."""
        self._llama.llama_synchronize(self._handle)

    def clear(self) -> None:
        """Empty the KV cache."""
        self._llama.llama_memory_clear(self._memory, True)

    def remove(self, p0: int = -1, p1: int = -1, *, seq: int = 0) -> bool:
        """Remove a sequence's cells with positions in [p0, p1); negative means open-ended."""
        return bool(self._llama.llama_memory_seq_rm(self._memory, seq, p0, p1))

    def save_states(self, *, seq: int = 0) -> bytes:
        """Return the sequence's recurrent states as llama.cpp's blob; b'' for models without."""
        if not self.model.has_states:
            return b""
        llama, flags = self._llama, _STATES_ONLY
        size = llama.llama_state_seq_get_size_ext(self._handle, seq, flags)
        buffer = (ctypes.c_uint8 * size)()
        n = llama.llama_state_seq_get_data_ext(self._handle, buffer, size, seq, flags)
        return bytes(memoryview(buffer)[:n])

    def load_states(self, states: bytes, *, seq: int = 0) -> None:
        """Put recurrent states from `save_states` in place of the sequence's (b'': do nothing).

        Raises:
            NativeError: they are not of this model.
        """
        if not states:
            return
        buffer = (ctypes.c_uint8 * len(states)).from_buffer_copy(states)
        load = self._llama.llama_state_seq_set_data_ext
        if load(self._handle, buffer, len(states), seq, _STATES_ONLY) != len(states):
            raise NativeError(f"Saved recurrent states do not load ({library.last_error()}).")

    def rewind(self, position: int, states: bytes) -> None:
        """Remove sequence 0's cells from `position` on; `states`: saved when it ended there."""
        self.load_states(states)
        self.remove(position)

    def copy(self, source: int, target: int, p0: int = -1, p1: int = -1) -> None:
        """Tag the source sequence's cells in [p0, p1) as the target's, too."""
        self._llama.llama_memory_seq_cp(self._memory, source, target, p0, p1)

    def position_max(self, seq: int = 0) -> int:
        """Return the highest position stored for the sequence, -1 if it is empty."""
        return int(self._llama.llama_memory_seq_pos_max(self._memory, seq))

    def sequence_state(self, seq: int = 0) -> bytes:
        """Return the sequence's cells as llama.cpp's own blob."""
        size = self._llama.llama_state_seq_get_size(self._handle, seq)
        buffer = (ctypes.c_uint8 * size)()
        n = self._llama.llama_state_seq_get_data(self._handle, buffer, size, seq)
        return bytes(memoryview(buffer)[:n])

    def set_sequence_state(self, state: bytes, seq: int = 0) -> None:
        """Load a blob from `sequence_state` into a sequence.

        Raises:
            NativeError: it does not fit this model, its K/V types or the free cells.
        """
        buffer = (ctypes.c_uint8 * len(state)).from_buffer_copy(state)
        if not self._llama.llama_state_seq_set_data(self._handle, buffer, len(state), seq):
            raise NativeError(f"The saved state does not load ({library.last_error()}).")

    def save_cells(self, p0: int, p1: int = -1) -> npt.NDArray[np.uint8]:
        """Return sequence 0's cells with positions in [p0, p1) as llama.cpp's own blob, uint8 [n].

        Tagging them as a spare sequence's costs no copy of the cells: the cache must be unified
        and made for two sequences or more. Recurrent states are left out: `save_states` has them.
        """
        assert self._spare_seq > 0, "a context for one sequence has none to spare"
        self.copy(0, self._spare_seq, p0, p1)
        try:
            size = self._llama.llama_state_seq_get_size(self._handle, self._spare_seq)
            blob = np.empty(size, np.uint8)
            n = self._llama.llama_state_seq_get_data(
                self._handle, blob.ctypes.data_as(_BYTES), size, self._spare_seq
            )
            n -= len(self.save_states(seq=self._spare_seq)[_BLOB_HEAD_BYTES:])
        finally:
            self.remove(seq=self._spare_seq)
        return blob[:n]

    def load_cells(self, blob: npt.NDArray[np.uint8]) -> None:
        """Add cells from `save_cells` to sequence 0, read straight from `blob` (it may be mapped).

        A hybrid model's sequence 0 loses its recurrent states: `load_states` comes after.

        Raises:
            NativeError: they do not fit this model, its K/V types or the free cells.
        """
        assert self._spare_seq > 0, "a context for one sequence has none to spare"
        spare = self._spare_seq
        if self.model.has_states:  # what llama.cpp expects after the cells: here, no states
            no_states = np.frombuffer(self.save_states(seq=spare), np.uint8)
            blob = np.concatenate([blob, no_states[_BLOB_HEAD_BYTES:]])
        data = blob.ctypes.data_as(_BYTES)
        n = self._llama.llama_state_seq_set_data(self._handle, data, len(blob), spare)
        if n != len(blob):
            raise NativeError(
                "A saved part of the video does not load "
                f"({library.last_error() or 'it is cut short'})."
            )
        self.copy(spare, 0)
        self.remove(seq=spare)
