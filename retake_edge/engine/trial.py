"""A pair of model files that is seen for the first time is loaded once in a process of its own.

llama.cpp checks much of a GGUF file, but ends the process on some damaged ones. The trial reads the
vocabulary, builds the language model's graph without its weights, lets the projector see one small
picture, and decodes one token where the weights fit into memory. That it went well is remembered
by the hash of both headers.

    python -m retake_edge.engine.trial MODEL MMPROJ      exit code 0, or a sentence and its own
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from retake_edge.errors import ModelError, NativeError, RetakeError
from retake_edge.files import JsonCache
from retake_edge.llama.gguf import GgufFile, read_gguf
from retake_edge.models.manifest import ModelFiles, ModelManifest

_MAX_REMEMBERED = 256
_MAX_SECONDS = 900
_MAX_CPU_S = 60  # no header takes as long; a damaged one may loop
_MAX_CPU_WITH_WEIGHTS_S = 900
_MEMORY_SHARE = 0.7
_SIDE_PX = 112
_tried: set[str] = set()


def check_loadable(source: ModelManifest | ModelFiles, cache_dir: Path | None) -> None:
    """Raise ModelError where llama.cpp cannot load a pair, or would end this process.

    (NativeError where the libraries themselves are missing.)

    A model whose files a manifest vouches for by their hashes is not tried. `cache_dir`: where it
    is remembered (None: nowhere but in this process).
    """
    if isinstance(source, ModelManifest) and source.sha256:
        return
    headers = read_gguf(source.model), read_gguf(source.mmproj)
    key = _headers_sha256(*headers)
    memory = JsonCache(cache_dir / "tried.json" if cache_dir else None, _MAX_REMEMBERED)
    if key in _tried or memory.get(key):
        return
    _try(source)
    _tried.add(key)
    memory.put(key, source.model.name)


def _headers_sha256(*headers: GgufFile) -> str:
    """Hash all that stands before the weights, and the files' sizes."""
    digest = hashlib.sha256()
    for header in headers:
        size = header.path.stat().st_size
        with header.path.open("rb") as file:
            digest.update(file.read(min(header.tensor_offsets.values(), default=size)))
        digest.update(str(size).encode())
    return digest.hexdigest()


def _try(source: ModelManifest | ModelFiles) -> None:
    call = [sys.executable, "-m", "retake_edge.engine.trial", str(source.model), str(source.mmproj)]
    paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "GGML_NO_BACKTRACE": "1",  # a debugger that it starts may wait for ever
    }
    try:
        done = subprocess.run(
            call,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_MAX_SECONDS,
            env=environment,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired:
        done = None
    if done is not None and done.returncode == 0:
        return
    message = done.stdout.decode("utf-8", "replace").strip() if done is not None else ""
    is_native = done is not None and done.returncode == NativeError.exit_code and message
    raise (NativeError if is_native else ModelError)(
        message
        or f"llama.cpp ends while it loads {source.model} with {source.mmproj}: one of them is "
        "damaged, or they do not belong together; download them again."
    )


def _load(model_path: Path, mmproj: Path) -> None:
    """Load all but the language model's weights, then decode a token with them."""
    import numpy as np

    from retake_edge.llama.buffers import available_memory_bytes
    from retake_edge.llama.context import Context
    from retake_edge.llama.model import Model
    from retake_edge.models.families import infer_manifest
    from retake_edge.vision.encoder import VisionEncoder

    with Model(model_path, n_gpu_layers=0, weights=False) as model:
        model.tokenize("Why?", add_special=True)
        with Context(model, n_ctx=256, n_batch=64, n_ubatch=64, n_threads=1):
            pass
        frames = infer_manifest(read_gguf(model_path), read_gguf(mmproj)).frames
        with VisionEncoder(
            model,
            mmproj,
            offload=False,
            n_threads=1,
            overview=frames.overview,
            pooling=frames.pooling,
        ) as encoder:
            picture = np.full((1, _SIDE_PX, _SIDE_PX, 3), 127, np.uint8)
            encoder.encode(picture, np.zeros(1))
    _limit_cpu(_MAX_CPU_WITH_WEIGHTS_S)
    if model_path.stat().st_size < _MEMORY_SHARE * (available_memory_bytes() or 0):
        with (
            Model(model_path, n_gpu_layers=0) as model,
            Context(model, n_ctx=256, n_batch=64, n_ubatch=64) as context,
        ):
            context.decode_tokens([0], 0)


def _limit_cpu(seconds: int) -> None:
    with suppress(ImportError):  # a system without it waits for _MAX_SECONDS instead
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.RLIM_INFINITY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def end_after(work: Callable[[], None]) -> NoReturn:
    """Do what this process was started for, and end it at once.

    With exit code 0; or with an error's sentence on the standard output, and its exit code.
    """
    try:
        work()
    except RetakeError as error:
        print(error)
        sys.stdout.flush()
        os._exit(error.exit_code)
    os._exit(0)


def main() -> NoReturn:
    """Try the pair that the command line names."""
    _limit_cpu(_MAX_CPU_S)
    end_after(lambda: _load(Path(sys.argv[1]), Path(sys.argv[2])))


if __name__ == "__main__":
    main()
