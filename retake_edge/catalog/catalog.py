"""All models, the best first, and what each takes of this machine.

Those that manifests name, downloaded or not; other pairs in the caches; the bundled one last. No
weights are loaded, and the network is not used.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from retake_edge.catalog.needs import HOUR_S, needs_of
from retake_edge.errors import RetakeError
from retake_edge.files import default_cache_dir
from retake_edge.llama.gguf import GgufFile, read_gguf
from retake_edge.models.hub import GgufPair, HubRef, cache_dir, find_pair
from retake_edge.models.hub.cache import cached_repos, snapshots
from retake_edge.models.hub.naming import model_names as models_among
from retake_edge.models.hub.naming import quant_of
from retake_edge.models.manifest import ModelFiles, ModelManifest, bundled_names, load_manifest
from retake_edge.models.published import UNRANKED, Published, all_published
from retake_edge.plan.machine import measure_machine
from retake_edge.plan.seconds import Calibration
from retake_edge.progress import ProgressCallback, no_progress

STAGE = "looking at the models"
_NOT_COMPRESSED = {
    ".attention.key_length_mla": "latent attention",
    ".attention.kv_lora_rank": "latent attention",
    ".attention.sliding_window": "sliding windows",
    ".attn_logit_softcapping": "capped attention",
}


@dataclass(frozen=True)
class ModelEntry:
    """A model as `retake-edge models` shows it.

    `name`: what -m takes; `source`: 'hub' (a manifest names it), 'cache' (another pair of the hub)
    or 'bundled'. `hub`: user/repo:quant. `n_bytes`: its files' size, rounded where they are not
    downloaded. `memory_bytes`, `hour_s`: what reading an hour of video takes here; `fits`: whether
    that much memory is free. `rank`: 1 is the best. `files`: of a downloaded pair, the first part
    and the projector. What is unknown is None, '' or ().
    """

    name: str
    source: str
    description: str
    hub: str
    is_downloaded: bool
    n_bytes: int | None
    memory_bytes: int | None = None
    hour_s: float | None = None
    fits: bool | None = None
    is_recommended: bool = False
    rank: int = UNRANKED
    architecture: str = ""
    compression: str = ""
    files: tuple[str, ...] = ()

    @property
    def pair(self) -> ModelFiles:
        """The files of a downloaded model."""
        return ModelFiles(Path(self.files[0]), Path(self.files[1]))


def catalog(progress: ProgressCallback = no_progress, *, measure: bool = True) -> list[ModelEntry]:
    """Return all models, the best first; one of those that fit is recommended.

    `measure`: measure this machine's speed if that was never done (some seconds).

    Raises:
        RetakeError: the native libraries are missing, or a manifest is damaged.
    """
    calibration = Calibration(default_cache_dir())
    if measure:
        measure_machine(calibration, progress)
    sources = [*_real_models(), *_bundled()]
    entries = []
    for n, (entry, source) in enumerate(sources):
        progress(STAGE, n, len(sources))
        entries.append(_with_needs(entry, source, calibration))
    return _with_recommendation(entries)


def downloaded() -> list[ModelEntry]:
    """Return the models for real videos that are on this machine, the best first; none planned."""
    return [entry for entry, _ in _real_models() if entry.is_downloaded]


def _real_models() -> list[tuple[ModelEntry, ModelFiles | Published]]:
    """All but the bundled ones, in order."""
    named = all_published()
    by_repo = {model.ref.repo: model.rank for model in named}
    found: list[tuple[ModelEntry, ModelFiles | Published]] = []
    for model in named:
        pair = find_pair(model.ref)
        entry = _entry(model.name, "hub", model.description, str(model.ref), pair, model.rank)
        if entry.is_downloaded:
            found.append((entry, entry.pair))
        else:
            found.append((replace(entry, n_bytes=model.n_bytes), model))
    seen = {entry.hub for entry, _ in found}
    for entry in _in_caches(by_repo):
        if entry.hub not in seen:
            found.append((entry, entry.pair))
    return sorted(found, key=lambda item: (item[0].rank, -(item[0].n_bytes or 0), item[0].name))


def _bundled() -> Iterator[tuple[ModelEntry, ModelManifest]]:
    for name in bundled_names():
        model = load_manifest(name)
        pair = GgufPair((model.model,), model.mmproj)
        yield _entry(name, "bundled", model.description, "", pair, UNRANKED), model


def _in_caches(ranks: dict[str, int]) -> Iterator[ModelEntry]:
    """Pairs of the caches, one a quant, from the snapshot that `-hf` takes."""
    for repo in cached_repos():
        refs = {
            HubRef(repo, quant_of(path) or None)
            for _, paths in snapshots(repo)
            for path in models_among(paths)
        }
        for ref in sorted(refs, key=str):
            pair = find_pair(ref)
            if pair is not None:
                yield _entry(str(ref), "cache", "", str(ref), pair, ranks.get(repo, UNRANKED))


def _entry(
    name: str, source: str, description: str, hub: str, pair: GgufPair | None, rank: int
) -> ModelEntry:
    """The entry of a model before its needs are known; a damaged file is described as such."""
    if pair is None or pair.mmproj is None or not all(path.is_file() for path in pair.files):
        return ModelEntry(name, source, description, hub, False, None, rank=rank)
    n_bytes = sum(path.stat().st_size for path in pair.files)
    files = str(pair.parts[0]), str(pair.mmproj)
    entry = ModelEntry(name, source, description, hub, True, n_bytes, rank=rank, files=files)
    try:
        header = read_gguf(pair.parts[0])
        read_gguf(pair.mmproj)
    except RetakeError as error:
        return replace(entry, description=str(error), fits=False)
    return replace(entry, architecture=header.architecture, compression=compression_of(header))


def _with_needs(
    entry: ModelEntry, source: ModelManifest | ModelFiles | Published, calibration: Calibration
) -> ModelEntry:
    if entry.is_downloaded and not entry.architecture:
        return entry
    try:
        needs = needs_of(source)
    except RetakeError as error:
        return replace(entry, description=str(error), fits=False)
    hour_s = needs.hour_s(calibration)
    return replace(entry, memory_bytes=needs.n_bytes, fits=needs.fits, hour_s=hour_s)


def _with_recommendation(entries: list[ModelEntry]) -> list[ModelEntry]:
    """Mark the best model that reads an hour within an hour, or else the quickest that fits."""
    room = free_disk_bytes()
    usable = [
        entry
        for entry in entries
        if entry.fits
        and entry.source != "bundled"
        and (entry.is_downloaded or (entry.n_bytes or 0) < room)
    ]
    quick = [entry for entry in usable if entry.hour_s is None or entry.hour_s <= HOUR_S]
    slow = sorted(usable, key=lambda entry: entry.hour_s or 0.0)
    best = next(iter(quick or slow), None)
    return [replace(entry, is_recommended=entry is best) for entry in entries]


def free_disk_bytes() -> int:
    """Return the bytes that are free where downloads lie."""
    folder = cache_dir()
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(there).free


def compression_of(header: GgufFile) -> str:
    """Return what compression the model's cache gets, as far as its header tells."""
    for key, kind in _NOT_COMPRESSED.items():
        if header.get(key):
            return f"not compressed ({kind}): whole frames, as many as fit"
    if any(".ssm." in key for key in header.metadata):
        return "layers with attention compressed; recurrent ones keep a state of fixed size"
    return "all layers compressed"
