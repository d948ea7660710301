"""Read the shipped GGUF files back as checkpoints, so that training can go on from them.

python import_gguf.py FOLDER VIT.pt LM.pt

The language model comes back as its 8-bit weights say; the feature scale is in the vision
transformer's last matrix, so that the checkpoint's own scale is 1.
"""

from __future__ import annotations

import sys
from pathlib import Path

import gguf
import lm
import numpy as np
import tokens
import torch
import vit
from export_gguf import _LM_NAMES, _VIT_NAMES
from torch import Tensor


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return all tensors of a GGUF file by name, as float32."""
    return {
        t.name: torch.from_numpy(
            np.array(gguf.quants.dequantize(t.data, t.tensor_type), dtype=np.float32)
        )
        for t in gguf.GGUFReader(path).tensors
    }


def read_lm(path: Path) -> lm.LanguageModel:
    """Return the language model; each clock's embedding is parted into minute and second."""
    stored, model = read_tensors(path), lm.LanguageModel()
    words, clocks = stored["token_embd.weight"].split([tokens.clock_base(), tokens.N_CLOCK])
    clocks = clocks.view(60, 60, lm.HIDDEN)
    state = {"words": words, "norm.weight": stored["output_norm.weight"]}
    state["minutes"] = clocks.mean(1) - 0.5 * clocks.mean((0, 1))
    state["seconds"] = clocks.mean(0) - 0.5 * clocks.mean((0, 1))
    for name, _ in model.named_parameters():
        if name.startswith("layers."):
            _, number, layer, what = name.split(".")
            state[name] = stored[f"blk.{number}.{_LM_NAMES[layer]}.{what}"]
    model.load_state_dict(state)
    return model


def read_vit(path: Path) -> vit.VisionTransformer:
    """Return the vision transformer."""
    stored, model = read_tensors(path), vit.VisionTransformer()
    names = {"mm0": "mm.0", "mm2": "mm.2", "post": "v.post_ln"}
    state = {}
    for name, value in model.named_parameters():
        first, *rest = name.split(".")
        if first == "patch":
            kernels = [stored["v.patch_embd.weight"], stored["v.patch_embd.weight.1"]]
            state[name] = torch.stack(kernels, 1).reshape(value.shape)
        elif first == "blocks":
            number, layer, what = rest
            state[name] = stored[f"v.blk.{number}.{_VIT_NAMES[layer]}.{what}"]
        else:
            state[name] = stored[f"{names[first]}.{rest[0]}"]
    model.load_state_dict(state)
    return model


def main() -> None:
    """Write both checkpoints."""
    folder = Path(sys.argv[1])
    torch.save(read_vit(folder / "tiny-mmproj-f16.gguf").state_dict(), sys.argv[2])
    model = read_lm(folder / "tiny-lm-q8_0.gguf")
    torch.save({"model": model.state_dict(), "scale": 1.0}, sys.argv[3])


if __name__ == "__main__":
    main()
