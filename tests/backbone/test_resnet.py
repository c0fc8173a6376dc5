from __future__ import annotations

import torch
from torch.nn import functional as F

from sotglp import Backbone
from sotglp.backbone.resnet import ResnetReader
from support.towers import small_resnet


def test_resnet_features() -> None:
    clip = small_resnet()
    images = torch.randn(2, 3, 64, 64)
    image_features, patches = ResnetReader(clip.visual, "value").encode(images)
    torch.testing.assert_close(image_features, clip.encode_image(images), rtol=1e-5, atol=1e-5)

    feature_maps: list[torch.Tensor] = []
    clip.visual.layer4.register_forward_hook(lambda _module, _inputs, output: feature_maps.append(output))
    clip.visual(images)
    pool = clip.visual.attnpool
    expected = F.conv2d(feature_maps[0], pool.v_proj.weight[:, :, None, None], pool.v_proj.bias)
    expected = F.conv2d(expected, pool.c_proj.weight[:, :, None, None], pool.c_proj.bias)
    torch.testing.assert_close(patches, expected.flatten(2).transpose(1, 2), rtol=1e-5, atol=1e-6)


def test_resnet_backbone_sizes() -> None:
    backbone = Backbone.from_open_clip(small_resnet())
    image_features, patches = backbone.encode_image(torch.randn(2, 3, 64, 64))
    assert (backbone.n_patches, backbone.patch_width, backbone.embed_dim) == (4, 24, 24)
    assert image_features.shape == (2, 24)
    assert patches.shape == (2, 4, 24)
    assert backbone.project_patches(patches) is patches
