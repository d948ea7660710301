"""Golden cases through the patched llama.cpp: the engine's own path, in f32."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from retake_edge.golden import limits
from retake_edge.golden.runners.case import Floats, Ints, Move, Select
from retake_edge.llama.buffers import buffers_of
from retake_edge.llama.capture import Capture
from retake_edge.llama.context import Context
from retake_edge.llama.model import Model

_N_CELLS = 1024


class NativeRunner:
    """Runs a case in llama.cpp, by default with f32 K and V and flash attention off: parity.

    One position input serves all layers, so a case's input positions must be the same in each
    (`is_layer_independent`); those of kept cells may differ. `limits`: how far its results may be
    from others, by where its cells are.
    """

    def __init__(
        self,
        path: Path,
        *,
        n_cells: int = _N_CELLS,
        type_k: str = "f32",
        type_v: str = "f32",
        flash_attention: str = "off",
        n_seq_max: int = 1,
        cb_eval: Any = None,
        on_device: bool = False,
    ) -> None:
        with ExitStack() as stack:
            n_gpu_layers = -1 if on_device else 0
            self._model = stack.enter_context(Model(path, n_gpu_layers=n_gpu_layers))
            self._context = stack.enter_context(
                Context(
                    self._model,
                    n_ctx=n_cells,
                    n_batch=n_cells,
                    n_ubatch=n_cells,
                    n_seq_max=n_seq_max,
                    type_k=type_k,
                    type_v=type_v,
                    flash_attention=flash_attention,
                    n_threads=1,
                    cb_eval=cb_eval,
                )
            )
            self._stack = stack.pop_all()
        self.n_layer = self._model.n_layer
        is_on_device = any(use.device for use in buffers_of(self._context) if use.cells)
        self.limits = limits.DEVICE if is_on_device else limits.CPU

    def __enter__(self) -> NativeRunner:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def reset(self) -> None:
        """Empty the cache."""
        self._context.clear()

    def text(self, tokens: Ints, ids: Ints) -> Floats:
        """Decode tokens; return the last one's logits.

        Only embeddings can stand at different t, h and w.
        """
        shared = shared_positions(ids)
        if (shared[0] == shared[1]).all() and (shared[0] == shared[2]).all():
            self._context.decode_tokens(tokens.tolist(), int(shared[0, 0]))
        else:
            self._context.decode_embeddings(self._model.embed_tokens(tokens.tolist()), shared)
        return self._context.logits()

    def chunk(
        self, rows: Floats, ids: Ints, select: Select, move: Move, *, unrotate: bool
    ) -> tuple[Floats, Ints, Ints]:
        """Decode a chunk, score it, and compact the cache."""
        with Capture(self._context, n_max=len(rows), q_f32=True) as capture:
            self._context.decode_embeddings(rows, shared_positions(ids))
            scores = capture.scores(unrotate=unrotate)
            kept = select(scores)
            moved = move(kept)
            old = np.take_along_axis(ids[:, 0], kept.astype(np.int64), axis=1)
            deltas = moved[:, 0] - old
            # A cell has one position for the mask: the latest of any layer, still before what
            # comes next.
            capture.commit(kept, moved[:, 0].max(axis=0), deltas if deltas.any() else None)
        return scores, kept, moved


def shared_positions(ids: Ints) -> Ints:
    """Return int32 [4, n] (t, h, w, 0) of positions int32 [layer, 3, n] alike in all layers."""
    assert is_layer_independent(ids), "llama.cpp has one position input for all layers"
    return np.concatenate([ids[0], np.zeros((1, ids.shape[2]), np.int32)])


def is_layer_independent(ids: Ints) -> bool:
    """Return whether positions int32 [layer, ...] are the same in every layer."""
    return bool((ids == ids[:1]).all())


def write_yarn_model(source: Path, target: Path, factor: float) -> None:
    """Copy a GGUF and let its metadata stretch the context `factor` times by YaRN."""
    from gguf import GGUFReader, GGUFValueType, GGUFWriter, RopeScalingType

    reader = GGUFReader(source)
    arch = reader.fields["general.architecture"].contents()
    writer = GGUFWriter(target, arch)
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        kind = field.types[0]
        sub_type = field.types[-1] if kind == GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), kind, sub_type=sub_type)
    writer.add_rope_scaling_type(RopeScalingType.YARN)
    writer.add_rope_scaling_factor(factor)
    writer.add_rope_scaling_orig_ctx_len(reader.fields[f"{arch}.context_length"].contents())
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
