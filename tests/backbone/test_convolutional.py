from __future__ import annotations

from typing import Any

import open_clip
import pytest
import timm
import torch
from open_clip.timm_model import TimmModel

from sotglp import Backbone, SotglpError
from sotglp.backbone.convolutional import FAMILIES, ConvolutionalReader
from sotglp.backbone.readers import make_reader
from sotglp.errors import UnsupportedTowerError
from support.towers import fold_batch_norms, randomise_vectors, small_convolutional


def tower(name: str, size: int = 64, **settings: Any) -> TimmModel:
    torch.manual_seed(0)
    return TimmModel(name, 24, image_size=size, **settings).eval()


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("tf_efficientnet_lite0", {"proj_bias": True}),
        ("test_efficientnet", {}),
        ("test_resnet", {"pool": ""}),
        ("test_byobnet", {"proj": ""}),
        ("mobilenetv2_035", {"proj": ""}),
        ("test_nfnet", {"proj": "none"}),
        ("regnetx_002", {"proj": None}),
    ],
)
@pytest.mark.parametrize("size", [64, 75])
def test_mean_of_patches_is_the_image_feature_of_open_clip(name: str, settings: dict[str, Any], size: int) -> None:
    visual = tower(name, size, **settings)
    reader = make_reader(visual, "value")
    images = torch.randn(3, 3, size, size)
    with torch.no_grad():
        features, patches = reader.encode(images)
        expected, feature_map = visual(images), visual.trunk.forward_features(images)
    scale = float(expected.abs().max())
    torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-5 * scale)
    torch.testing.assert_close(patches.mean(dim=1), expected, rtol=1e-5, atol=1e-5 * scale)
    assert reader.patch_grid == tuple(feature_map.shape[2:])
    assert reader.patch_size == (size / reader.patch_grid[0], size / reader.patch_grid[1])
    assert (reader.patch_width, reader.embed_dim) == (expected.shape[1],) * 2
    assert reader.project(patches) is patches


def test_patches_are_the_linear_head_of_the_feature_map() -> None:
    visual = tower("test_efficientnet", (64, 96), proj_bias=True)
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        _, patches = make_reader(visual, "value").encode(images)
        feature_map = visual.trunk.forward_features(images)
    weight, bias = visual.head.proj.weight, visual.head.proj.bias
    expected = torch.einsum("bfhw,df->bhwd", feature_map, weight) + bias
    torch.testing.assert_close(patches, expected.flatten(1, 2), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("test_convnext", {"pool": "", "proj": "linear"}),
        ("test_convnext", {"pool": "", "proj": "mlp"}),
        ("mobilenetv3_small_050", {"proj": ""}),
        ("test_efficientnet", {"proj": "mlp"}),
    ],
)
@torch.no_grad()
def test_a_patch_is_the_head_of_its_position_and_of_a_map_that_is_this_position_everywhere(
    name: str, settings: dict[str, Any]
) -> None:
    visual: Any = tower(name, 96, **settings)
    randomise_vectors(visual)
    images = torch.randn(2, 3, 96, 96)
    features, patches = make_reader(visual, "value").encode(images)
    torch.testing.assert_close(features, visual(images), rtol=1e-5, atol=1e-5)
    feature_map = visual.trunk.forward_features(images)
    for index in range(9):
        everywhere = feature_map[:, :, [index // 3], :][..., [index % 3]].expand_as(feature_map)
        expected = visual.head(visual.trunk.forward_head(everywhere))
        torch.testing.assert_close(patches[:, index], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("test_efficientnet", {"pool": "max"}, "not pooled by its average"),
        ("test_efficientnet", {"pool": "", "proj": ""}, "not pooled by its average"),
        ("test_efficientnet", {"pool": "catavgmax", "proj": ""}, "each position|not pooled"),
        ("swin_tiny_patch4_window7_224", {"size": 224}, "no feature map"),
    ],
)
def test_towers_without_an_average_pool_of_a_feature_map_are_refused(
    name: str, settings: dict[str, Any], words: str
) -> None:
    visual = tower(name, **settings)
    with pytest.raises(UnsupportedTowerError, match=words):
        make_reader(visual, "value")


def test_ordinary_patch_tokens_are_refused() -> None:
    with pytest.raises(SotglpError, match="a convolutional tower has no ordinary patch tokens"):
        make_reader(tower("test_efficientnet"), "ordinary")


@pytest.mark.parametrize(
    ("vision", "supported"),
    [
        ({"timm_model_name": "tf_efficientnet_lite0"}, True),
        ({"timm_model_name": "resnet50.a1_in1k", "timm_pool": "", "timm_proj": "linear"}, True),
        ({"timm_model_name": "regnetx_002", "timm_proj": ""}, True),
        ({"timm_model_name": "fastvit_mci0", "timm_pool": "avg", "timm_proj": None}, True),
        ({"timm_model_name": "resnet50", "timm_pool": "", "timm_proj": ""}, False),
        ({"timm_model_name": "resnet50", "timm_pool": "abs_attn", "timm_proj": ""}, False),
        ({"timm_model_name": "resnet50", "timm_proj": "mlp"}, True),
        ({"timm_model_name": "convnext_base", "timm_pool": ""}, True),
        ({"timm_model_name": "mobilenetv3_small_050"}, False),
        ({"timm_model_name": "swin_tiny_patch4_window7_224"}, False),
        ({"layers": [3, 4, 6, 3]}, False),
    ],
)
def test_configurations(vision: dict[str, Any], supported: bool) -> None:
    assert ConvolutionalReader.is_configured(vision) == supported


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_qualifies(family: str) -> None:
    names = sorted((name for name in timm.list_models(module=family) if "_rms" not in name), key=len)
    for name in {names[0], names[-1]}:
        size = timm.get_pretrained_cfg(name).input_size[-1]
        with torch.device("meta"):
            visual = TimmModel(name, 24, image_size=size)
        assert make_reader(visual, "value").embed_dim == 24


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("folded", [False, True])
def test_features_do_not_depend_on_the_batch(threads: int, folded: bool) -> None:
    clip = small_convolutional()
    if folded:
        fold_batch_norms(clip)
    backbone = Backbone.from_open_clip(clip)
    images = torch.randn(9, 3, 96, 96)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        whole = backbone.encode_image(images)
        for n_images in (1, 2, 7):
            parts = [backbone.encode_image(part) for part in images.split(n_images)]
            for all_at_once, joined in zip(whole, map(torch.cat, zip(*parts, strict=True)), strict=True):
                assert torch.equal(all_at_once, joined)
    finally:
        torch.set_num_threads(before)


def test_a_tower_with_folded_batch_norms_is_read_alike() -> None:
    clip = small_convolutional()
    images = torch.randn(2, 3, 96, 96)
    expected = Backbone.from_open_clip(clip).encode_image(images)
    fold_batch_norms(clip)
    torch.testing.assert_close(Backbone.from_open_clip(clip).encode_image(images), expected, rtol=1e-4, atol=1e-4)


def test_backbone_sizes_and_an_unchanged_module() -> None:
    clip = small_convolutional()
    clip.train()
    before = {name: value.clone() for name, value in clip.state_dict().items()}
    backbone = Backbone.from_open_clip(clip)
    assert (backbone.patch_grid, backbone.n_patches, backbone.patch_size) == ((3, 3), 9, (32, 32))
    assert (backbone.patch_width, backbone.embed_dim) == (32, 32)
    assert all(torch.equal(value, before[name]) for name, value in clip.state_dict().items())
    features, patches = backbone.encode_image(torch.empty(0, 3, 96, 96))
    assert (features.shape, patches.shape) == ((0, 32), (0, 9, 32))
    assert isinstance(clip, open_clip.CustomTextCLIP)
