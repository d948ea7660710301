"""python -m retake_edge.convert CHECKPOINT OUT: a GGUF pair of a LLaVA that pools its frames."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from retake_edge.convert.gguf_out import OUT_TYPES
from retake_edge.convert.llava import convert
from retake_edge.errors import RetakeError


def main() -> int:
    """Convert, and say where the files are."""
    parser = argparse.ArgumentParser(
        prog="python -m retake_edge.convert",
        description="Write a GGUF pair from LLaVA-OneVision or LLaVA-Video.",
    )
    parser.add_argument("checkpoint", type=Path, help="folder of config.json and *.safetensors")
    parser.add_argument("out", type=Path, help="folder of the two files")
    parser.add_argument("--outtype", choices=OUT_TYPES, default="f16", help="default: f16")
    parser.add_argument("--max-frames", type=int, help="frames taken of a video by default")
    given = parser.parse_args()
    try:
        files = convert(given.checkpoint, given.out, given.outtype, given.max_frames)
    except RetakeError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"error: the files cannot be written ({error}).", file=sys.stderr)
        return 2
    print(f"retake-edge ask VIDEO QUESTION -m {files.model} --mmproj {files.mmproj}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
