"""Folders of small random models in open_clip's format, one of each kind of tower, for commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from sotglp import Backbone
from sotglp.backbone.sources import CONFIG_FILE
from support.huggingface import write_tokenizer
from support.towers import randomise_vectors

TEXT: dict[str, Any] = {"width": 32, "heads": 2, "layers": 1}
PADDED = {**TEXT, "context_length": 40, "vocab_size": 300, "hf_tokenizer_name": "none", "tokenizer_kwargs": {}}
NO_MASK = {**PADDED, "no_causal_mask": True, "pool_type": "last"}
VIT = {"patch_size": 16, "width": 64, "layers": 2, "head_width": 32}


def _timm(name: str, pool: str, projection: str | None) -> dict[str, Any]:
    return {"timm_model_name": name, "timm_pool": pool, "timm_proj": projection, "image_size": 64}


KINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "SigLIP": (_timm("test_vit3", "map", "none"), NO_MASK),
    "ConvNeXt": (_timm("test_convnext", "", "linear"), TEXT),
    "FastViT": (_timm("fastvit_t8", "avg", None), {**TEXT, "no_causal_mask": True}),
    "CLIPA": ({**VIT, "image_size": 64, "no_ln_pre": True, "pool_type": "avg", "final_ln_after_pool": True}, NO_MASK),
    "CoCa": (
        {**VIT, "image_size": 64, "attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True},
        {**TEXT, "context_length": 76, "embed_cls": True, "output_tokens": True},
    ),
    "RoBERTa": (
        {**VIT, "image_size": 64},
        {"hf_model_name": "roberta", "hf_tokenizer_name": "none", "hf_proj_type": "mlp"},
    ),
}
"""Settings of image and text towers: one of each reader, the smallest that timm has."""

NEEDS_TRANSFORMERS = ("SigLIP", "CLIPA", "RoBERTa")


def write_model_folder(kind: str, folder: Path) -> Path:
    """Write configuration, random weights and tokenizer of a kind, as `hf download` or open_clip leaves them."""
    vision, text = KINDS[kind]
    folder.mkdir(parents=True)
    if kind in NEEDS_TRANSFORMERS:
        write_tokenizer(folder, "bytes")
    if kind == "RoBERTa":
        text = {**text, "hf_model_name": _write_encoder(folder / "encoder")}
    config: dict[str, Any] = {"embed_dim": 96 if kind == "SigLIP" else 32, "vision_cfg": vision, "text_cfg": text}
    if kind == "CoCa":
        config |= {"custom_text": True, "multimodal_cfg": {**TEXT, "context_length": 76, "attn_pooler_heads": 2}}
    (folder / CONFIG_FILE).write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    clip = Backbone.load(str(folder), "none", seed=0).clip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        randomise_vectors(clip.visual)
    save_file({name: value.contiguous() for name, value in clip.state_dict().items()}, folder / "model.safetensors")
    return folder


def _write_encoder(folder: Path) -> str:
    import transformers

    width = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": 2}
    config = transformers.RobertaConfig(vocab_size=300, max_position_embeddings=90, pad_token_id=1, **width)
    config.save_pretrained(folder)
    return str(folder)
