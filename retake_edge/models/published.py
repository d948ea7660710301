"""The models with a name that the hub has: where they lie, how large they are, what they take.

Their manifests carry their shape, so that all of this is known before anything is downloaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from retake_edge.errors import ModelError
from retake_edge.models.hub.naming import HubRef
from retake_edge.models.manifest import ModelFiles, hub_ref, model_names, models_dir, read_manifest
from retake_edge.models.shape import ModelShape, shape_from

UNRANKED = 1000
"""The rank of a model that no manifest names."""


@dataclass(frozen=True)
class Published:
    """A model with a name.

    `rank`: which to try first (1: the best answers are expected of it; newer before older, larger
    before smaller); `n_bytes`: of its files, rounded; None where the manifest tells neither that
    nor a shape.
    """

    name: str
    ref: HubRef
    description: str
    rank: int
    n_bytes: int | None
    shape: ModelShape | None


def published(name: str) -> Published | None:
    """Return a model of the hub by its manifest's name; None if the manifest names files instead.

    Raises:
        ModelError: there is no such manifest, or it is damaged.
    """
    ref, data = hub_ref(name), read_manifest(name)
    if ref is None:
        return None
    try:
        shape = shape_from(name, data["shape"]) if "shape" in data else None
        n_bytes = int(float(data.get("download_gb", 0)) * 1e9) or None
        rank = int(data.get("rank", UNRANKED))
    except (KeyError, TypeError, ValueError) as error:
        path = models_dir() / f"{name}.toml"
        raise ModelError(f"The manifest {path} is damaged ({error!r}); install it again.") from None
    return Published(name, ref, str(data.get("description", "")), rank, n_bytes, shape)


def all_published() -> list[Published]:
    """Return the models of the hub that have a name, the best first."""
    found = [model for name in model_names() if (model := published(name)) is not None]
    return sorted(found, key=lambda model: (model.rank, model.name))


def hollow_files(model: Published, folder: TemporaryDirectory[str]) -> ModelFiles:
    """Write the model's files without weights, to plan with.

    Raises:
        ModelError: its manifest has no shape, or the files cannot be written.
    """
    from retake_edge.models.hollow import hollow_pair

    if model.shape is None:
        raise ModelError(
            f"What {model.name} takes is not known before it is downloaded; run "
            f"`retake-edge pull {model.name}`."
        )
    try:
        return hollow_pair(model.shape, model.ref.quant or "Q4_K_M", Path(folder.name))
    except OSError as error:
        raise ModelError(f"Cannot plan with {model.name} ({error}); free some space.") from None
