"""A vision tower that is slow on any machine: the golden one with its blocks repeated many times.

What a user feels with a large model (a grid frame takes seconds) thus takes no large file.
"""

from __future__ import annotations

from pathlib import Path

from gguf import GGUFReader, GGUFWriter
from session_support import MODEL

N_BLOCKS = 160


def write_slow_mmproj(path: Path, n_blocks: int = N_BLOCKS) -> Path:
    """Write a projector for the golden model, of `n_blocks` blocks."""
    reader = GGUFReader(MODEL.mmproj)
    writer = GGUFWriter(path, "clip")
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        value = n_blocks if name == "clip.vision.block_count" else field.contents()
        is_list = len(field.types) > 1
        writer.add_key_value(
            name, value, field.types[0], sub_type=field.types[-1] if is_list else None
        )
    blocks = {t.name: t.data for t in reader.tensors if t.name.startswith("v.blk.")}
    n_own = 1 + max(int(name.split(".")[2]) for name in blocks)
    for tensor in reader.tensors:
        if tensor.name not in blocks:
            writer.add_tensor(tensor.name, tensor.data)
    for i in range(n_blocks):
        own = f"v.blk.{i % n_own}."
        for name, data in blocks.items():
            if name.startswith(own):
                writer.add_tensor(f"v.blk.{i}.{name.removeprefix(own)}", data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
