from importlib import resources

import open_clip
import pytest
import torch
from safetensors.torch import load
from timm.layers import BatchNormAct2d
from torch import nn

from sotglp import Backbone
from sotglp.backbone import photo


@pytest.fixture(scope="module")
def backbone():
    return Backbone.load("photo")


@pytest.fixture(scope="module")
def stored():
    return load((resources.files("sotglp") / "backbone" / "weights_data" / photo.FILE).read_bytes())


def test_folding_norms_keeps_the_outputs_of_the_tower():
    torch.manual_seed(0)
    vision = photo.CONFIG["vision_cfg"] | {"image_size": 64}
    clip = open_clip.CustomTextCLIP(**{**photo.CONFIG, "vision_cfg": vision}).eval()
    for module in clip.modules():
        if isinstance(module, BatchNormAct2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        expected = clip.encode_image(images)
        photo.fold_norms(clip.visual.trunk)
        assert not any(isinstance(module, BatchNormAct2d) for module in clip.modules())
        torch.testing.assert_close(clip.encode_image(images), expected, rtol=1e-4, atol=1e-4)


def test_fused_layers_keep_the_outputs_of_the_tower_and_the_names_of_its_weights(monkeypatch):
    ours = Backbone.load("photo", image_size=96)
    monkeypatch.setattr(photo, "fuse_activations", lambda trunk: None)
    monkeypatch.setattr(photo, "FrozenLinear", lambda layer: layer)
    plain = Backbone.load("photo", image_size=96)
    assert ours.fingerprint == plain.fingerprint == photo.FINGERPRINT
    assert not any(isinstance(module, nn.ReLU6) for module in ours.clip.visual.modules())
    images = torch.randn(3, 3, 96, 96)
    for found, expected in zip(ours.encode_image(images), plain.encode_image(images), strict=True):
        assert float((found - expected).norm()) < 1e-5 * float(expected.norm())


@pytest.mark.parametrize("threads", [1, 2])
def test_features_do_not_depend_on_the_batch(threads):
    backbone = Backbone.load("photo", image_size=96)
    images = torch.randn(5, 3, 96, 96)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        whole = backbone.encode_image(images)
        parts = [backbone.encode_image(part) for part in images.split(2)]
        for all_at_once, joined in zip(whole, map(torch.cat, zip(*parts, strict=True)), strict=True):
            assert torch.equal(all_at_once, joined)
    finally:
        torch.set_num_threads(before)


def test_packing_rounds_each_row_to_255_levels():
    weights = photo.build_photo(1).state_dict()
    del weights[photo.TOKENS]
    weights[photo.TABLE], weights[photo.MIXING] = torch.randn(49408, 3), torch.randn(3, 256)
    restored = photo.unpack(photo.pack(weights))
    for name in ("visual.trunk.conv_stem.weight", "text.transformer.resblocks.0.mlp.c_fc.weight"):
        rows, again = weights[name].flatten(1), restored[name].flatten(1)
        step = rows.abs().amax(1, keepdim=True) / 127
        assert bool(((rows - again).abs() <= 0.51 * step + 0.001 * rows.abs()).all())
    product = weights[photo.TABLE] @ weights[photo.MIXING]
    assert float((restored[photo.TOKENS] - product).norm() / product.norm()) < 0.02


def test_the_file_is_small_and_its_values_survive_another_packing(stored):
    assert sum(tensor.numel() * tensor.element_size() for tensor in stored.values()) < 14e6
    weights = photo.unpack(
        {name: tensor for name, tensor in stored.items() if photo.TABLE not in name}
        | {name: tensor[:8] for name, tensor in stored.items() if photo.TABLE in name}
    )
    again = photo.pack({name: tensor for name, tensor in weights.items() if name != photo.TOKENS})
    assert all(bool((again[name] == stored[name]).all()) for name in again)


def test_the_model_is_a_plain_open_clip_model_whose_image_feature_is_the_mean_of_its_patches(backbone):
    images = torch.randn(3, 3, 224, 224)
    image_features, patch_tokens = backbone.encode_image(images)
    assert isinstance(backbone.clip, open_clip.CustomTextCLIP)
    torch.testing.assert_close(image_features, backbone.clip.encode_image(images), rtol=1e-4, atol=1e-4)
    assert patch_tokens.shape == (3, 49, 1280)
    patches = backbone.project_patches(patch_tokens)
    torch.testing.assert_close(patches.mean(1), image_features, rtol=1e-4, atol=1e-4)


def test_photos_are_preprocessed_as_in_the_training_of_the_tower(backbone):
    mean, deviation = backbone.normalisation
    assert mean == (127 / 255,) * 3
    assert deviation == (128 / 255,) * 3


def test_templates_and_letter_case_hardly_move_a_text(backbone):
    def encode(*texts):
        return nn.functional.normalize(backbone.clip.encode_text(open_clip.tokenize(list(texts))), dim=-1)

    plain, other = encode("goldfish", "fire engine"), encode("A photo of a Goldfish.", "a picture of the fire engine")
    similarity = plain @ other.T
    assert bool((similarity.diagonal() > 0.8).all())
    assert float(similarity[0, 1]) < 0.4
