"""LLaVA-OneVision and LLaVA-Video: what their settings mean, and the two files made of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from retake_edge.convert.checkpoint import Checkpoint, open_checkpoint
from retake_edge.convert.language import write_language
from retake_edge.convert.layout import AUTHORS, Parts, kind_of, parts_of
from retake_edge.convert.vision import Tower, write_vision
from retake_edge.errors import ModelError
from retake_edge.models.families.video_facts import VideoFacts
from retake_edge.models.manifest import ModelFiles

_FULL_TOWER = 27
"""Layers of the SigLIP that the authors start from; they take the last one off."""

_AUTHORS_HEADS = 16
_FRAMES = {"LLaVA-OneVision": 32, "LLaVA-Video": 64}
"""The most frames of a video that the models were trained with, or are shown by their demo."""

_SYSTEM = "You are a helpful assistant."
_CHAT = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\n" + _SYSTEM + "<|im_end|>\n"
    "{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
    "{% endfor %}{{ '<|im_start|>assistant\n' }}"
)
_TIMES = (
    "The video lasts for {duration_s} seconds, and {n_frames} frames are uniformly sampled from "
    "it. These frames are located at {frame_times}.Please answer the following questions related "
    "to this video."
)
"""The sentence that LLaVA-Video was trained with, without a space after the times."""


def convert(
    folder: Path, out: Path, kind: str = "f16", max_frames: int | None = None
) -> ModelFiles:
    """Write the GGUF pair of a checkpoint to the folder `out`, matrices as `kind`.

    `max_frames`: how many frames are taken of a video if nothing else is asked for (None: as many
    as the model was trained with).

    Raises:
        ModelError: it is another model, or damaged. OSError: the files cannot be written; neither
            stays.
    """
    checkpoint = open_checkpoint(folder)
    parts = parts_of(checkpoint)
    if kind_of(checkpoint) == AUTHORS:
        tower, facts, template = _of_authors(checkpoint, parts)
    else:
        tower, facts, template = _of_transformers(checkpoint, parts)
    _ = facts.pooling  # a mode that is not known is refused now, and not when a video is read
    if facts.newline != "none" and "newline" not in parts.names:
        raise ModelError(f"{folder} has no image_newline, which its settings ask for.")
    if max_frames is not None:
        facts = VideoFacts(**{**vars(facts), "max_frames": max_frames})
    out.mkdir(parents=True, exist_ok=True)
    name = folder.resolve().name
    model, mmproj = f"{name}-{kind.upper()}.gguf", f"mmproj-{name}-{kind.upper()}.gguf"
    with TemporaryDirectory(prefix=".converting-", dir=out) as made:
        part = Path(made)
        write_vision(checkpoint, parts, part / mmproj, name, kind, tower, facts)
        write_language(checkpoint, parts, part / model, name, kind, template)
        for file in (model, mmproj):
            (part / file).replace(out / file)
    return ModelFiles(out / model, out / mmproj)


def _of_transformers(checkpoint: Checkpoint, parts: Parts) -> tuple[Tower, VideoFacts, str]:
    """LLaVA-OneVision. Source: transformers, LlavaOnevisionConfig and LlavaOnevisionModel."""
    config = checkpoint.config
    _require(checkpoint, config, "vision_feature_select_strategy", "full")
    _require(checkpoint, config, "projector_hidden_act", "gelu")
    n_layer = parts.n_layers("vision.encoder.layers.")
    layer = config.get("vision_feature_layer", -1)
    if not isinstance(layer, int) or not -n_layer - 1 <= layer <= n_layer:
        raise ModelError(f"{checkpoint.folder} has features of layers {layer!r}; one can be used.")
    vision = config.get("vision_config", {})
    _require(checkpoint, vision, "hidden_act", "gelu_pytorch_tanh")
    pictures = _picture_settings(checkpoint)
    tower = Tower(
        n_layer=layer if layer >= 0 else n_layer + 1 + layer,
        n_head=int(vision.get("num_attention_heads", _AUTHORS_HEADS)),
        eps=float(vision.get("layer_norm_eps", 1e-6)),
        mean=pictures["image_mean"],
        std=pictures["image_std"],
    )
    family = "LLaVA-OneVision"
    facts = VideoFacts(family, "bilinear", 2, "end", _FRAMES[family])
    return tower, facts, _chat_template(checkpoint)


def _of_authors(checkpoint: Checkpoint, parts: Parts) -> tuple[Tower, VideoFacts, str]:
    """LLaVA-Video, or LLaVA-OneVision. Source: LLaVA-NeXT, llava_arch.py and siglip_encoder.py."""
    config = checkpoint.config
    _require(checkpoint, config, "mm_projector_type", "mlp2x_gelu")
    _require(checkpoint, config, "add_faster_video", False)
    _require(checkpoint, config, "mm_resampler_type", None)
    n_layer = parts.n_layers("vision.encoder.layers.")
    tower = Tower(
        n_layer=n_layer - 1 if n_layer == _FULL_TOWER else n_layer,
        n_head=_AUTHORS_HEADS,
        eps=1e-6,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )
    tells_times = bool(config.get("add_time_instruction"))
    family = "LLaVA-Video" if tells_times else "LLaVA-OneVision"
    stride = int(config.get("mm_spatial_pool_stride") or 2)
    facts = VideoFacts(
        family,
        pool_mode=(config.get("mm_spatial_pool_mode") or "bilinear") if stride > 1 else "none",
        pool_stride=stride,
        newline=_newline(checkpoint, config),
        max_frames=_FRAMES[family],
        spreads_frames=bool(config.get("force_sample")),
        chat_template=_CHAT,
        time_sentence=_TIMES if tells_times else "",
    )
    return tower, facts, _CHAT


def _newline(checkpoint: Checkpoint, config: Mapping[str, Any]) -> str:
    """Return the place of the learned row, in our words."""
    merge = str(config.get("mm_patch_merge_type", "flat"))
    at = config.get("mm_newline_position", "one_token")
    if not merge.startswith("spatial"):
        return "none"
    if at == "one_token" and "unpad" not in merge:
        return "none"
    ours = {"grid": "row", "frame": "frame", "one_token": "end", "no_token": "none"}
    if at not in ours:
        raise ModelError(
            f"mm_newline_position is {at!r} in {checkpoint.folder}, but must be one of "
            f"{', '.join(ours)}."
        )
    return ours[at]


def _require(checkpoint: Checkpoint, config: Mapping[str, Any], key: str, wanted: Any) -> None:
    """Refuse a setting that changes the model; one that is left out is as wanted."""
    found = config.get(key, wanted)
    if found != wanted:
        raise ModelError(
            f"{key} is {found!r} in {checkpoint.folder}, and only {wanted!r} can be converted."
        )


def _picture_settings(checkpoint: Checkpoint) -> Mapping[str, Any]:
    """Return the settings by which the processor normalises frames."""
    processor = checkpoint.json("processor_config.json")
    for found in (
        checkpoint.json("video_preprocessor_config.json"),
        processor.get("video_processor", {}),
        checkpoint.json("preprocessor_config.json"),
        processor.get("image_processor", {}),
    ):
        if "image_mean" in found and "image_std" in found:
            return found
    raise ModelError(
        f"{checkpoint.folder} does not say how pictures are normalised; download its "
        "preprocessor_config.json as well."
    )


def _chat_template(checkpoint: Checkpoint) -> str:
    """The template that the checkpoint's processor uses."""
    file = checkpoint.folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    for name in ("chat_template.json", "processor_config.json", "tokenizer_config.json"):
        found = checkpoint.json(name).get("chat_template")
        if isinstance(found, str):
            return found
    raise ModelError(
        f"{checkpoint.folder} has no chat template; download its chat_template.json as well."
    )
