"""The parts of a LLaVA checkpoint by tensor name, in two layouts.

Parts have the names of the models that they are made of: `model.layers.0...` and `lm_head.weight`
of Qwen2, `vision.encoder.layers.0...` and `vision.embeddings...` of SigLIP, then `projector.0...`,
`projector.2...` and `newline`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from retake_edge.convert.checkpoint import Checkpoint
from retake_edge.errors import ModelError

TRANSFORMERS, AUTHORS = "LlavaOnevisionForConditionalGeneration", "LlavaQwenForCausalLM"

_LANGUAGE = r"((?:layers\.\d+\.|embed_tokens\.|norm\.).+)"
_VISION = r"(?:model\.)?(?:vision_tower\.)+(?:vision_model\.)?(.+)"
_RULES = {
    TRANSFORMERS: (
        (rf"(?:model\.)?language_model\.(?:model\.)?{_LANGUAGE}", r"model.\1"),
        (r"(?:language_model\.)?(lm_head\.weight)", r"\1"),
        (r"(?:model\.)?multi_modal_projector\.linear_1\.(.+)", r"projector.0.\1"),
        (r"(?:model\.)?multi_modal_projector\.linear_2\.(.+)", r"projector.2.\1"),
    ),
    AUTHORS: (
        (rf"model\.{_LANGUAGE}", r"model.\1"),
        (r"(lm_head\.weight)", r"\1"),
        (r"model\.mm_projector\.([02]\..+)", r"projector.\1"),
    ),
}
_OF_BOTH = (
    (_VISION, r"vision.\1"),
    (r"(?:model\.)?image_newline", "newline"),
)
_NOT_USED = ("vision.post_layernorm.", "vision.head.")


@dataclass(frozen=True)
class Parts:
    """A checkpoint's tensors by what they are: a part's name to the name in the checkpoint."""

    names: dict[str, str]

    def under(self, prefix: str) -> dict[str, str]:
        """Return the parts whose name starts with `prefix`, without it."""
        return {
            part.removeprefix(prefix): name
            for part, name in self.names.items()
            if part.startswith(prefix)
        }

    def n_layers(self, prefix: str) -> int:
        """Return how many layers there are under `prefix`, such as 'model.layers.'."""
        return 1 + max((int(part.split(".")[0]) for part in self.under(prefix)), default=-1)


def kind_of(checkpoint: Checkpoint) -> str:
    """Return TRANSFORMERS or AUTHORS.

    Raises:
        ModelError: it is another model.
    """
    named = checkpoint.config.get("architectures") or ["none"]
    if named[0] not in _RULES:
        raise ModelError(
            f"{checkpoint.folder} holds a {named[0]}, and only {TRANSFORMERS} and {AUTHORS} can be "
            "converted here; for others use llama.cpp's own converter."
        )
    return str(named[0])


def parts_of(checkpoint: Checkpoint) -> Parts:
    """Tell what each tensor is.

    Raises:
        ModelError: one is of no known kind, or one that must be there is not.
    """
    rules = (*_RULES[kind_of(checkpoint)], *_OF_BOTH)
    names: dict[str, str] = {}
    for name in checkpoint.tensors:
        part = _part(name, rules)
        if part is None:
            raise ModelError(
                f"The tensor {name} in {checkpoint.folder} is none of a LLaVA-OneVision or "
                "LLaVA-Video with a SigLIP tower; this checkpoint cannot be converted."
            )
        if not part.startswith(_NOT_USED):
            names[part] = name
    for part in ("model.embed_tokens.weight", "vision.embeddings.patch_embedding.weight"):
        if part not in names:
            raise ModelError(
                f"{checkpoint.folder} has no {part}; take a checkpoint that holds the whole model."
            )
    return Parts(names)


def _part(name: str, rules: tuple[tuple[str, str], ...]) -> str | None:
    for pattern, replacement in rules:
        found = re.fullmatch(pattern, name)
        if found:
            return found.expand(replacement)
    return None
