"""retake-edge pull: download a model of the hub, the one command made for the network."""

from __future__ import annotations

from typing import Annotated

import typer

from retake_edge.cli.streams import tell


def pull(
    model: Annotated[
        str,
        typer.Argument(
            help="A model's name (see `models`), or USER/REPO[:QUANT].", show_default=False
        ),
    ],
    offline: Annotated[
        bool, typer.Option("--offline", help="Only check what is downloaded.")
    ] = False,
) -> None:
    """Download a model with its projector, and print where its files lie.

    Files lie where llama.cpp and huggingface_hub look for them, too, and what is there is not
    downloaded again. Each file is checked against the SHA-256 that the hub has of it; a download
    that was interrupted goes on where it stopped.
    """
    from retake_edge.cli.progress import shown_progress
    from retake_edge.models import hub
    from retake_edge.models.manifest import bundled_names, hub_ref, load_manifest
    from retake_edge.session.store.folder import SessionStore
    from retake_edge.session.store.key import HashCache

    if model in bundled_names():
        manifest = load_manifest(model)
        manifest.verify()
        typer.echo(f"{manifest.model}\n{manifest.mmproj}")
        tell(f"{model} comes with retake-edge")
        return
    ref = hub_ref(model) or hub.parse_ref(model)
    sha256 = HashCache.beside(SessionStore().cache_dir).sha256
    with shown_progress() as progress:
        if offline:
            pair, n_fetched = hub.obtain(ref, offline=True, sha256=sha256), 0
        else:
            pair, n_fetched = hub.pull(ref, sha256=sha256, progress=progress)
    typer.echo("\n".join(str(path) for path in pair.files))
    total = sum(path.stat().st_size for path in pair.files)
    tell(f"{ref}: {total / 1e6:.1f} MB checked, {n_fetched / 1e6:.1f} MB of it downloaded")
