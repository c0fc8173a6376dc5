"""Small random CLIPs with a ViT and with a ResNet image tower."""

from __future__ import annotations

from typing import Any

import open_clip
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
