"""The key of a saved session: the content of files, the settings, the engine.

Files count by the SHA-256 of their whole content. Samples of a file would miss an edit between
them, and reading it once is little beside decoding or loading it; the hash is then remembered by
the file's identity (device, inode, size, times of change), so the next question does not read it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retake_edge.compress.policies import POLICIES
from retake_edge.files import JsonCache, file_sha256
from retake_edge.llama import library
from retake_edge.version import __version__

if TYPE_CHECKING:
    from retake_edge.config import RuntimeConfig
    from retake_edge.plan.frames import FramePlan
    from retake_edge.plan.run import RunPlan

_MAX_REMEMBERED = 1000
# A file changed this shortly before it was read may change again within the same time stamp.
_SETTLED_S = 2.0
# Where the code that makes a video's cells begins; what it imports counts, too.
_MAKER = "retake_edge.session.ingest"
# What that code uses to find files, to tell how far it is and how long it takes, and to answer:
# whatever these modules (and those below them) do, the cells stay as they are.
NOT_SHAPING = (
    *("engine.attention", "engine.trial", "llama.grammar", "llama.sampler", "models.files"),
    *("models.hub", "models.names", "plan.pace", "plan.seconds", "progress"),
    "session.store.folder",
)
_IMPORT = re.compile(
    r"^ *(?:from +(retake_edge[\w.]*) +import +(\([^)]*\)|[^\n]*)|import +(retake_edge[\w.]*))",
    re.MULTILINE,
)
_RANDOM_POLICIES = ("random", "random-stratified")


class HashCache:
    """SHA-256 of files, remembered in a JSON file while a file stays as it is.

    A file that cannot be read or written is ignored.
    """

    def __init__(self, path: Path) -> None:
        self._known = JsonCache(path, _MAX_REMEMBERED)

    @classmethod
    def beside(cls, cache_dir: Path) -> HashCache:
        """Return the hashes that are remembered beside the sessions of a cache folder."""
        return cls(cache_dir / "hashes.json")

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
    plan: RunPlan, video_sha256: str, model_sha256: Mapping[str, str]
) -> dict[str, Any]:
    """Return everything that decides what a video's cells hold, as plain values.

    Of the settings only what comes of them counts, as the plan of the run says it: the frames, and
    what is kept of them. How answers are drawn is no part of it, nor is the machine's side
    (threads, layers on a GPU, batches, room for text): that changes rounding at most.
    """
    manifest, frames, cells = plan.manifest, plan.frames, plan.cells
    n_frames = frames.n
    if cells.n_whole_steps is not None:
        n_frames = cells.n_whole_steps * manifest.frames.frames_per_step
    facts: dict[str, Any] = {
        "video": video_sha256,
        "model": dict(model_sha256),
        "frames": _frames(frames),
        "use": {
            "frames": asdict(manifest.frames),
            "layout": asdict(manifest.positions),
            "opening": manifest.prompt.opening(n_frames, plan.video.duration_s),
            "closing": manifest.prompt.closing,
        },
        "kept": _kept(plan),
        "cells": _stored(plan.config.runtime),
        "engine": dict(engine_facts()),
        "attention_rotation_disabled": rotation_switch(),
    }
    if plan.config.sampling.still:
        facts["still"] = plan.config.sampling.still
    # As they are read from a session, so that they can be compared.
    return dict(json.loads(json.dumps(facts)))


def _frames(frames: FramePlan) -> dict[str, Any]:
    """Return what tells the frames: how many, how large, and from when to when.

    Of times that are not even, a digest stands for all.
    """
    values = frames.to_dict()
    times_s = values.pop("all_times_s")
    if times_s:
        values["times_sha256"] = hashlib.sha256(json.dumps(times_s).encode()).hexdigest()
    return values


def _stored(runtime: RuntimeConfig) -> list[str]:
    """Return how cells are stored: their types, and the order of V.

    llama.cpp stores V the other way round without flash attention.
    """
    is_turned = runtime.flash_attention == "off"
    return [runtime.type_k, runtime.type_v, *(["no flash attention"] if is_turned else [])]


def _kept(plan: RunPlan) -> dict[str, Any]:
    """Return what stays of the frames, and the settings that have a say in it."""
    compression, cells = plan.config.compression, plan.cells
    kept: dict[str, Any] = {
        "per_patch": plan.config.dpselect.per_patch,
        "positions": cells.positions.mode,
    }
    if plan.config.dpselect.ratio < 1:
        kept["dpselect_ratio"] = plan.config.dpselect.ratio
    if cells.n_whole_steps is not None:
        kept["n_steps"] = cells.n_whole_steps
        if compression.policy == "frames" or cells.not_compressible:
            return kept
    if cells.memory.keep_ratio >= 1:
        return kept
    kept |= {
        "keep_ratio": cells.memory.keep_ratio,
        "policy": compression.policy,
        "steps_per_chunk": cells.memory.shape.steps_per_chunk,
    }
    if compression.policy == "pivotkv":
        kept["pivot"] = compression.pivot
    if compression.budgets != "even":
        kept["budgets"] = compression.budgets
    if compression.guide:
        kept["guide"] = compression.guide
    elif POLICIES[compression.policy].needs_scores:
        kept["n_queries"] = compression.n_queries
    if compression.policy in _RANDOM_POLICIES:
        kept["seed"] = compression.seed
    return kept


def rotation_switch() -> str:
    """Return what llama.cpp's switch against the rotation of K and V says."""
    return os.environ.get("LLAMA_ATTN_ROT_DISABLE", "")


def session_key(facts: Mapping[str, Any]) -> str:
    """Return the name of the session with these facts: 32 hex digits."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


@lru_cache(maxsize=1)
def engine_facts() -> Mapping[str, str]:
    """Return what identifies the code that makes the cells.

    The sources themselves count, so that a session never outlives a change that a version number
    was not raised for; so do the native libraries.
    """
    sources = hashlib.sha256()
    for _, source in sorted(shaping_sources().items()):
        sources.update(source)
    folder = library.library_dir()
    names = {"library": "*llama.*", "projector_library": "*mtmd.*"}
    return {
        "version": __version__,
        "sources": sources.hexdigest(),
        **{key: file_sha256(min(folder.glob(pattern))) for key, pattern in names.items()},
    }


@lru_cache(maxsize=1)
def shaping_sources() -> Mapping[str, bytes]:
    """Return the source of every module that has a say in the cells, by the module's name.

    These are the modules that the maker of cells imports, and that those import, wherever in their
    text, without what lies behind `NOT_SHAPING`.
    """
    found: dict[str, bytes] = {}
    waiting = [_MAKER]
    while waiting:
        name = waiting.pop()
        if name in found or _is_around(name):
            continue
        found[name] = _source_file(name).read_bytes()
        waiting += _imported(found[name].decode())
    return found


def _imported(source: str) -> Iterator[str]:
    """The modules of this package that a module's text imports."""
    for module, names, plain in _IMPORT.findall(source):
        if plain or _is_module(module):
            yield plain or module
        for name in re.findall(r"\w+", names):
            if _is_module(f"{module}.{name}"):
                yield f"{module}.{name}"


def _is_around(name: str) -> bool:
    return f"{name}.".startswith(tuple(f"retake_edge.{around}." for around in NOT_SHAPING))


def _is_module(name: str) -> bool:
    return name != "retake_edge" and _source_file(name).is_file()


def _source_file(name: str) -> Path:
    """The file of a module of this package, whether or not there is one."""
    path = Path(__file__).parents[2].joinpath(*name.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
