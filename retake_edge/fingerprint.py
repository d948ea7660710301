"""What a saved session depends on: the content of files, the settings, the engine.

Files count by the SHA-256 of their whole content. Samples of a file would miss an edit between
them, and reading it once is little beside decoding or loading it; the hash is then remembered by
the file's identity (device, inode, size, times of change), so the next question does not read it.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

from retake_edge import __version__, native
from retake_edge.checksum import file_sha256
from retake_edge.config import RetakeConfig
from retake_edge.models import ModelFiles, ModelManifest
from retake_edge.remembered import Remembered

_MAX_REMEMBERED = 1000
# A file changed this shortly before it was read may change again within the same time stamp.
_SETTLED_S = 2.0
# What `retake_edge.indexing` imports: the code that makes a video's cells, and saves them.
SOURCES = (
    "attention",
    "calibration",
    "cell_plan",
    "checkpoint",
    "checksum",
    "clock",
    "config",
    "coverage",
    "device_memory",
    "dpselect",
    "engine",
    "engine_records",
    "errors",
    "families",
    "families.family",
    "families.marks",
    "families.internvl",
    "families.llava",
    "families.qwen",
    "families.smolvlm",
    "families.template",
    "frame_size",
    "frames",
    "gguf_file",
    "indexing",
    "journal",
    "kvc",
    "llama",
    "memory_plan",
    "models",
    "native",
    "number_words",
    "pace",
    "pivotkv",
    "planner",
    "position_plan",
    "positions",
    "prefill",
    "prefilled",
    "progress",
    "questions",
    "reader",
    "remembered",
    "resample",
    "run_plan",
    "sampler",
    "score_memory",
    "stopping",
    "timing",
    "trained_context",
    "video",
    "video_frames",
    "video_goal",
    "video_index",
    "video_map",
    "video_mark",
    "video_path",
    "video_picture",
    "video_pieces",
    "video_process",
    "video_stream",
    "video_worker",
    "vision",
)
# What it imports, too, but only to find, check and remember files: of no weight for the cells.
AROUND = (
    "hub",
    "hub.cache",
    "hub.errors",
    "hub.naming",
    "hub.obtain",
    "hub.transfer",
    "model_files",
    "store",
    "trial",
)
# Where and how fast, not what: these do not make another session.
_MACHINE_SETTINGS = ("n_threads", "n_gpu_layers", "mmproj_offload", "encode_batch_frames")


class HashCache:
    """SHA-256 of files, remembered in a JSON file while a file stays as it is.

    A memory that cannot be read or written is done without.
    """

    def __init__(self, path: Path) -> None:
        self._known = Remembered(path, _MAX_REMEMBERED)

    def sha256(self, file: Path) -> str:
        """Return a file's SHA-256 as 64 hex digits."""
        name, identity = str(file.resolve()), file_identity(file)
        found = self._known.get(name)
        if isinstance(found, list) and len(found) == 2 and found[0] == identity:
            return str(found[1])
        started = time.time()
        digest = file_sha256(file)
        if identity == file_identity(file) and max(identity[3:]) / 1e9 < started - _SETTLED_S:
            self._known.put(name, [identity, digest])
        return digest


def file_identity(file: Path) -> list[int]:
    """Return what tells a file from what it was before: device, inode, size, times of change."""
    stat = file.stat()
    return [stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


def session_facts(
    video_sha256: str,
    source: ModelManifest | ModelFiles,
    model_sha256: Mapping[str, str],
    settings: RetakeConfig,
    n_after: int,
) -> dict[str, Any]:
    """Return everything that decides what a video's cells hold, as plain values.

    How answers are drawn is not part of it, nor is the machine's side (threads, GPU layers): two
    machines differ in rounding. `n_after`: cells reserved for text; it matters where -c sets what
    is left for the video.
    """
    config = settings.to_dict()
    del config["generation"]
    for name in _MACHINE_SETTINGS:
        del config["runtime"][name]
    if settings.runtime.n_ctx is not None:
        config["n_after"] = n_after
    return {
        "video": video_sha256,
        "model": dict(model_sha256),
        "use": _use(source),
        "config": config,
        "engine": dict(engine_facts()),
        "attention_rotation_disabled": os.environ.get("LLAMA_ATTN_ROT_DISABLE", ""),
    }


def session_key(facts: Mapping[str, Any]) -> str:
    """Return the name of the session with these facts: 32 hex digits."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def _use(source: ModelManifest | ModelFiles) -> dict[str, Any]:
    """How the model wants its video; for a plain GGUF pair that follows from its content."""
    if isinstance(source, ModelFiles):
        return {}
    return {
        "frames": asdict(source.frames),
        "layout": asdict(source.layout),
        "before": source.prompt.before,
        "fps": source.fps,
        "max_frames": source.max_frames,
    }


@lru_cache(maxsize=1)
def engine_facts() -> Mapping[str, str]:
    """Return what identifies the code that makes the cells.

    The sources themselves count, so that a session never outlives a change that a version number
    was not raised for; so do the native libraries.
    """
    sources = hashlib.sha256()
    for name in SOURCES:
        sources.update(_source_file(name).read_bytes())
    folder = native.library_dir()
    names = {"library": "*llama.*", "projector_library": "*mtmd.*"}
    return {
        "version": __version__,
        "sources": sources.hexdigest(),
        **{key: file_sha256(min(folder.glob(pattern))) for key, pattern in names.items()},
    }


def _source_file(name: str) -> Path:
    """The file of a module of this package."""
    path = Path(__file__).parent.joinpath(*name.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
