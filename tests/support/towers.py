"""Small random CLIPs with a ViT and with a ResNet image tower."""

from __future__ import annotations

from typing import Any

import open_clip
import torch
from torch import nn

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
