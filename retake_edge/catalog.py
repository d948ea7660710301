"""Which models there are: the bundled one, those that manifests name, and pairs in the caches.

What is said of a downloaded model is read off its GGUF headers; no weights are loaded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from retake_edge.errors import ModelError
from retake_edge.gguf_file import GgufFile, read_gguf
from retake_edge.hub import GgufPair, HubRef, find_pair
from retake_edge.hub.cache import cached_repos, snapshots
from retake_edge.hub.naming import model_names as models_among
from retake_edge.hub.naming import quant_of
from retake_edge.models import hub_ref, load_manifest, model_names, read_manifest
from retake_edge.planner import DEFAULT_KV_BUDGET

_F16_BYTES = 2
_NOT_COMPRESSED = {
    ".attention.key_length_mla": "latent attention",
    ".attention.kv_lora_rank": "latent attention",
    ".attention.sliding_window": "sliding windows",
    ".attn_logit_softcapping": "capped attention",
}


@dataclass(frozen=True)
class ModelEntry:
    """A model as `retake-edge models` shows it.

    `name`: what -m takes, or -hf where `source` is 'cache' ('bundled' and 'hub': there is a
    manifest). `hub`: user/repo:quant. `n_bytes`: its files' size, rounded where they are not
    downloaded. `memory_bytes`: weights and 32,000 KV cells in f16, an estimate. What is unknown is
    None or ''.
    """

    name: str
    source: str
    description: str
    hub: str
    is_downloaded: bool
    n_bytes: int | None
    memory_bytes: int | None
    architecture: str
    compression: str


def catalog() -> list[ModelEntry]:
    """Return all models: the bundled ones, other ones with a manifest, then those of the caches."""
    named = sorted(map(_named, model_names()), key=lambda entry: entry.source != "bundled")
    seen = {entry.hub for entry in named}
    return named + [entry for entry in _in_caches() if entry.hub not in seen]


def _named(name: str) -> ModelEntry:
    data = read_manifest(name)
    description = str(data.get("description", ""))
    ref = hub_ref(name)
    if ref is not None:
        entry = _entry(name, "hub", description, str(ref), find_pair(ref))
        n_bytes = int(data.get("download_gb", 0) * 1e9) or None
        return entry if entry.is_downloaded else replace(entry, n_bytes=n_bytes)
    manifest = load_manifest(name)
    return _entry(name, "bundled", description, "", GgufPair((manifest.model,), manifest.mmproj))


def _in_caches() -> Iterator[ModelEntry]:
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
                yield _entry(str(ref), "cache", "", str(ref), pair)


def _entry(name: str, source: str, description: str, hub: str, pair: GgufPair | None) -> ModelEntry:
    """The entry of a model; a damaged file is described as such, not raised."""
    if pair is None or not all(path.is_file() for path in pair.files):
        return ModelEntry(name, source, description, hub, False, None, None, "", "")
    n_bytes = sum(path.stat().st_size for path in pair.files)
    try:
        files = [read_gguf(path) for path in pair.files]
        memory = sum(sum(file.tensor_bytes.values()) for file in files)
        memory += DEFAULT_KV_BUDGET * kv_bytes_per_cell(files[0])
    except ModelError as error:
        return ModelEntry(name, source, str(error), hub, True, n_bytes, None, "", "")
    arch, compression = files[0].architecture, compression_of(files[0])
    return ModelEntry(name, source, description, hub, True, n_bytes, memory, arch, compression)


def kv_bytes_per_cell(lm: GgufFile) -> int:
    """Return the bytes of one KV cell in f16 over all layers that have cells."""
    heads = _largest(lm.get(".attention.head_count", 1))
    kv_heads = lm.get(".attention.head_count_kv", heads)
    if isinstance(kv_heads, list):
        n_heads = sum(kv_heads)
    else:
        n_heads = int(lm.get(".block_count", 0)) // int(lm.get(".full_attention_interval", 1))
        n_heads *= kv_heads
    head_dim = int(lm.get(".embedding_length", 0)) // heads
    k_dim = int(lm.get(".attention.key_length", head_dim))
    v_dim = int(lm.get(".attention.value_length", head_dim))
    if lm.get(".attention.key_length_mla"):
        v_dim = 0
    return n_heads * (k_dim + v_dim) * _F16_BYTES


def compression_of(lm: GgufFile) -> str:
    """Return what compression the model's cache gets, as far as its header tells."""
    for key, kind in _NOT_COMPRESSED.items():
        if lm.get(key):
            return f"not compressed ({kind}): whole frames, as many as fit"
    if any(".ssm." in key for key in lm.metadata):
        return "layers with attention compressed; recurrent ones keep a state of fixed size"
    return "all layers compressed"


def _largest(value: int | list[int]) -> int:
    return max(value) if isinstance(value, list) else value
