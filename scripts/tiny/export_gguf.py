"""Write the trained weights as the two GGUF files that llama.cpp loads.

python export_gguf.py VIT.pt LM.pt OUT_FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import gguf
import lm
import numpy as np
import tokens
import torch
import vit
from gguf import GGMLQuantizationType as Type
from torch import Tensor

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_LM_NAMES = {
    "norm1": "attn_norm",
    "norm2": "ffn_norm",
    "q": "attn_q",
    "k": "attn_k",
    "v": "attn_v",
    "out": "attn_output",
    "gate": "ffn_gate",
    "up": "ffn_up",
    "down": "ffn_down",
}
_VIT_NAMES = {
    "ln1": "ln1",
    "ln2": "ln2",
    "q": "attn_q",
    "k": "attn_k",
    "v": "attn_v",
    "out": "attn_out",
    "up": "ffn_up",
    "down": "ffn_down",
}


def describe(writer: gguf.GGUFWriter, part: str) -> None:
    """Write name, licence and origin."""
    writer.add_name("retake-edge tiny")
    writer.add_description(f"Tiny VLM for synthetic scenes, {part}; trained by scripts/tiny")
    writer.add_license("MIT")
    writer.add_quantization_version(2)


def put(writer: gguf.GGUFWriter, name: str, value: Tensor, kind: Type) -> None:
    """Add a tensor; vectors stay f32."""
    data = value.detach().float().numpy()
    if data.ndim == 1:
        kind = Type.F32
    packed = (
        data.astype(np.float16)
        if kind == Type.F16
        else (data if kind == Type.F32 else gguf.quants.quantize(data, kind))
    )
    writer.add_tensor(name, np.ascontiguousarray(packed), raw_dtype=kind)


def add_vocabulary(writer: gguf.GGUFWriter) -> None:
    """Write tokens, merges, special tokens and the chat template."""
    texts, ids = tokens.vocabulary(), tokens.token_ids()
    kinds = [gguf.TokenType.NORMAL] * len(texts)
    for special in tokens.SPECIALS:
        kinds[ids[special]] = gguf.TokenType.CONTROL
    kinds[tokens.clock_base() :] = [gguf.TokenType.USER_DEFINED] * tokens.N_CLOCK
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(texts)
    writer.add_token_types(kinds)
    writer.add_token_merges([f"{a} {b}" for a, b in tokens.merges()])
    writer.add_eos_token_id(ids["<|im_end|>"])
    writer.add_bos_token_id(ids["<|endoftext|>"])
    writer.add_pad_token_id(ids["<|endoftext|>"])
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def write_lm(model: lm.LanguageModel, path: Path, kind: Type = Type.Q8_0) -> None:
    """Write the language model; matrices in the given type."""
    writer = gguf.GGUFWriter(path, "qwen2vl")
    describe(writer, "language model")
    file_type = {Type.Q8_0: gguf.LlamaFileType.MOSTLY_Q8_0, Type.F32: gguf.LlamaFileType.ALL_F32}
    writer.add_file_type(file_type[kind])
    writer.add_context_length(32768)
    writer.add_embedding_length(lm.HIDDEN)
    writer.add_block_count(lm.DEPTH)
    writer.add_feed_forward_length(lm.FFN)
    writer.add_head_count(lm.HEADS)
    writer.add_head_count_kv(lm.KV_HEADS)
    writer.add_rope_freq_base(lm.THETA)
    writer.add_layer_norm_rms_eps(lm.EPS)
    writer.add_rope_dimension_sections([*lm.SECTIONS, 0])
    writer.add_vocab_size(len(tokens.vocabulary()))
    add_vocabulary(writer)
    put(writer, "token_embd.weight", model.table(), kind)
    put(writer, "output_norm.weight", model.norm.weight, kind)
    for name, value in model.named_parameters():
        if name.startswith("layers."):
            _, number, layer, what = name.split(".")
            put(writer, f"blk.{number}.{_LM_NAMES[layer]}.{what}", value, kind)
    finish(writer)


def write_mmproj(model: vit.VisionTransformer, path: Path, scale: float) -> None:
    """Write the vision transformer in f16; the LM's feature scale goes into the last matrix."""
    writer = gguf.GGUFWriter(path, "clip")
    describe(writer, "vision")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_clip_has_vision_encoder(True)
    writer.add_clip_projector_type("qwen2vl_merger")
    writer.add_vision_image_size(vit.SIDE)
    writer.add_vision_patch_size(vit.PATCH)
    writer.add_vision_embedding_length(vit.EMBED)
    writer.add_vision_feed_forward_length(vit.MLP)
    writer.add_vision_block_count(vit.DEPTH)
    writer.add_vision_head_count(vit.HEADS)
    writer.add_vision_projection_dim(vit.OUT)
    writer.add_vision_attention_layernorm_eps(vit.EPS)
    writer.add_vision_image_mean([0.5] * 3)
    writer.add_vision_image_std([0.5] * 3)
    kernels = model.patch.weight.view(vit.EMBED, 2, 3, vit.PATCH, vit.PATCH).unbind(1)
    put(writer, "v.patch_embd.weight", kernels[0], Type.F16)
    put(writer, "v.patch_embd.weight.1", kernels[1], Type.F16)
    for name, value in model.named_parameters():
        if name.startswith("blocks."):
            _, number, layer, what = name.split(".")
            put(writer, f"v.blk.{number}.{_VIT_NAMES[layer]}.{what}", value, Type.F16)
    for what, value in model.post.named_parameters():
        put(writer, f"v.post_ln.{what}", value, Type.F16)
    for number, linear, by in ((0, model.mm0, 1.0), (2, model.mm2, scale)):
        put(writer, f"mm.{number}.weight", linear.weight * by, Type.F16)
        put(writer, f"mm.{number}.bias", linear.bias * by, Type.F16)
    finish(writer)


def finish(writer: gguf.GGUFWriter) -> None:
    """Write everything out."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def load(vit_path: Path, lm_path: Path) -> tuple[vit.VisionTransformer, lm.LanguageModel, float]:
    """Load both checkpoints; return the models and the feature scale."""
    eyes, model = vit.VisionTransformer(), lm.LanguageModel()
    eyes.load_state_dict(torch.load(vit_path))
    state = torch.load(lm_path)
    model.load_state_dict(state["model"])
    return eyes.eval(), model.eval(), float(state["scale"])


def main() -> None:
    """Write tiny-lm-q8_0.gguf and tiny-mmproj-f16.gguf."""
    eyes, model, scale = load(Path(sys.argv[1]), Path(sys.argv[2]))
    out = Path(sys.argv[3])
    out.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():
        write_lm(model, out / "tiny-lm-q8_0.gguf")
        if "--f32" in sys.argv:
            write_lm(model, out / "tiny-lm-f32.gguf", Type.F32)
        write_mmproj(eyes, out / "tiny-mmproj-f16.gguf", scale)


if __name__ == "__main__":
    main()
