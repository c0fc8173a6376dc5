from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from sotglp import Backbone
from sotglp.backbone.vit import encode_vit
from support.samples import Reference, tiny_clip
from support.towers import small_vit


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


def test_half_precision_weights_and_autocast_stay_close() -> None:
    clip = tiny_clip()
    images = torch.randn(2, 3, 32, 32)
    expected = Backbone.from_open_clip(clip).encode_image(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = Backbone.from_open_clip(clip).encode_image(images)
    for one, other in zip(found, expected, strict=True):
        assert F.cosine_similarity(one.float(), other, dim=-1).min() > 0.999


@pytest.mark.parametrize("normed_after", [True, False])
@torch.no_grad()
def test_average_pool_as_in_clipa(normed_after: bool) -> None:
    clip = small_vit(pool_type="avg", final_ln_after_pool=normed_after, no_ln_pre=True).double()
    visual: Any = clip.visual
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    image_features, patch_tokens = encode_vit(visual, images)
    torch.testing.assert_close(image_features, clip.encode_image(images), rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(patch_tokens, plain_value_stream(visual, images), rtol=1e-9, atol=1e-10)
    image_features, patch_tokens = encode_vit(visual, images, "ordinary")
    torch.testing.assert_close(image_features, clip.encode_image(images), rtol=1e-9, atol=1e-10)
    if not normed_after:
        torch.testing.assert_close(patch_tokens.mean(dim=1) @ visual.proj, image_features, rtol=1e-9, atol=1e-10)
