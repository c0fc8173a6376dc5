from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from sotglp import Backbone, SotglpError
from sotglp.backbone.readers import make_reader
from sotglp.errors import UnsupportedTowerError
from support.towers import small_resnet, small_vit


def test_unknown_patch_attention_is_refused() -> None:
    with pytest.raises(SotglpError, match="a ResNet has no ordinary patch tokens"):
        Backbone.from_open_clip(small_resnet(), patch_attention="ordinary")
    with pytest.raises(SotglpError, match="'key' is unknown: choose one of value, ordinary"):
        Backbone.from_open_clip(small_vit(), patch_attention="key")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("vision", "words"),
    [
        ({"pool_type": "none"}, "instead of a CLS token"),
        ({"qk_norm": True}, "custom attention blocks"),
    ],
)
def test_unsupported_vit_is_refused(vision: dict[str, Any], words: str) -> None:
    with pytest.raises(UnsupportedTowerError, match=words):
        make_reader(small_vit(**vision).visual, "value")


def test_foreign_tower_is_refused_by_name() -> None:
    with pytest.raises(
        UnsupportedTowerError,
        match=r"Linear isn't supported, .*, a timm vision transformer or a convolutional timm tower",
    ):
        make_reader(nn.Linear(2, 2), "value")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ViT-B-32", "ViT-B-32-quickgelu", "ViT-B-16", "RN50", "RN101"])
def test_built_in_architectures(name: str) -> None:
    backbone = Backbone.load(name)
    images = torch.randn(2, 3, *backbone.image_size)
    image_features, patch_tokens = backbone.encode_image(images)
    torch.testing.assert_close(image_features, backbone.clip.encode_image(images), rtol=1e-5, atol=1e-5)
    assert patch_tokens.shape == (2, backbone.n_patches, backbone.patch_width)


@pytest.mark.slow
def test_another_image_size() -> None:
    backbone = Backbone.load("ViT-B-32", image_size=288)
    assert backbone.patch_grid == (9, 9)
    images = torch.randn(1, 3, 288, 288)
    torch.testing.assert_close(
        backbone.encode_image(images)[0], backbone.clip.encode_image(images), rtol=1e-5, atol=1e-5
    )
