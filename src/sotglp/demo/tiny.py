"""The architecture of the embedded model: an ordinary open_clip.CLIP, only small."""

from __future__ import annotations

from typing import Any

import open_clip
import torch
from torch import nn

NAME = "tiny"

CONFIG: dict[str, Any] = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": 64, "patch_size": 8, "width": 128, "layers": 4, "head_width": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 128, "heads": 4, "layers": 3},
}


def build_tiny(seed: int) -> nn.Module:
    """The model with random weights; the same seed gives the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        clip: nn.Module = open_clip.CLIP(**CONFIG)
    return clip
