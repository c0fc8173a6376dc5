from __future__ import annotations

import open_clip
import pytest
import torch
from PIL import Image
from torch import nn

from conftest import tiny_clip
from sotglp import SOTGLP, Backbone, SotglpError


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


def test_foreign_model_is_refused() -> None:
    with pytest.raises(SotglpError, match="Linear is not an open_clip model"):
        Backbone.from_open_clip(nn.Linear(2, 2))
