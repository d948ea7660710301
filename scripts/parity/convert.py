"""Convert a saved toy to a pair of GGUF files with the pinned llama.cpp's own converter."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from fetch_llama_cpp import fetch_sdist, read_upstream

ROOT = Path(__file__).resolve().parents[2]
PARTS = "convert_hf_to_gguf.py", "conversion/", "gguf-py"


def llama_cpp_tree() -> Path:
    """Return the pinned llama.cpp tree: RETAKE_LLAMA_CPP_SOURCE, or extracted from the archive."""
    given = os.environ.get("RETAKE_LLAMA_CPP_SOURCE")
    if given:
        return Path(given)
    upstream = read_upstream()
    archive = fetch_sdist(ROOT / "build" / "downloads", upstream)
    inside = f"{upstream.sdist.removesuffix('.tar.gz')}/{upstream.path}"
    target = ROOT / "build" / "parity"
    if not (target / inside / PARTS[-1]).is_dir():
        with tarfile.open(archive) as tar:
            wanted = tuple(f"{inside}/{part}" for part in PARTS)
            members = [member for member in tar if member.name.startswith(wanted)]
            tar.extractall(target, members)  # its SHA-256 has been checked
    return target / inside


def convert(folder: Path, pre_tokenizer: str, model: Path, mmproj: Path) -> None:
    """Convert the toy in `folder` to two f32 GGUF files.

    Raises:
        RuntimeError: the converter failed.
    """
    for out, more in ((model, []), (mmproj, ["--mmproj"])):
        options = [str(folder), "--outfile", str(out), "--outtype", "f32", *more]
        command = [sys.executable, "-m", "parity.convert", pre_tokenizer, *options]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        if done.returncode or not out.is_file():
            raise RuntimeError(f"the converter failed on {folder}:\n{done.stderr[-3000:]}")


def main() -> None:
    """Run the converter; a toy's tokenizer is none of those whose hash it knows."""
    tree = llama_cpp_tree()
    sys.path[:0] = [str(tree), str(tree / "gguf-py")]
    from conversion import base

    pre_tokenizer = sys.argv[1]
    base.TextModel.get_vocab_base_pre = lambda self, tokenizer: pre_tokenizer
    sys.argv = ["convert_hf_to_gguf.py", *sys.argv[2:]]
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("HF_HOME", folder)
        runpy.run_path(str(tree / "convert_hf_to_gguf.py"), run_name="__main__")


if __name__ == "__main__":
    main()
