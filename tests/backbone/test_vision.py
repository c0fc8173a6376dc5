from __future__ import annotations

from typing import Any

import open_clip
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sotglp import Backbone, SotglpError
from sotglp.backbone.vision import check_vision_tower, encode_resnet, encode_vit, encode_vit_ordinary
from sotglp.errors import UnsupportedTowerError
from support.resnet import TEXT, small_resnet
from support.samples import Reference, tiny_clip


def small_vit(**vision: Any) -> nn.Module:
    torch.manual_seed(0)
    settings = {"image_size": 32, "patch_size": 8, "width": 64, "layers": 3, "head_width": 32, **vision}
    return open_clip.CLIP(embed_dim=24, vision_cfg=settings, text_cfg=TEXT).eval()


def test_published_image_and_patch_features(reference: Reference) -> None:
    numbers, model = reference.numbers, reference.model
    image_features, patch_tokens = reference.backbone.encode_image(numbers["image"])
    torch.testing.assert_close(image_features, numbers["image_global"], rtol=1e-5, atol=1e-5)
    if model.local_projection is not None:
        patch_tokens = patch_tokens @ model.local_projection.detach().T
    patches = reference.backbone.project_patches(patch_tokens)
    torch.testing.assert_close(patches, numbers["image_local"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "vision",
    [{}, {"layers": 1}, {"ls_init_value": 0.3}, {"image_size": (32, 48)}, {"no_ln_pre": True}, {"patch_dropout": 0.5}],
    ids=str,
)
def test_image_feature_is_open_clips_own(vision: dict[str, Any]) -> None:
    backbone = Backbone.from_open_clip(small_vit(**vision)).train()
    images = torch.randn(3, 3, *backbone.image_size)
    image_features, patch_tokens = backbone.encode_image(images)
    torch.testing.assert_close(image_features, backbone.clip.encode_image(images), rtol=1e-5, atol=1e-5)
    assert patch_tokens.shape == (3, backbone.n_patches, backbone.patch_width)


def plain_value_stream(visual: Any, images: torch.Tensor) -> torch.Tensor:
    """The second stream written out with explicit softmax and the block's own modules, in float64."""
    hidden = visual._embeds(images)
    stream = None
    for block in visual.transformer.resblocks:
        normed = block.ln_1(hidden)
        projected = F.linear(normed, block.attn.in_proj_weight, block.attn.in_proj_bias)
        n_heads = block.attn.num_heads
        size = projected.shape[-1] // 3 // n_heads
        query, key, value = projected.split(n_heads * size, dim=-1)

        def attend(a: torch.Tensor, b: torch.Tensor, v: torch.Tensor, n_heads: int = n_heads, size: int = size) -> Any:
            heads = []
            for head in range(n_heads):
                part = slice(head * size, (head + 1) * size)
                weight = torch.softmax(a[..., part] @ b[..., part].transpose(1, 2) / size**0.5, dim=-1)
                heads.append(weight @ v[..., part])
            return torch.cat(heads, dim=-1)

        ordinary = block.ls_1(block.attn.out_proj(attend(query, key, value)))
        stream = hidden + ordinary if stream is None else stream
        stream = stream + block.ls_1(block.attn.out_proj(attend(value, value, value)))
        hidden = hidden + ordinary
        hidden = hidden + block.ls_2(block.mlp(block.ln_2(hidden)))
    return visual.ln_post(stream)[:, 1:]


@pytest.mark.parametrize("vision", [{}, {"layers": 1}, {"ls_init_value": 0.3}], ids=str)
def test_patch_tokens_follow_the_written_out_method(vision: dict[str, Any]) -> None:
    visual = small_vit(**vision).double().visual
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(encode_vit(visual, images)[1], plain_value_stream(visual, images), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("vision", [{}, {"layers": 1}, {"ls_init_value": 0.3}, {"image_size": (32, 48)}], ids=str)
def test_ordinary_patch_tokens_are_open_clips_own(vision: dict[str, Any]) -> None:
    clip = small_vit(**vision)
    ordinary = Backbone.from_open_clip(clip, patch_attention="ordinary")
    images = torch.randn(3, 3, *ordinary.image_size)
    clip.visual.output_tokens = True
    pooled, tokens = clip.visual(images)
    for found, expected in zip(ordinary.encode_image(images), (pooled, tokens), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    image_features, patch_tokens = Backbone.from_open_clip(clip).encode_image(images)
    torch.testing.assert_close(image_features, pooled, rtol=1e-5, atol=1e-5)
    assert (patch_tokens - tokens).abs().max() > 0.1


def test_ordinary_patch_tokens_pass_every_block() -> None:
    """Written out with hooks alone: what the last block gives for the patches, after the last norm."""
    visual = small_vit().visual
    outputs: list[torch.Tensor] = []
    visual.transformer.resblocks[-1].register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    images = torch.randn(2, 3, 32, 32)
    visual(images)
    torch.testing.assert_close(encode_vit_ordinary(visual, images)[1], visual.ln_post(outputs[0])[:, 1:])


def test_patch_attention_that_there_is_not() -> None:
    with pytest.raises(SotglpError, match="a ResNet has no ordinary patch stream"):
        Backbone.from_open_clip(small_resnet(), patch_attention="ordinary")
    with pytest.raises(SotglpError, match="patch_attention = 'key' can't be used: choose one of value, ordinary"):
        Backbone.from_open_clip(small_vit(), patch_attention="key")  # type: ignore[arg-type]


def test_resnet_features() -> None:
    clip = small_resnet()
    images = torch.randn(2, 3, 64, 64)
    image_features, patches = encode_resnet(clip.visual, images)
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


@pytest.mark.parametrize(
    ("vision", "words"),
    [
        ({"attentional_pool": True}, "pools by attention"),
        ({"pool_type": "avg"}, "instead of a CLS token"),
        ({"qk_norm": True}, "custom attention blocks"),
    ],
)
def test_unserved_vit_is_refused(vision: dict[str, Any], words: str) -> None:
    with pytest.raises(UnsupportedTowerError, match=words):
        check_vision_tower(small_vit(**vision).visual)


def test_foreign_tower_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedTowerError, match="image tower Linear"):
        check_vision_tower(nn.Linear(2, 2))


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


def test_half_precision_weights_and_autocast_stay_close() -> None:
    clip = tiny_clip()
    images = torch.randn(2, 3, 32, 32)
    expected = Backbone.from_open_clip(clip).encode_image(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = Backbone.from_open_clip(clip).encode_image(images)
    for one, other in zip(found, expected, strict=True):
        assert F.cosine_similarity(one.float(), other, dim=-1).min() > 0.999
