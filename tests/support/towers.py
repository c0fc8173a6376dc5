"""Small random CLIPs with a ViT and with a ResNet image tower."""

from __future__ import annotations

from typing import Any

import open_clip
import timm
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

TEXT = {"width": 32, "heads": 2, "layers": 1}


def small_resnet() -> nn.Module:
    torch.manual_seed(0)
    vision = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 32}
    clip = open_clip.CLIP(embed_dim=24, vision_cfg=vision, text_cfg=TEXT).eval()
    for module in clip.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.running_mean, std=0.1)
    return clip


def small_vit(**vision: Any) -> nn.Module:
    torch.manual_seed(0)
    settings = {"image_size": 32, "patch_size": 8, "width": 64, "layers": 3, "head_width": 32, **vision}
    return open_clip.CLIP(embed_dim=24, vision_cfg=settings, text_cfg=TEXT).eval()


def small_convolutional(image_size: int = 96, name: str = "test_efficientnet") -> nn.Module:
    """A CLIP with a small convolutional timm tower and a separate text tower, whose batch norms are not trivial."""
    torch.manual_seed(0)
    vision = {"timm_model_name": name, "timm_proj_bias": True, "image_size": image_size}
    clip = open_clip.CustomTextCLIP(embed_dim=32, vision_cfg=vision, text_cfg=TEXT).eval()
    for module in clip.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.running_mean, std=0.1)
    return clip


def fold_batch_norms(clip: nn.Module) -> None:
    """Fold each batch norm of an image tower into the convolution before it; its activation remains."""
    for parent in list(clip.visual.modules()):
        convolution = None
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d) and convolution is not None:
                fused = fuse_conv_bn_eval(convolution, child)
                convolution.weight, convolution.bias = fused.weight, fused.bias
                setattr(parent, name, getattr(child, "act", nn.Identity()))
            convolution = child if isinstance(child, nn.Conv2d) else None


SMALL_TRUNK = {"embed_dim": 48, "num_heads": 3, "depth": 2}
TIMM_VITS: dict[str, dict[str, Any]] = {
    "EVA01": {"timm_model_name": "eva_giant_patch14_224", "timm_pool": "token", "size": 56},
    "EVA02": {"timm_model_name": "eva02_base_patch16_clip_224", "timm_pool": "token", "size": 64},
    "EVA02-E": {"timm_model_name": "eva02_enormous_patch14_clip_224", "timm_pool": "token", "size": 56},
    "SigLIP": {"timm_model_name": "vit_base_patch16_siglip_224", "timm_pool": "map", "proj": "none", "size": 64},
    "PE-Core": {"timm_model_name": "vit_pe_core_tiny_patch16_384", "timm_pool": "map", "size": 64},
    "ViTamin": {"timm_model_name": "vitamin_small_224", "timm_pool": "", "proj": "linear", "size": 64},
    "MobileCLIP-B": {"timm_model_name": "vit_base_mci_224", "timm_pool": "token", "size": 64},
    "MobileCLIP2-L": {"timm_model_name": "vit_large_patch14_clip_224", "timm_pool": "token", "size": 56},
    "average": {"timm_model_name": "vit_base_patch16_224", "timm_pool": "avg", "proj": "linear", "size": 64},
}
"""Kinds of vision transformer of timm in open_clip's list, and one with an average pool."""


def small_timm_vit(kind: str, text: dict[str, Any] | None = None, **trunk: Any) -> nn.Module:
    """A CLIP whose image tower is a small variant of a timm transformer, with random biases, norms and scales."""
    row = TIMM_VITS[kind]
    torch.manual_seed(0)
    projection, dim = row.get("proj"), 24
    if projection == "none":
        dim = 48
    is_hybrid = kind in ("ViTamin", "MobileCLIP-B")  # whose stem has the trunk's width
    sizes = {"depth": 2} if is_hybrid else {**SMALL_TRUNK, **({"attn_pool_num_heads": 3} if kind == "PE-Core" else {})}
    pool = {"global_pool": row["timm_pool"]} if row["timm_pool"] else {}
    n_classes = dim if projection is None else 0
    made = timm.create_model(
        row["timm_model_name"], num_classes=n_classes, **pool, **{"img_size": row["size"], **sizes, **trunk}
    )
    vision = {"timm_model_name": "test_vit", "timm_proj": projection, "image_size": row["size"]}
    clip: Any = open_clip.CustomTextCLIP(embed_dim=dim, vision_cfg=vision, text_cfg=text or TEXT)
    clip.visual.trunk = made
    if projection == "linear":
        clip.visual.head.proj = nn.Linear(made.num_features, dim, bias=False)
    randomise_vectors(clip.visual)
    return clip.eval()


def randomise_vectors(module: nn.Module) -> None:
    """Draw biases, norms and scales, which are 0, 1 or 1e-5 at the start of training."""
    with torch.no_grad():
        for name, value in module.named_parameters():
            if value.ndim == 1:
                nn.init.normal_(value, mean=0.0 if name.endswith("bias") else 1.0, std=0.2)
            elif name.endswith("latent"):
                nn.init.normal_(value)


def small_coca(**vision: Any) -> nn.Module:
    torch.manual_seed(0)
    settings = {"image_size": 32, "patch_size": 8, "width": 64, "layers": 2, "head_width": 32, **vision}
    settings |= {"attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True}
    text = {**TEXT, "context_length": 76, "embed_cls": True, "output_tokens": True}
    multimodal = {**TEXT, "context_length": 76, "attn_pooler_heads": 2}
    clip = open_clip.CoCa(embed_dim=32, vision_cfg=settings, text_cfg=text, multimodal_cfg=multimodal)
    randomise_vectors(clip)
    return clip.eval()
