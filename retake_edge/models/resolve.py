"""From what a user calls a model to its files: a name, a hub id, or paths."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from retake_edge.errors import ConfigError, ModelError
from retake_edge.files import file_sha256
from retake_edge.models.files import check_parts, projector_beside
from retake_edge.models.manifest import ModelFiles, ModelManifest, hub_ref, load_manifest

if TYPE_CHECKING:
    from retake_edge.models.hub import HubRef


class NotDownloadedError(ModelError):
    """A model of the hub that is not on this machine; `name`: what `pull` takes, `ref`: where."""

    def __init__(self, name: str, ref: HubRef) -> None:
        self.name, self.ref = name, ref
        where = "" if name == str(ref) else f" ({ref})"
        super().__init__(
            f"The model {name} is not downloaded; run `retake-edge pull {name}`{where}."
        )


def _downloaded(
    name: str, ref: HubRef, mmproj: Path | None, sha256: Callable[[Path], str]
) -> ModelFiles:
    """The files of a hub model, checked; the network is left alone."""
    from retake_edge.models import hub

    pair = hub.find_pair(ref, with_mmproj=mmproj is None)
    if pair is None or not (mmproj or pair.mmproj):
        raise NotDownloadedError(name, ref)
    hub.check(pair, name, sha256)
    projector = mmproj or pair.mmproj
    assert projector is not None
    return ModelFiles(pair.parts[0], projector)


def resolve_model(
    model: str, mmproj: Path | None = None, *, sha256: Callable[[Path], str] | None = None
) -> ModelManifest | ModelFiles:
    """Return a model by name (its files verified), by user/repo[:quant], or the pair of a path.

    Names may be written in any case and punctuation. A model of the hub must have been downloaded;
    this never does it.

    Without `mmproj` the projector beside the model that belongs to it is taken. `sha256` gives the
    hash of a file, from memory perhaps (None: it is read).

    Raises:
        ModelError: no such model, a part of it is missing, or no one projector beside it
            (NotDownloadedError: the hub has it). ConfigError: a projector was given to a model by
            name.
    """
    from retake_edge.models.names import hub_id, known_name, unknown_model

    path = Path(model)
    if not model.lower().endswith(".gguf") and not path.is_file():
        name = known_name(model)
        ref = hub_ref(name) if name else hub_id(model)
        if name and mmproj is not None:
            raise ConfigError(
                f"--mmproj goes with a GGUF path, but the model is {model!r}; give -m FILE.gguf."
            )
        if ref is not None:
            return _downloaded(name or str(ref), ref, mmproj, sha256 or file_sha256)
        if name is None:
            raise unknown_model(model)
        manifest = load_manifest(name)
        manifest.verify(sha256)
        return manifest
    if not path.is_file():
        raise ModelError(f"There is no model file {path}; check the path after -m.")
    header = check_parts(path)
    return ModelFiles(path, mmproj or projector_beside(path, header))
