"""Image towers of timm without a text tower."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch

from sotglp import Backbone
from sotglp.backbone.architectures import chosen_weights, is_known
from sotglp.backbone.image_only import timm_tags
from sotglp.backbone.weights import weight_shapes
from sotglp.errors import SotglpError

VIT, CONVNEXT = "timm:test_vit", "timm:test_convnext"


@pytest.fixture(scope="module")
def vit() -> Backbone:
    return Backbone.load(VIT, image_size=64)


@pytest.mark.parametrize("name", [VIT, CONVNEXT, "timm:test_efficientnet"])
@torch.no_grad()
def test_features_are_timms_own(name: str) -> None:
    backbone = Backbone.load(name, image_size=64, seed=3)
    images = torch.randn(2, 3, 64, 64)
    features, patches = backbone.encode_image(images)
    torch.testing.assert_close(features, backbone.clip.visual.trunk(images), rtol=1e-4, atol=1e-5)
    assert backbone.project_patches(patches).shape == (2, backbone.n_patches, backbone.embed_dim)


@pytest.mark.parametrize(
    ("name", "grid", "width"),
    [
        ("vit_small_patch14_dinov2", (5, 5), 384),
        ("vit_small_patch14_reg4_dinov2", (5, 5), 384),
        ("vit_small_patch16_dinov3", (4, 4), 384),
        ("convnext_tiny", (2, 2), 768),
        ("resnet18", (2, 2), 512),
    ],
)
def test_architectures_of_timm_are_read(name: str, grid: tuple[int, int], width: int) -> None:
    with torch.device("meta"):
        side = 70 if "patch14" in name else 64
        shapes = weight_shapes(f"timm:{name}", side)
    assert "visual.trunk.cls_token" in shapes or "visual.trunk.norm.weight" in shapes or grid == (2, 2)
    backbone = Backbone.load(f"timm:{name}", image_size=side)
    assert (backbone.patch_grid, backbone.embed_dim) == (grid, width)
    assert {key: value.shape for key, value in backbone.clip.state_dict().items()} == shapes


def test_images_are_normalised_as_timm_records_it(vit: Backbone) -> None:
    assert vit.normalisation == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert Backbone.load("timm:resnet18").normalisation[0] == (0.485, 0.456, 0.406)
    assert Backbone.load(CONVNEXT).image_size == (160, 160)


def test_weights_are_published_random_or_none() -> None:
    assert timm_tags("timm:vit_small_patch14_dinov2") == ["lvd142m"]
    assert timm_tags("timm:convnext_tiny")[0] == timm.models.get_pretrained_cfg("convnext_tiny").tag
    assert chosen_weights("timm:vit_small_patch14_dinov2", "auto") == "lvd142m"
    assert chosen_weights("timm:vit_small_patch14_dinov2", None) is None
    same = [Backbone.load(VIT, image_size=32, seed=seed).fingerprint for seed in (1, 1, 2)]
    assert same[0] == same[1] != same[2]
    assert not is_known("timm:vit_small_patch14_dinov99")


def test_there_is_no_text(vit: Backbone) -> None:
    assert not vit.has_text
    with pytest.raises(SotglpError, match="has no text tower"):
        _ = vit.text


@pytest.mark.parametrize(("name", "classifier"), [(VIT, "head"), (CONVNEXT, "head.fc")])
@torch.no_grad()
def test_a_file_of_timm_is_read_at_another_image_size_and_without_its_classifier(
    name: str, classifier: str, tmp_path: Path
) -> None:
    torch.manual_seed(5)
    published = timm.create_model(name.removeprefix("timm:"), num_classes=7).eval()
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file(published.state_dict(), path)
    backbone = Backbone.load(name, path)
    images = torch.randn(1, 3, *backbone.image_size)
    expected = published.forward_head(published.forward_features(images), pre_logits=True)
    torch.testing.assert_close(backbone.encode_image(images)[0], expected, rtol=1e-4, atol=1e-5)
    assert "state_dict" not in backbone.clip.visual.trunk.pretrained_cfg
    assert Backbone.load(name, path, image_size=64).image_size == (64, 64)
    assert f"{classifier}.weight" in published.state_dict()


def test_unfit_names_and_weights_are_refused_in_one_sentence(tmp_path: Path) -> None:
    other, broken = tmp_path / "other.safetensors", tmp_path / "broken.pt"
    safetensors.torch.save_file(timm.create_model("test_resnet").state_dict(), other)
    broken.write_bytes(b"PK\x03\x04")
    cases = {
        (VIT, str(other)): r"other\.safetensors doesn't fit timm:test_vit \(.*[Mm]issing",
        (VIT, str(broken)): "broken.pt can't be read",
        (VIT, "openai"): "neither a weight file nor a tag of timm:test_vit",
        ("timm:test_vitt", "none"): "did you mean timm:test_vit",
        ("timm:test_vit.r160_in1k", "none"): "without a tag",
        ("timm:test_vit.r160", "auto"): "without a tag",
        ("timm:vit_relpos_base_patch16_rpn_224", "elsewhere"): "neither a weight file nor a tag",
        ("timm:swin_tiny_patch4_window7_224", "none"): "SwinTransformer isn't supported",
    }
    for (name, pretrained), words in cases.items():
        with pytest.raises(SotglpError, match=words) as error:
            Backbone.load(name, pretrained)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "side", "words"),
    [
        ("timm:vit_small_patch14_dinov2", 10, "10 x 10 pixels are smaller than a patch"),
        ("ViT-S-32-alt", 10, "10 x 10 pixels are smaller than a patch"),
        ("RN50", 16, "16 x 16 pixels are smaller than a patch"),
        (VIT, 70, "70 x 70 pixels can't be divided into patches of 16 x 16"),
        (CONVNEXT, 8, "8 x 8 pixels don't fit ConvNeXt"),
    ],
)
def test_image_sizes_that_do_not_fit_are_refused(name: str, side: int, words: str) -> None:
    with pytest.raises(SotglpError, match=words):
        Backbone.load(name, image_size=side)
