"""A GGUF language model: its figures, vocabulary, and token embeddings."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retake_edge import stopping
from retake_edge.errors import ModelError, NativeError
from retake_edge.llama import library
from retake_edge.llama.gguf import GgufFile, read_gguf

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]

_LOAD_MODE_NONE = 0
_EMBEDDINGS = "token_embd.weight"
_ROPE_KINDS = {-1: "none", 0: "norm", 2: "neox", 8: "mrope", 24: "vision", 40: "imrope"}


class Model:
    """A GGUF language model.

    Without `weights` it has its vocabulary and figures only: contexts of it allocate nothing and
    compute nothing, but know what they would take. `progress` is called with the share loaded.

    Raises:
        ModelError: the file is missing, or llama.cpp cannot load it.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        n_gpu_layers: int = -1,
        weights: bool = True,
        progress: Callable[[float], None] | None = None,
    ) -> None:
        self.path = Path(path)
        self._llama = library.load_libraries()
        self._handle: Any = None
        if not self.path.is_file():
            raise ModelError(f"There is no model file {self.path}; check the path after -m.")
        params = self._llama.llama_model_default_params()
        params.n_gpu_layers = n_gpu_layers if n_gpu_layers >= 0 else 9999
        if not weights:
            params.no_alloc, params.load_mode = True, _LOAD_MODE_NONE
        if progress is not None:
            params.progress_callback = library.load_callback(self._llama, progress)
        self._handle = self._llama.llama_model_load_from_file(str(self.path).encode(), params)
        if not self._handle:
            stopping.obey()
            raise ModelError(
                f"llama.cpp cannot load {self.path} ({library.last_error() or 'no reason given'}); "
                "check that it is a complete GGUF of a supported model."
            )
        self._vocab = self._llama.llama_model_get_vocab(self._handle)

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the weights; contexts made from the model must be closed before."""
        if self._handle:
            self._llama.llama_model_free(self._handle)
            self._handle = None

    @property
    def handle(self) -> Any:
        """The llama_model pointer, for other native calls."""
        return self._handle

    @property
    def vocab(self) -> Any:
        """The llama_vocab pointer, for other native calls."""
        return self._vocab

    @cached_property
    def n_layer(self) -> int:
        """Number of transformer layers."""
        return int(self._llama.llama_model_n_layer(self._handle))

    @cached_property
    def n_embd_inp(self) -> int:
        """Width of an input embedding row (wider than n_embd with deepstack)."""
        return int(self._llama.llama_model_n_embd_inp(self._handle))

    @cached_property
    def n_embd(self) -> int:
        """Width of the hidden state."""
        return int(self._llama.llama_model_n_embd(self._handle))

    @cached_property
    def n_head(self) -> int:
        """Query heads of a layer."""
        return int(self._llama.llama_model_n_head(self._handle))

    @cached_property
    def n_embd_q(self) -> int:
        """Width of a token's queries, over all heads of a layer."""
        arch, width = self.metadata("general.architecture") or "", self.n_embd // self.n_head
        return self.n_head * int(self.metadata(f"{arch}.attention.key_length") or width)

    @cached_property
    def n_embd_k(self) -> int:
        """Width of a token's keys, over all KV heads of a layer (the most, where layers differ)."""
        arch = self.metadata("general.architecture") or ""
        by_layer = re.findall(r"\d+", self.metadata(f"{arch}.attention.head_count_kv") or "")
        first = int(self._llama.llama_model_n_head_kv(self._handle))
        return self.n_embd_q // self.n_head * max(1, first, *map(int, by_layer))

    @cached_property
    def n_vocab(self) -> int:
        """Number of tokens in the vocabulary."""
        return int(self._llama.llama_vocab_n_tokens(self._vocab))

    @cached_property
    def n_ctx_train(self) -> int:
        """Context length the model was trained with, in positions."""
        return int(self._llama.llama_model_n_ctx_train(self._handle))

    @cached_property
    def rope_kind(self) -> str:
        """One of norm, neox, mrope, imrope, vision, none."""
        kind = int(self._llama.llama_model_rope_type(self._handle))
        return _ROPE_KINDS.get(kind, f"unknown {kind}")

    @property
    def n_pos_per_embd(self) -> int:
        """Position ids an embedding row needs: 4 (t, h, w, 0) with M-RoPE, else 1."""
        return 4 if self.rope_kind in ("mrope", "imrope") else 1

    @cached_property
    def has_states(self) -> bool:
        """True if some layers are recurrent: one state a sequence, which cannot go back."""
        is_hybrid = self._llama.llama_model_is_hybrid(self._handle)
        return bool(is_hybrid or self._llama.llama_model_is_recurrent(self._handle))

    @cached_property
    def scales_tokens(self) -> bool:
        """True if the model scales, or adds to, what its embedding table gives for a token.

        Text must then be decoded as tokens, and not as rows of the table among vision rows.
        """
        arch = self.metadata("general.architecture") or ""
        return arch.startswith("gemma") or self.metadata(f"{arch}.embedding_scale") is not None

    @cached_property
    def description(self) -> str:
        """llama.cpp's one-line description, such as 'qwen2vl 3B Q8_0'."""
        buffer = ctypes.create_string_buffer(256)
        self._llama.llama_model_desc(self._handle, buffer, len(buffer))
        return buffer.value.decode("utf-8", "replace")

    @property
    def chat_template(self) -> str | None:
        """The model's own chat template (Jinja), if it has one."""
        text = self._llama.llama_model_chat_template(self._handle, None)
        return text.decode("utf-8", "replace") if text else None

    def metadata(self, key: str) -> str | None:
        """Return a metadata value as text, or None."""
        buffer = ctypes.create_string_buffer(1024)
        n = self._llama.llama_model_meta_val_str(self._handle, key.encode(), buffer, len(buffer))
        return buffer.value.decode("utf-8", "replace") if n >= 0 else None

    def tokenize(self, text: str, *, add_special: bool = False) -> list[int]:
        """Return token ids; special tokens written in the text are recognised."""
        data = text.encode()
        out = (ctypes.c_int32 * (len(data) + 8))()
        n = self._llama.llama_tokenize(
            self._vocab, data, len(data), out, len(out), add_special, True
        )
        if n < 0:
            raise NativeError(f"Tokenizing {text[:40]!r} failed with {n}.")
        return list(out[:n])

    def piece(self, token: int) -> bytes:
        """Return the bytes of one token, special tokens as nothing."""
        buffer = ctypes.create_string_buffer(256)
        n = self._llama.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, False)
        return buffer.raw[: max(n, 0)]

    def is_end(self, token: int) -> bool:
        """Return whether the token ends an answer."""
        return bool(self._llama.llama_vocab_is_eog(self._vocab, token))

    def embed_tokens(self, tokens: list[int]) -> Floats:
        """Return the input embeddings of tokens, f32 [n, n_embd_inp].

        Deepstack columns beyond n_embd are zero, as they are for text.

        Raises:
            ModelError: the file has no token embedding table.
        """
        if _EMBEDDINGS not in self._tensors.tensor_shapes:
            raise ModelError(f"{self.path} has no token embeddings; it is no language model.")
        rows = np.zeros((len(tokens), self.n_embd_inp), np.float32)
        rows[:, : self.n_embd] = self._tensors.rows(_EMBEDDINGS, tokens)
        return rows

    @cached_property
    def _tensors(self) -> GgufFile:
        return replace(read_gguf(self.path), metadata={})
