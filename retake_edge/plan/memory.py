"""Count the memory of a run, on this machine and each device, before any weights are loaded.

The language model's share (weights, cells, compute buffers) is llama.cpp's own account of a context
without weights. The vision tower's weights are those of its file. What is left is small and
counted here: the tower's buffers, a chunk's features, queries and scores, the cells on their way to
a saved session, the program itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from retake_edge.compress.policies import kept_vision
from retake_edge.config import WHOLE_POLICIES, RetakeConfig, RuntimeConfig
from retake_edge.engine.trained_context import position_mode
from retake_edge.llama.buffers import (
    BufferUse,
    available_memory_bytes,
    buffers_of,
    resident_memory_bytes,
)
from retake_edge.llama.context import Context
from retake_edge.llama.gguf import GgufFile
from retake_edge.llama.model import Model
from retake_edge.plan.frames import CellBudget, FramePlan
from retake_edge.plan.scores import score_works

_MIB = 1 << 20
# Measured on Linux with Python 3.11: the interpreter, NumPy, OpenCV and the native libraries.
_PROGRAM_BYTES = 75 * _MIB
_DECODER_BYTES = 80 * _MIB
# llama.cpp's tables of a vocabulary, and the lists that the file's header is read into
_BYTES_PER_TOKEN, _BYTES_PER_MERGE = 290, 135
# Copies of a batch's features: as encoded, and of length one to be compared
_BATCH_COPIES = 2
_DECODED_FRAMES = 20
_F32 = 4
_MOST_CELLS = 1 << 18


@dataclass(frozen=True)
class DeviceUse:
    """A run's use of one device's memory, in bytes.

    `device`: its name, '' for this machine's own memory. `weights`, `cells`, `compute`: the
    language model's; `vision`, `vision_compute`: the tower's; `work`: frames, features, queries and
    scores of a chunk, or of an answer's evidence, and cells that are being saved; `program`:
    Python, the libraries, the vocabulary; `decoder`: the process that decodes the video.
    `mapped`: pages of the model's file that were read once, to be repacked: they are resident, but
    can be given up. `available`: what the device can give (None: not known).
    """

    device: str
    weights: int = 0
    cells: int = 0
    compute: int = 0
    vision: int = 0
    vision_compute: int = 0
    work: int = 0
    program: int = 0
    decoder: int = 0
    mapped: int = 0
    available: int | None = None

    @property
    def needed(self) -> int:
        """All that must be there at once."""
        return self.model + self.vision + self.vision_compute + self.around

    @property
    def model(self) -> int:
        """The language model with its cells and buffers."""
        return self.weights + self.cells + self.compute

    @property
    def around(self) -> int:
        """Bytes of all that is around the two models."""
        return self.work + self.program + self.decoder

    @property
    def resident(self) -> int:
        """The most that this program's own process will have resident."""
        return self.needed - self.decoder + self.mapped

    @property
    def fits(self) -> bool:
        """True if the device has that much, or does not tell."""
        return self.available is None or self.needed <= self.available

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, the sums among them."""
        sums = {"needed": self.needed, "resident": self.resident, "fits": self.fits}
        return asdict(self) | sums


def context_settings(
    runtime: RuntimeConfig, n_ctx: int, n_at_once: int = 1, n_seq_max: int = 2
) -> dict[str, Any]:
    """Return how a run makes its context of `n_ctx` cells, `n_at_once` tokens in one batch.

    The second sequence is for saving and loading cells.
    """
    return {
        "n_ctx": n_ctx,
        "n_batch": max(runtime.n_batch, n_at_once),
        "n_ubatch": max(runtime.n_ubatch, n_at_once),
        "n_seq_max": n_seq_max,
        "type_k": runtime.type_k,
        "type_v": runtime.type_v,
        "flash_attention": runtime.flash_attention,
        "n_threads": runtime.n_threads,
    }


def model_buffers(model: Model, config: RetakeConfig, n_ctx: int) -> list[BufferUse]:
    """Return what the model and a context of `n_ctx` cells would take; no weights are needed.

    llama.cpp's table of cells is real also then, so that of very many is estimated from fewer:
    everything grows by the same amount with each cell.
    """
    if n_ctx <= _MOST_CELLS:
        with Context(model, **context_settings(config.runtime, n_ctx)) as context:
            return buffers_of(context)
    half = model_buffers(model, config, _MOST_CELLS // 2)
    full = model_buffers(model, config, _MOST_CELLS)
    more = (n_ctx - _MOST_CELLS) / (_MOST_CELLS // 2)

    def grown(low: int, high: int) -> int:
        return int(high + more * (high - low))

    return [
        replace(b, cells=grown(a.cells, b.cells), compute=grown(a.compute, b.compute))
        for a, b in zip(half, full, strict=True)
    ]


def memory_use(
    model: Model,
    files: tuple[GgufFile, GgufFile],
    config: RetakeConfig,
    cells: CellBudget,
    frames: FramePlan,
    video_px: tuple[int, int],
    available: Mapping[str, int | None] | None = None,
    *,
    saves_at_end: bool = False,
    look_px: tuple[int, int] | None = None,
) -> list[DeviceUse]:
    """Return what reading a video and answering takes, this machine's memory first.

    `model`: without weights; `files`: the headers of model and projector; `video_px`: (width,
    height) of the video's own frames; `available`: bytes by device ('' this machine), instead of
    what they say themselves; `saves_at_end`: the cells are saved all at once; `look_px`: (width,
    height) of the frames of a second look, None without one.
    """
    (header, mmproj), buffers = files, model_buffers(model, config, cells.n_ctx)
    devices = ["", *sorted({part.device for part in buffers if part.device})]
    tower = devices[1] if config.runtime.mmproj_offload and len(devices) > 1 else ""
    found = []
    for device in devices:
        extra: dict[str, int] = {}
        if device == tower:
            extra |= {"vision": sum(mmproj.tensor_bytes.values())}
            extra |= {"vision_compute": vision_compute_bytes(mmproj, frames, look_px)}
        if not device:
            extra |= _around(model, config, cells, frames, video_px, saves_at_end=saves_at_end)
            extra |= {"mapped": _mapped_bytes(header, buffers)}
        own = [part for part in buffers if part.device == device]
        extra["work"] = extra.get("work", 0) + _score_bytes(model, config, cells, buffers, own)
        found.append(_model_use(device, buffers, extra, available))
    return found


def _model_use(
    device: str,
    buffers: list[BufferUse],
    extra: Mapping[str, int],
    available: Mapping[str, int | None] | None,
) -> DeviceUse:
    own = [part for part in buffers if part.device == device]
    use = DeviceUse(
        device,
        weights=sum(part.weights for part in own),
        cells=sum(part.cells for part in own),
        compute=sum(part.compute for part in own),
        **extra,
    )
    limit = available.get(device) if available is not None else _available(use, own[0])
    return replace(use, available=limit)


def _mapped_bytes(header: GgufFile, buffers: list[BufferUse]) -> int:
    """Pages of repacked weights in the mapped file, which llama.cpp unmaps only at its end.

    It keeps the file mapped up to its last plain tensor. The repacked form may be larger than the
    file's (AMX adds 4 bytes to each block of 32 weights), so the file's bytes are counted.
    """
    own = [part for part in buffers if not part.device]
    if not any(part.weights for part in own if part.name != "CPU"):
        return 0
    ends = {name: header.tensor_offsets[name] + size for name, size in header.tensor_bytes.items()}
    plain = [end for name, end in ends.items() if len(header.tensor_shapes[name]) == 1]
    kept = sum(part.weights for part in own if part.name == "CPU")
    return max(0, max(plain, default=0) - min(header.tensor_offsets.values(), default=0) - kept)


def _available(use: DeviceUse, account: BufferUse) -> int | None:
    """Return the bytes that the device can give, or None if they are not known.

    In this machine's memory, what the program already has counts, too.
    """
    if use.device:
        return account.device_free if account.device_total else None
    free, own = available_memory_bytes(), resident_memory_bytes() or 0
    return None if free is None else free + min(own, use.program)


def _around(
    model: Model,
    config: RetakeConfig,
    cells: CellBudget,
    frames: FramePlan,
    video_px: tuple[int, int],
    *,
    saves_at_end: bool,
) -> dict[str, int]:
    """Bytes in this machine's memory besides the models."""
    shape = cells.shape
    per_step = shape.vision_per_step * model.n_embd_inp * _F32
    steps = min(shape.steps_per_chunk, shape.n_steps)
    n_batch = min(config.runtime.encode_batch_frames, frames.n)
    batch_steps = -(-n_batch * frames.n_steps // frames.n)
    n_frame = frames.width_px * frames.height_px * 3
    chunk_copies = 2 if shape.text_per_step else 1  # text between frames takes another array
    chunk_copies += config.look.keep_features  # two in f16, on their way to the disk
    work = (chunk_copies * steps + _BATCH_COPIES * batch_steps) * per_step
    work += saved_bytes(cells, saves_at_end=saves_at_end)
    work += 2 * n_batch * n_frame
    decoded = _DECODED_FRAMES * video_px[0] * video_px[1] * 3 // 2
    decoder = _DECODER_BYTES + decoded + n_batch * n_frame
    return {"work": work, "program": _program_bytes(model), "decoder": decoder}


def saved_bytes(cells: CellBudget, *, saves_at_end: bool) -> int:
    """Return the size of a chunk's cells, which are written while the next one is computed."""
    shape, n_cells = cells.shape, cells.n_kept_cells
    if not saves_at_end:
        steps = min(shape.steps_per_chunk, shape.n_steps)
        n_vision = kept_vision(steps * shape.vision_per_step, cells.keep_ratio)
        n_cells = shape.n_before + n_vision + steps * shape.text_per_step  # the first chunk's
    return n_cells * cells.kv_bytes // max(1, cells.n_ctx)


def _score_bytes(
    model: Model,
    config: RetakeConfig,
    cells: CellBudget,
    buffers: list[BufferUse],
    own: list[BufferUse],
) -> int:
    """Return the bytes of scores and evidence where some layers' cells are: queries and work."""
    n_cell_bytes = sum(part.cells for part in own)
    if not n_cell_bytes:
        return 0
    shape, policy = cells.shape, config.compression.policy
    n_chunk = min(shape.steps_per_chunk, shape.n_steps) * shape.vision_per_step
    compresses = policy not in WHOLE_POLICIES and cells.keep_ratio < 1
    reforges = position_mode(config.compression.positions, model) == "reforge"
    works = score_works(
        config,
        n_chunk,
        cells.n_kept_cells,
        scores=compresses,
        reforges=reforges,
        n_guide=cells.shape.n_guide,
    )
    kept = max(work.kept_bytes(model) for work in works)
    kept = kept * n_cell_bytes // sum(part.cells for part in buffers)
    if own[0].device:  # the scheduler's buffer is there already, and only grows
        most = max(work.device_bytes(model) for work in works)
        return kept + max(0, most - sum(part.compute for part in own))
    return kept + max(work.host_bytes(model, config.runtime.n_threads) for work in works)


def _program_bytes(model: Model) -> int:
    return _PROGRAM_BYTES + model.n_vocab * (_BYTES_PER_TOKEN + _BYTES_PER_MERGE)


def vision_compute_bytes(
    mmproj: GgufFile, frames: FramePlan, look_px: tuple[int, int] | None = None
) -> int:
    """Return the size of the tower's buffers for one grid frame, with flash attention.

    `look_px`: as in `memory_use`; the larger of the two sizes counts.

    Fitted to llama.cpp's own figures, and held against them in tests/plan/test_memory_plan.py: the
    widest place of a layer, a mask for windows, the features that deepstack layers hand on; of a
    very narrow tower the pixels themselves.
    """
    names, n_patches = mmproj.tensor_bytes, patches_per_step(mmproj, frames)
    if look_px is not None:
        look = replace(frames, width_px=look_px[0], height_px=look_px[1])
        n_patches = max(n_patches, patches_per_step(mmproj, look))
    n_embd = int(mmproj.get("clip.vision.embedding_length", 1024))
    n_ff = int(mmproj.get("clip.vision.feed_forward_length", 4 * n_embd))
    is_gated = any("ffn_gate" in name for name in names)
    width = 7.0 * n_embd + 2 * n_ff if is_gated else 7.5 * n_embd
    n_deepstack = sum(name.startswith("v.deepstack.") and "fc2.weight" in name for name in names)
    n_merged = int(mmproj.get("clip.vision.spatial_merge_size", 2)) ** 2
    width += n_deepstack * int(mmproj.get("clip.vision.projection_dim", n_embd)) / n_merged
    width += n_patches if mmproj.get("clip.vision.n_wa_pattern") else 0
    pixels = 7.5 * int(mmproj.get("clip.vision.patch_size", 14)) ** 2 + n_embd
    return int(n_patches * _F32 * max(width, pixels))


def patches_per_step(mmproj: GgufFile, frames: FramePlan) -> int:
    """Return the patches that the tower makes of one grid frame."""
    patch_px = int(mmproj.get("clip.vision.patch_size", 14))
    return (frames.width_px // patch_px) * (frames.height_px // patch_px)


def fits(use: list[DeviceUse]) -> bool:
    """Return whether every device has room."""
    return all(device.fits for device in use)
