"""Time a vision tower's encoding: rows padded or not, f16 or q8_0.

    python scripts/measure_tower.py FOLDER --out benchmarks/tower.json

A published tower cut to a few layers, with random weights. All variants in turn, several times
over; the time of a grid frame is the median, in seconds of the processor. `padded`: the hidden
rows of its feed-forward networks filled up with zeros to a multiple of 32, which changes no result
but for rounding, and lets q8_0 hold ffn_down, too (llama.cpp's own tools leave it f16).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter, quants

from retake_edge.bench.run_file import run_file, write_run_file
from retake_edge.llama.model import Model
from retake_edge.models.random_gguf import random_pair
from retake_edge.models.shapes import SHAPES
from retake_edge.vision.encoder import VisionEncoder

Floats = npt.NDArray[np.float32]
_ROW = 32


def rewrite(source: Path, target: Path, *, pads: bool, kind: str) -> Path:
    """Write a projector's file again: hidden rows padded, matrices f16, or q8_0 where they fit."""
    reader, writer = GGUFReader(source), GGUFWriter(target, "clip")
    n_ff = int(reader.fields["clip.vision.feed_forward_length"].contents())
    to = -(-n_ff // _ROW) * _ROW if pads else n_ff
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        value = to if name == "clip.vision.feed_forward_length" else field.contents()
        sub_type = field.types[-1] if len(field.types) > 1 else None
        writer.add_key_value(name, value, field.types[0], sub_type=sub_type)
    for tensor in reader.tensors:
        data = np.array(tensor.data)
        if ".ffn_" in tensor.name:
            data = padded(data, tensor.name, n_ff, to)
        if kind == "q8_0" and data.ndim == 2 and data.shape[1] % _ROW == 0:
            packed = quants.quantize(data.astype(np.float32), GGMLQuantizationType.Q8_0)
            writer.add_tensor(tensor.name, packed, raw_dtype=GGMLQuantizationType.Q8_0)
        else:
            writer.add_tensor(tensor.name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def padded(data: npt.NDArray[Any], name: str, n_ff: int, to: int) -> npt.NDArray[Any]:
    """Fill the hidden side of a feed-forward network's tensor up with zeros."""
    is_down = ".ffn_down.weight" in name
    if not is_down and data.shape[0] != n_ff:
        return data  # ffn_down's bias
    widths = [(0, 0)] * data.ndim
    widths[-1 if is_down else 0] = (0, to - n_ff)
    return np.pad(data, widths)


def frames(n: int, size_px: int) -> npt.NDArray[np.uint8]:
    """Random pictures."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (n, size_px, size_px, 3), dtype=np.uint8)


def measure_rows(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Time a grid frame of the tower whose hidden rows fit no block, by type and padding."""
    shape = SHAPES[options.shape].cut(2)
    shape = replace(shape, vision=replace(shape.vision, n_layer=options.layers))
    language, published = random_pair(shape, "q8_0", options.folder)
    variants = {"f16": published}
    for pads, kind in ((True, "f16"), (False, "q8_0"), (True, "q8_0")):
        name = f"{kind}{', padded' if pads else ''}"
        target = options.folder / f"tower-{options.layers}-{name.replace(', ', '-')}.gguf"
        variants[name] = rewrite(published, target, pads=pads, kind=kind)
    pair = frames(2, options.size)
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    found: dict[str, Floats] = {}
    with Model(language) as model:
        towers = {
            name: VisionEncoder(model, path, n_threads=options.threads)
            for name, path in variants.items()
        }
        for _ in range(options.repeat + 1):
            for name, tower in towers.items():
                began = time.process_time()
                found[name] = tower.encode(pair, np.array([0.0, 0.5])).embeddings
                seconds[name].append(time.process_time() - began)
        for tower in towers.values():
            tower.close()
    base = median(seconds["f16"][1:])
    return [
        {
            "tower": f"{options.shape}, {options.layers} layers",
            "variant": name,
            "mib": round(variants[name].stat().st_size / 2**20),
            "seconds": [round(s, 3) for s in took[1:]],  # the first one touches the buffers
            "median_s": round(median(took[1:]), 3),
            "ratio": round(median(took[1:]) / base, 3),
            "distance": float(f"{distance(found[name], found['f16']):.2e}"),
        }
        for name, took in seconds.items()
    ]


def distance(one: Floats, exact: Floats) -> float:
    """The root mean square of the difference, as a share of that of the exact features."""
    gap = one.astype(np.float64) - exact
    return float(np.sqrt(np.mean(gap**2) / np.mean(exact.astype(np.float64) ** 2)))


def tower_table(document: dict[str, Any]) -> str:
    """Return the variants as a Markdown table."""
    heads = "| tower | variant | MiB | CPU s a grid frame | of f16's time | features from f16's |"
    lines = [heads, "|---" * 6 + "|"]
    for run in document["runs"]:
        far = f"{run['distance']:.1e}" if run["distance"] else "-"
        time_s = f"{run['median_s']:.3f}"
        cells = (run["tower"], run["variant"], str(run["mib"]), time_s, f"{run['ratio']:.2f}", far)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print one JSON document, and write the run file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="for the files with random weights")
    parser.add_argument("--shape", default="qwen2.5-vl-3b", choices=sorted(SHAPES))
    parser.add_argument("--layers", type=int, default=4, help="layers of the tower")
    parser.add_argument("--size", type=int, default=448, help="side of a frame in px")
    parser.add_argument("-t", "--threads", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--out", type=Path, help="the run file to write")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    rows = measure_rows(options)
    settings = {name: getattr(options, name) for name in ("layers", "size", "threads", "repeat")}
    document = run_file("tower", settings, {"name": options.shape}, {"runs": rows})
    words = document["command"].removeprefix("retake-edge ")
    document["command"] = f"python scripts/measure_tower.py {words}"
    if options.out:
        write_run_file(document, options.out)
    json.dump(document, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
