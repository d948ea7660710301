"""Tell a family of models, and how it wants its video, from a GGUF pair's metadata alone.

One module a family; each has a function that returns its `Family` for a pair of files, or None
for a pair of another kind. What a module says is held against the family's own processor and
model by `scripts/parity` and tests/models/test_families.py.
"""

from __future__ import annotations

from dataclasses import replace

from retake_edge.errors import ConfigError
from retake_edge.llama.gguf import GgufFile, read_gguf
from retake_edge.models.families import internvl, llava, qwen, smolvlm
from retake_edge.models.families.family import Family, FamilyOf, projector_type
from retake_edge.models.families.marks import IMAGE_MARKS
from retake_edge.models.families.template import video_prompt
from retake_edge.models.manifest import (
    FrameRule,
    ModelFiles,
    ModelManifest,
    PositionRule,
    bundled_names,
    load_manifest,
)

__all__ = ["Family", "family_of", "infer_manifest", "manifest_of", "projector_type"]

FAMILIES: tuple[FamilyOf, ...] = (
    qwen.family,
    internvl.family,
    smolvlm.family,
    llava.family,
)
"""Asked in this order; the first that knows the pair is right."""


def family_of(header: GgufFile, mmproj: GgufFile) -> Family:
    """Return the family of a language model and its projector.

    A pair that no module knows is used in a plain way: frames capped and rounded, each between the
    marks of an image, then text.

    Raises:
        ModelError: `mmproj` is no projector.
    """
    projector = projector_type(mmproj)
    for of in FAMILIES:
        family = of(header, mmproj)
        if family is not None:
            return family
    has_mrope = header.get(".rope.dimension_sections") is not None
    before, after = IMAGE_MARKS.get(projector, ("", ""))
    rule = PositionRule(
        "timestamps" if has_mrope else "linear", before_frame=before, after_frame=after
    )
    frames = FrameRule(frames_per_step=1)
    return Family(projector, frames, rule, video="<video>", slot="<video>")


def infer_manifest(header: GgufFile, mmproj: GgufFile, system: str = "") -> ModelManifest:
    """Return frames, positions and prompt of a GGUF pair; no weights are loaded.

    `system`: a system prompt, '' for none.

    Raises:
        ModelError: `mmproj` is no projector, or the chat template cannot be used.
    """
    family = family_of(header, mmproj)
    template = family.template or header.get("tokenizer.chat_template")
    bundled = _bundled(header, mmproj)
    if bundled is not None and template is None:
        return manifest_of(bundled, system)
    prompt = video_prompt(template, family, system)
    if bundled is not None:
        return replace(bundled, prompt=prompt)
    return ModelManifest(
        header.path.stem,
        header.path,
        mmproj.path,
        family.frames,
        family.positions,
        prompt,
        {},
        fps=family.fps,
        max_frames=family.max_frames,
        description=family.name,
    )


def _bundled(header: GgufFile, mmproj: GgufFile) -> ModelManifest | None:
    """The bundled model that both files say they are, at these paths; None if they are another."""
    names = {file.get("general.name") for file in (header, mmproj)}
    for name in bundled_names():
        manifest = load_manifest(name)
        if names == {manifest.gguf_name}:
            return replace(manifest, model=header.path, mmproj=mmproj.path, sha256={})
    return None


def manifest_of(source: ModelManifest | ModelFiles, system: str = "") -> ModelManifest:
    """Return how a model wants to be used: what its manifest says, or what its files tell.

    `system`: a system prompt, '' for none.

    Raises:
        ModelError: a file is missing, or not what it should be. ConfigError: the model's manifest
            has a prompt of its own, which leaves no place for a system prompt.
    """
    if isinstance(source, ModelManifest):
        if system:
            raise ConfigError(f"The model {source.name} takes no system prompt; leave out -sys.")
        return source
    return infer_manifest(read_gguf(source.model), read_gguf(source.mmproj), system)
