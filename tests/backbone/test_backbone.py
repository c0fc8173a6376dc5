from __future__ import annotations

import copy
import json

import numpy as np
import open_clip
import pytest
import torch
from open_clip.model import set_model_preprocess_cfg
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torch import nn

from sotglp import SOTGLP, Backbone, SotglpError
from support.samples import tiny_clip


def test_sizes(tiny_backbone: Backbone) -> None:
    assert tiny_backbone.image_size == (32, 32)
    assert tiny_backbone.patch_grid == (4, 4)
    assert (tiny_backbone.n_patches, tiny_backbone.patch_width, tiny_backbone.embed_dim) == (16, 64, 32)
    assert tiny_backbone.logit_scale == pytest.approx(1 / 0.07, rel=1e-5)


def test_it_is_frozen_and_stays_in_evaluation_mode(tiny_backbone: Backbone) -> None:
    model = SOTGLP(tiny_backbone, ["cat", "dog"]).train()
    assert model.training
    assert not any(module.training for module in tiny_backbone.modules())
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {"global_prompts", "local_prompts", "local_projection"}


def test_weights_are_the_given_models_own(tiny_backbone: Backbone) -> None:
    clip = tiny_clip()
    backbone = Backbone.from_open_clip(clip)
    own = {parameter.data_ptr() for parameter in clip.parameters()}
    assert {parameter.data_ptr() for parameter in backbone.parameters()} == own


def test_images_of_another_size_are_refused(tiny_backbone: Backbone) -> None:
    with pytest.raises(SotglpError, match=r"\(2, 3, 48, 32\) don't fit .* \(B, 3, 32, 32\)"):
        tiny_backbone.encode_image(torch.zeros(2, 3, 48, 32))


def test_default_preprocessing_is_open_clips() -> None:
    picture = Image.effect_noise((50, 40), 60).convert("RGB")
    expected = open_clip.image_transform(32, is_train=False)(picture)
    torch.testing.assert_close(Backbone.from_open_clip(tiny_clip()).preprocess(picture), expected, rtol=0, atol=0)


def test_preprocessing_can_be_given() -> None:
    backbone = Backbone.from_open_clip(tiny_clip(), preprocess=lambda _: torch.ones(3, 32, 32))
    assert backbone.preprocess(Image.new("RGB", (5, 5))).sum() == 3 * 32 * 32
    assert backbone.preprocess_settings is None


def test_preprocessing_is_the_one_recorded_on_the_tower() -> None:
    clip = tiny_clip()
    mean, std = (0.5, 0.25, 0.125), (0.5, 0.4, 0.3)
    noted = PreprocessCfg(mean=mean, std=std, interpolation="bilinear", resize_mode="squash")
    set_model_preprocess_cfg(clip, vars(noted))
    backbone = Backbone.from_open_clip(clip)
    picture = Image.effect_noise((50, 40), 60).convert("RGB")
    squashed = np.asarray(picture.resize((32, 32), Image.Resampling.BILINEAR), dtype=np.float64)
    expected = ((squashed / 255 - mean) / std).transpose(2, 0, 1)
    np.testing.assert_allclose(backbone.preprocess(picture), expected, rtol=0, atol=1e-5)
    assert backbone.normalisation == (mean, std)


def test_settings_describe_the_preprocessing() -> None:
    clip = tiny_clip()
    noted = {"mean": (0.5, 0.25, 0.125), "std": (0.5, 0.4, 0.3), "interpolation": "bilinear", "resize_mode": "longest"}
    set_model_preprocess_cfg(clip, {**noted, "size": 224, "fill_color": 7, "mode": "RGB"})
    backbone = Backbone.from_open_clip(clip)
    settings = backbone.preprocess_settings
    assert settings == {
        "size": [32, 32],
        "mode": "RGB",
        "mean": [0.5, 0.25, 0.125],
        "std": [0.5, 0.4, 0.3],
        "interpolation": "bilinear",
        "resize_mode": "longest",
        "fill_color": 7,
    }
    assert json.loads(json.dumps(settings)) == settings
    picture = Image.effect_noise((50, 40), 60).convert("RGB")
    described = image_transform_v2(PreprocessCfg(**settings), is_train=False)
    assert torch.equal(backbone.preprocess(picture), described(picture))


def test_settings_do_not_describe_preprocessing_assigned_later(tiny_backbone: Backbone) -> None:
    assert copy.deepcopy(tiny_backbone).preprocess_settings == tiny_backbone.preprocess_settings is not None
    tiny_backbone.preprocess = lambda _: torch.ones(3, 32, 32)
    assert tiny_backbone.preprocess_settings is None


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("layers", [2, [1, 1, 1, 1]], ids=["vit", "resnet"])
def test_activation_is_found_from_the_module(layers: int | list[int], quick: bool) -> None:
    clip = open_clip.CLIP(
        embed_dim=32,
        vision_cfg={"image_size": 32, "patch_size": 8, "width": 64, "layers": layers, "head_width": 32},
        text_cfg={"width": 32, "heads": 2, "layers": 2},
        quick_gelu=quick,
    )
    assert Backbone.from_open_clip(clip).quick_gelu is quick


def test_foreign_model_is_refused() -> None:
    with pytest.raises(SotglpError, match="Linear is not an open_clip model"):
        Backbone.from_open_clip(nn.Linear(2, 2))


def test_parts_of_a_batch_on_the_cpu_are_the_whole_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = Backbone.from_open_clip(tiny_clip())
    images = torch.randn(7, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    whole = backbone.encode_image(images)
    monkeypatch.setattr("sotglp.backbone.backbone.CPU_TOKENS", 3 * 17)  # three images of 16 patches and CLS
    for part, all_at_once in zip(backbone.encode_image(images), whole, strict=True):
        assert part.shape == all_at_once.shape
        torch.testing.assert_close(part, all_at_once, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("threads", [1, 2])
def test_features_do_not_depend_on_the_other_images_of_a_batch(threads: int) -> None:
    """Bit for bit on a CPU: features are kept, whichever batch they were encoded in."""
    backbone = Backbone.load("tiny")
    images = torch.randn(26, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        features, patches = backbone.encode_image(images)
        projected = backbone.project_patches(patches)
        for part in (slice(0, 1), slice(3, 8), slice(7, 26), slice(25, 26)):
            own_features, own_patches = backbone.encode_image(images[part])
            assert torch.equal(own_features, features[part])
            assert torch.equal(own_patches, patches[part])
            assert torch.equal(backbone.project_patches(own_patches), projected[part])
    finally:
        torch.set_num_threads(before)
