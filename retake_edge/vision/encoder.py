"""Frames to projected vision features, through llama.cpp's multimodal projector (mtmd).

mtmd's own video helper is not used: it holds every frame of the video at once. Here each group of
frames (a pair for the Qwen-VL family) is encoded on its own, so memory stays flat.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retake_edge import stopping
from retake_edge.errors import ModelError
from retake_edge.llama import library
from retake_edge.llama.gguf import read_gguf
from retake_edge.llama.model import Floats, Model
from retake_edge.models.manifest import ModelManifest
from retake_edge.models.pooling import Pooling

Doubles = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

_NEWLINE = "v.image_newline"


@dataclass(frozen=True)
class VisionFeatures:
    """Features of T grid frames, each a rows x cols grid of tokens.

    `embeddings` f32 [T, rows * cols, n_embd_inp], row-major within a frame. `times_s` f64 [T]:
    presentation time of each grid frame's first video frame, in seconds; `middle_s` f64 [T]: mean
    of its video frames' times. `step_s`: seconds between two sampled frames, 0 if not known.
    `is_new` bool [T]: which show something new (None: all); the features of the others are those of
    the last new one.
    """

    embeddings: Floats
    times_s: Doubles
    middle_s: Doubles
    rows: int
    cols: int
    step_s: float = 0.0
    is_new: Bools | None = None

    @property
    def news(self) -> Bools:
        """Mask of the grid frames that show something new, bool [T]."""
        return np.ones(len(self.times_s), np.bool_) if self.is_new is None else self.is_new

    def __getitem__(self, frames: slice) -> VisionFeatures:
        """Return some of the grid frames."""
        return VisionFeatures(
            self.embeddings[frames],
            self.times_s[frames],
            self.middle_s[frames],
            self.rows,
            self.cols,
            self.step_s,
            None if self.is_new is None else self.is_new[frames],
        )

    def at(self, frames: npt.NDArray[np.int64]) -> VisionFeatures:
        """Return the grid frames with these numbers."""
        if len(frames) == len(self.times_s):
            return self
        return replace(
            self,
            embeddings=self.embeddings[frames],
            times_s=self.times_s[frames],
            middle_s=self.middle_s[frames],
            is_new=self.news[frames],
        )

    def rounded(self) -> VisionFeatures:
        """Return the features as f16 can hold them, so that saved ones are equal to new ones."""
        return replace(self, embeddings=self.embeddings.astype(np.float16).astype(np.float32))

    def joined(self, other: VisionFeatures) -> VisionFeatures:
        """Return these grid frames followed by others of the same size."""
        return VisionFeatures(
            np.concatenate([self.embeddings, other.embeddings]),
            np.concatenate([self.times_s, other.times_s]),
            np.concatenate([self.middle_s, other.middle_s]),
            self.rows,
            self.cols,
            self.step_s,
            np.concatenate([self.news, other.news]),
        )


class VisionEncoder:
    """A vision tower with its projector (an mmproj GGUF).

    `frames_per_step` is how many video frames share one grid frame (2 for Qwen-VL); `non_causal`:
    whether the language model wants an image's tokens to see each other, also those after them.
    `overview`: mtmd cuts a frame into tiles, whatever its size, and puts the whole frame after
    them; only that is used, as the models' processors do with video. `pooling` of what the
    projector gives for a frame. `progress` is called with the share of the tower that is loaded.

    Raises:
        ModelError: the file is missing, does not belong to the model, or cannot see.
    """

    def __init__(
        self,
        model: Model,
        path: str | Path,
        *,
        offload: bool = True,
        n_threads: int | None = None,
        overview: bool = False,
        pooling: Pooling | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> None:
        self.path = Path(path)
        self._overview, self._pooling = overview, pooling
        self._mtmd = library.load_mtmd()
        self._handle: Any = None
        if not self.path.is_file():
            raise ModelError(f"There is no projector file {self.path}; check --mmproj.")
        params = self._mtmd.mtmd_context_params_default()
        params.use_gpu, params.warmup, params.print_timings = offload, False, False
        params.image_min_tokens = 1  # the size of a frame is ours to choose: `FrameRule`
        if overview:
            params.image_max_tokens = 1  # then a frame is one tile, which costs least
        if n_threads:
            params.n_threads = n_threads
        if progress is not None:
            params.progress_callback = library.load_callback(library.load_libraries(), progress)
        self._handle = self._mtmd.mtmd_init_from_file(str(self.path).encode(), model.handle, params)
        if not self._handle:
            stopping.obey()
            raise ModelError(
                f"{self.path} is no projector for {model.path} "
                f"({library.last_error() or 'no reason given'}); use the mmproj made with "
                "the model."
            )
        if not self._mtmd.mtmd_support_vision(self._handle):
            raise ModelError(f"{self.path} has no vision tower; use the model's vision mmproj.")
        self._n_embd = model.n_embd_inp
        self.non_causal = bool(self._mtmd.mtmd_decode_use_non_causal(self._handle, None))
        self._marker: bytes = self._mtmd.mtmd_default_marker()
        blank = np.full((2, 56, 56, 3), 127, np.uint8)
        with _Chunks(self, blank) as chunks:
            self.frames_per_step = 2 if len(chunks.images) == 1 else 1

    def __enter__(self) -> VisionEncoder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the tower."""
        if self._handle:
            self._mtmd.mtmd_free(self._handle)
            self._handle = None

    def encode(
        self,
        frames: npt.NDArray[np.uint8],
        times_s: Doubles,
        step_s: float = 0.0,
        on_step: Callable[[int], None] | None = None,
    ) -> VisionFeatures:
        """Encode frames uint8 [B, H, W, 3] RGB shown at times_s f64 [B], sampled every `step_s`.

        A last group that is not full repeats its last frame, as the models' processors do.
        `on_step` is called with the frames done so far, after each grid frame.

        Raises:
            ModelError: the tower cannot encode frames of that size.
        """
        step = self.frames_per_step
        starts = range(0, len(frames), step)
        embeddings, rows, cols = np.zeros((0, 0, 0), np.float32), 0, 0
        for at, i in enumerate(starts):
            found, rows, cols = self._encode_step(frames[i : i + step])
            if not at:
                embeddings = np.empty((len(starts), *found.shape), np.float32)
            embeddings[at] = found
            if on_step is not None:
                on_step(min(i + step, len(frames)))
        return VisionFeatures(embeddings, *grid_times(times_s, step), rows, cols, step_s)

    def _encode_step(self, frames: npt.NDArray[np.uint8]) -> tuple[Floats, int, int]:
        """Features [n, n_embd_inp] where mtmd keeps them until the next step, rows and columns."""
        with _Chunks(self, repeat_last(frames, self.frames_per_step)) as chunks:
            images = chunks.images[-1:] if self._overview else chunks.images
            if len(images) != 1:
                raise ModelError(
                    f"{self.path} cuts a frame into {len(images)} tiles, which is not "
                    "supported for video; use a model that takes a frame whole."
                )
            return self._encode_chunk(images[0])

    def _encode_chunk(self, chunk: Any) -> tuple[Floats, int, int]:
        mtmd = self._mtmd
        failed = mtmd.mtmd_encode_chunk(self._handle, chunk) != 0
        stopping.obey()  # one grid frame of a large tower takes seconds: no other is begun
        if failed:
            raise ModelError(f"{self.path} failed to encode a frame ({library.last_error()}).")
        tokens = mtmd.mtmd_input_chunk_get_tokens_image(chunk)
        n = mtmd.mtmd_image_tokens_get_n_tokens(tokens)
        rows, cols = (
            mtmd.mtmd_image_tokens_get_ny(tokens),
            mtmd.mtmd_image_tokens_get_nx(tokens),
        )
        if rows * cols != n:  # a resampler has no grid: its tokens stand in one row
            rows, cols = 1, n
        out = mtmd.mtmd_get_output_embd(self._handle)
        features = np.ctypeslib.as_array(out, (n, self._n_embd))
        if self._pooling is None:
            return features, rows, cols
        side = isqrt(n)  # these towers are square; mtmd tells their tokens as one row
        pooled = self._pooling.pooled(features, side, side)
        return pooled, self._pooling.side(side), self._pooling.side(side)


def newline_of(manifest: ModelManifest) -> Floats | None:
    """Return the learned row of a model whose rule asks for one, f32 [n_embd]; else None.

    Raises:
        ModelError: the projector has none.
    """
    if not manifest.positions.has_newlines:
        return None
    file = read_gguf(manifest.mmproj)
    if _NEWLINE not in file.tensor_shapes:
        raise ModelError(f"{file.path} has no tensor {_NEWLINE}; convert the checkpoint again.")
    return file.vector(_NEWLINE)


def grid_times(times_s: Doubles, n: int) -> tuple[Doubles, Doubles]:
    """Return when each grid frame of `n` frames is first shown, and its middle, f64 [T] each."""
    starts = range(0, len(times_s), n)
    middle_s = [repeat_last(times_s[i : i + n], n).mean() for i in starts]
    return times_s[::n], np.array(middle_s)


def repeat_last(items: npt.NDArray[Any], n: int) -> npt.NDArray[Any]:
    """Return items, the last one repeated until there are n."""
    return np.concatenate([items, np.repeat(items[-1:], n - len(items), axis=0)])


class _Chunks:
    """mtmd's input chunks of one group of frames; `images` are the chunks with image tokens."""

    def __init__(self, encoder: VisionEncoder, frames: npt.NDArray[np.uint8]) -> None:
        self._mtmd = mtmd = encoder._mtmd
        text = mtmd.mtmd_input_text()
        text.text = encoder._marker * len(frames)
        text.text_len, text.add_special, text.parse_special = len(text.text), False, True
        bitmaps = [self._bitmap(frame) for frame in frames]
        self._handle = mtmd.mtmd_input_chunks_init()
        array = (ctypes.c_void_p * len(bitmaps))(*bitmaps)
        status = mtmd.mtmd_tokenize(
            encoder._handle, self._handle, ctypes.byref(text), array, len(bitmaps)
        )
        for bitmap in bitmaps:
            mtmd.mtmd_bitmap_free(bitmap)
        if status != 0:
            height, width = frames.shape[1:3]
            self.__exit__()
            raise ModelError(
                f"{encoder.path} cannot take frames of {width}x{height} px "
                f"({library.last_error()}); choose another --long-side."
            )
        everything = (
            mtmd.mtmd_input_chunks_get(self._handle, i)
            for i in range(mtmd.mtmd_input_chunks_size(self._handle))
        )
        self.images = [
            chunk
            for chunk in everything
            if mtmd.mtmd_input_chunk_get_type(chunk) == mtmd.MTMD_INPUT_CHUNK_TYPE_IMAGE
        ]

    def _bitmap(self, frame: npt.NDArray[np.uint8]) -> Any:
        pixels = np.ascontiguousarray(frame, np.uint8)
        height, width = pixels.shape[:2]
        data = pixels.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        bitmap = self._mtmd.mtmd_bitmap_init(width, height, data)
        self._mtmd.mtmd_bitmap_set_mergeable(bitmap, True)
        return bitmap

    def __enter__(self) -> _Chunks:
        return self

    def __exit__(self, *_: object) -> None:
        self._mtmd.mtmd_input_chunks_free(self._handle)
